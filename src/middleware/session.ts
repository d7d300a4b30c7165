/** Sessions: in a signed cookie, or in a store. */
import { integer, type Rule, refuse } from '../check.js';
import { OffloopTypeError } from '../errors.js';
import type { Middleware } from '../handlers/compose.js';
import type { Returns } from '../handlers/types.js';
import { ATTRIBUTE_RULES, type CookieAttributes, type CookieLibrary } from './cookies.js';
import { peer } from './peers.js';
import { withFields } from './request.js';
import { after } from './response.js';
import { checkOptions, MAX_MS } from './rules.js';
import { CookieKeeper, CurrentSession, type Settings, StoreKeeper } from './session-keeper.js';
import type { SessionStore } from './session-store.js';

/** What {@link session} adds to a request. */
export interface WithSession<Data extends object = Record<string, unknown>> {
  readonly session: Session<Data>;
}

/** The session of a client. */
export interface Session<Data extends object = Record<string, unknown>> {
  /** What is kept: change it, and it is kept so. JSON. */
  readonly data: Partial<Data>;
  /** Whether the client came without a session. */
  readonly isNew: boolean;
  /** Give it a new id, the data stays: at login, so that nobody who knew the old id has the new rights. */
  regenerate(): void;
  /** End it, and delete the cookie. */
  destroy(): void;
}

export interface SessionOptions {
  /**
   * Keys that the cookie is signed with, each of at least 32 characters. The first signs, all are accepted. With it the
   * session is in the cookie. Excludes `store`.
   */
  secret?: string | readonly string[];
  /** Keeps the sessions; the cookie has an id. Excludes `secret`. */
  store?: SessionStore;
  /** Name of the cookie. Default 'session'. */
  name?: string;
  /** Ms without a request until a session ends. Default 1800000, half an hour. */
  timeout?: number;
  /** Attributes of the cookie; HttpOnly, SameSite=Lax, Path=/, and Secure over https, where none are given. */
  cookie?: Omit<CookieAttributes, 'maxAge' | 'expires'>;
}

const MIN_SECRET = 32;
const { maxAge: _maxAge, expires: _expires, ...COOKIE_RULES } = ATTRIBUTE_RULES;
const RULES: Record<keyof SessionOptions, Rule> = {
  // Looked at by secretsOf, whose message does not show it.
  secret: { allowed: '', ok: () => true },
  store: {
    allowed: 'an object with get, set and delete',
    ok: (v) =>
      typeof v === 'object' &&
      v !== null &&
      ['get', 'set', 'delete'].every((name) => typeof (v as Record<string, unknown>)[name] === 'function'),
  },
  name: {
    allowed: 'a name for a cookie',
    ok: (v) => typeof v === 'string' && /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(v),
  },
  timeout: integer(1000, MAX_MS, 'whole milliseconds from 1000 to 2^31 - 1'),
  cookie: { allowed: 'an object of cookie attributes', ok: (v) => typeof v === 'object' && v !== null },
};

/**
 * Adds `session`. It is kept when the handler's answer is there and its data has changed; when the handler fails nothing
 * is. Requests of one client at the same time do not see each other's changes: the last one is kept.
 * @throws OFFLOOP_BAD_OPTION, OFFLOOP_MISSING_PACKAGE.
 */
export function session<Data extends object = Record<string, unknown>>(
  options: SessionOptions,
): Middleware<WithSession<Data>> {
  checkOptions('session', options, RULES);
  const { secret, store, name = 'session', timeout = 30 * 60_000, cookie = {} } = options;
  checkOptions('session: cookie', cookie, COOKIE_RULES);
  const secrets = secretsOf(secret);
  if (secret === undefined && store === undefined)
    refuse('session', 'secret', secret, 'a secret, or a store instead of one');
  if (secret !== undefined && store !== undefined) refuse('session', 'store', store, 'nothing beside secret');
  const library = peer<CookieLibrary>('cookie', 'session');
  const settings: Settings = { name, timeout, cookie, library };
  const keeper = store === undefined ? new CookieKeeper(settings, secrets) : new StoreKeeper(settings, store);

  return (handler) => (req) =>
    after(keeper.find(req), (found) => {
      const current = new CurrentSession<Data>(found);
      const inner = withFields(req, { session: current as Session<Data> });
      return after(handler(inner) as Returns | Promise<Returns>, (result) =>
        keeper.keep(req, result, current),
      );
    });
}

/** The keys, checked. A message about a bad one says how long it is, not what it is: messages end up in logs. */
function secretsOf(secret: unknown): string[] {
  const secrets: unknown[] = Array.isArray(secret) ? secret : secret === undefined ? [] : [secret];
  const bad = secrets.find((one) => typeof one !== 'string' || one.length < MIN_SECRET);
  if (bad === undefined && (secret === undefined || secrets.length > 0)) return secrets as string[];
  const shown =
    bad === undefined
      ? '[] (array)'
      : typeof bad === 'string'
        ? `a string of ${bad.length}`
        : `a ${typeof bad}`;
  throw new OffloopTypeError(
    'OFFLOOP_BAD_OPTION',
    `session: option secret is ${shown}; allowed: a string of at least ${MIN_SECRET} characters, or a non-empty array of them.`,
  );
}
