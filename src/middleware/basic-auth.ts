/** Basic authentication (RFC 7617). */
import { createHash, timingSafeEqual } from 'node:crypto';
import { plainObject, type Rule, refuse } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import type { HttpRequest } from '../handlers/types.js';
import { withFields } from './request.js';
import { after, plain } from './response.js';
import { aFunction, checkOptions } from './rules.js';

/** What {@link basicAuth} adds to a request. */
export interface BasicAuth {
  /** Who the client has proved to be. */
  readonly user: string;
}

export interface BasicAuthOptions {
  /** Passwords by user. Excludes `verify`. */
  users?: Record<string, string>;
  /** Says whether this is the password of this user. Excludes `users`. */
  verify?: (user: string, password: string, req: HttpRequest) => boolean | Promise<boolean>;
  /** What the password is for, as browsers show it. Default 'Restricted'. */
  realm?: string;
}

const RULES: Record<keyof BasicAuthOptions, Rule> = {
  users: { allowed: '', ok: () => true },
  verify: aFunction,
  realm: {
    allowed: 'a string of visible characters without " and \\',
    ok: (v) => typeof v === 'string' && /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/.test(v),
  },
};

/**
 * Answers 401 to who does not know a password. Without https everybody on the way can read it. @throws OFFLOOP_BAD_OPTION.
 */
export function basicAuth(options: BasicAuthOptions): Middleware<BasicAuth> {
  checkOptions('basicAuth', options, RULES);
  const { users, verify, realm = 'Restricted' } = options;
  const check = verify ?? against(users);
  if (users !== undefined && verify !== undefined)
    refuse('basicAuth', 'verify', verify, 'nothing beside users');
  const denied = plain(401, 'Unauthorized', {
    'www-authenticate': `Basic realm="${realm}", charset="UTF-8"`,
  });

  return (handler) => (req) => {
    const given = credentialsOf(req.headers['authorization']);
    if (given === undefined) return denied;
    const [user, password] = given;
    return after(check(user, password, req), (ok) =>
      ok === true ? handler(withFields(req, { user })) : denied,
    );
  };
}

const CREDENTIALS = /^basic +([A-Za-z0-9+/]+={0,2})$/i;

function credentialsOf(header: string | undefined): [user: string, password: string] | undefined {
  const encoded = CREDENTIALS.exec(header ?? '')?.[1];
  if (encoded === undefined) return undefined;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(encoded, 'base64'));
  } catch {
    return undefined;
  }
  const colon = text.indexOf(':');
  return colon === -1 ? undefined : [text.slice(0, colon), text.slice(colon + 1)];
}

/** The message about bad users does not show their passwords: messages end up in logs. */
function against(users: unknown): (user: string, password: string) => boolean {
  const good =
    plainObject(users) &&
    Object.entries(users).every(
      ([user, password]) => !user.includes(':') && typeof password === 'string' && password !== '',
    );
  if (!good)
    refuse(
      'basicAuth',
      'users',
      plainObject(users) ? Object.keys(users) : users,
      "an object of passwords, which are not empty, by user, without ':' in their names; or verify instead",
    );
  const hashes = new Map(
    Object.entries(users as Record<string, string>).map(([user, password]) => [user, hash(password)]),
  );
  const nobody = hash('');
  return (user, password) => {
    const expected = hashes.get(user);
    // The same work for a user that does not exist; and of hashes nothing can be guessed piece by piece.
    const same = timingSafeEqual(hash(password), expected ?? nobody);
    return same && expected !== undefined;
  };
}

const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
