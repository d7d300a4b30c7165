/** Sessions: in a signed cookie, or in a store. */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { integer, type Rule, refuse } from '../check.js';
import { OffloopError, OffloopTypeError } from '../errors.js';
import type { Middleware } from '../handlers/compose.js';
import { isThenable } from '../handlers/reasons.js';
import type { HttpRequest, Returns } from '../handlers/types.js';
import { ATTRIBUTE_RULES, appendCookie, type CookieAttributes, type CookieLibrary } from './cookies.js';
import { peer } from './peers.js';
import { logError, withFields } from './request.js';
import { after, draftFor, type Result } from './response.js';
import { checkOptions, MAX_MS } from './rules.js';
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

/** Browsers take no more for a cookie with its name and attributes (RFC 6265, 6.1). */
const MAX_COOKIE = 4096;
const MIN_SECRET = 32;
const DROPPED = 'a session was changed by a request that a channel has answered: it cannot set the cookie';
/** Part of `timeout` after which a session in use is prolonged. */
const PROLONG = 0.1;

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

/** What is kept of a session, and until when it is good. */
interface Kept {
  readonly data: object;
  readonly ends: number;
}

/** What a client came with. */
interface Found {
  /** The id, for a store. */
  readonly id: string | undefined;
  readonly kept: Kept | undefined;
  /** It is good, but was signed with an old key. */
  readonly stale: boolean;
}
const NOTHING: Found = { id: undefined, kept: undefined, stale: false };

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

interface Settings {
  readonly name: string;
  readonly timeout: number;
  readonly cookie: CookieAttributes;
  readonly library: CookieLibrary;
}

class CurrentSession<Data extends object> implements Session<Data> {
  readonly data: Partial<Data>;
  readonly isNew: boolean;
  fate: 'kept' | 'regenerated' | 'destroyed' = 'kept';
  private readonly before: string;

  constructor(readonly found: Found) {
    this.isNew = found.kept === undefined;
    this.data = Object.assign(Object.create(null), found.kept?.data) as Partial<Data>;
    this.before = JSON.stringify(this.data);
  }

  regenerate(): void {
    if (this.fate === 'kept') this.fate = 'regenerated';
  }
  destroy(): void {
    this.fate = 'destroyed';
  }

  /** What is to be kept now; undefined when nothing has to be. */
  changes(timeout: number): { readonly json: string; readonly matters: boolean } | undefined {
    const { found, before, fate, isNew } = this;
    const json = JSON.stringify(this.data);
    if (json !== before || (fate === 'regenerated' && !isNew)) return { json, matters: true };
    if (found.kept === undefined) return undefined;
    const used = timeout - (found.kept.ends - Date.now());
    return found.stale || used >= timeout * PROLONG ? { json, matters: false } : undefined;
  }
}

type AnySession = CurrentSession<object>;

/** Set or delete the cookie in a response. Where a channel answers, which has no room for one, it is logged if it `matters`. */
function setCookie(
  { name, cookie, library, timeout }: Settings,
  req: HttpRequest,
  result: Result,
  value: string | null,
  matters: boolean,
): Result {
  const draft = draftFor(req, result);
  if (draft === null) {
    if (matters) logError(req, `${req.method} ${req.path}: ${DROPPED}`, undefined);
    return result;
  }
  const maxAge = Math.ceil(timeout / 1000);
  const line = appendCookie(draft.headers, library, req, name, { ...cookie, maxAge, value });
  if (line.length > MAX_COOKIE) {
    throw new OffloopError(
      'OFFLOOP_SESSION_TOO_LARGE',
      `the session makes a cookie of ${line.length} bytes, and browsers take ${MAX_COOKIE}: keep less in it, or give session() a store`,
    );
  }
  return draft.finish();
}

function readCookie({ library, name }: Settings, req: HttpRequest): string | undefined {
  const header = req.headers['cookie'];
  return header === undefined ? undefined : library.parseCookie(header)[name];
}

/** Keeps sessions in their cookies: `base64url(JSON) . base64url(HMAC-SHA256)`. Signed, not encrypted. */
class CookieKeeper {
  constructor(
    private readonly settings: Settings,
    private readonly keys: readonly string[],
  ) {}

  find(req: HttpRequest): Found {
    const value = readCookie(this.settings, req);
    const dot = value?.lastIndexOf('.') ?? -1;
    if (value === undefined || dot === -1) return NOTHING;
    const payload = value.slice(0, dot);
    const signature = Buffer.from(value.slice(dot + 1), 'base64url');
    const signer = this.keys.findIndex((key) => {
      const expected = this.sign(payload, key);
      return signature.length === expected.length && timingSafeEqual(signature, expected);
    });
    if (signer === -1) return NOTHING;
    // Signed by us, so it is what we wrote.
    const kept = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Kept;
    return kept.ends <= Date.now() ? NOTHING : { id: undefined, kept, stale: signer > 0 };
  }

  /** With the name: what was signed for one cookie is no good in another. */
  private sign(payload: string, key: string): Buffer {
    return createHmac('sha256', key).update(`${this.settings.name}=${payload}`).digest();
  }

  keep(req: HttpRequest, result: Result, session: AnySession): Result {
    const { timeout } = this.settings;
    if (session.fate === 'destroyed') {
      if (readCookie(this.settings, req) === undefined) return result;
      return setCookie(this.settings, req, result, null, true);
    }
    const changes = session.changes(timeout);
    if (changes === undefined) return result;
    const payload = Buffer.from(textOf(changes.json, timeout)).toString('base64url');
    const value = `${payload}.${this.sign(payload, this.keys[0] as string).toString('base64url')}`;
    return setCookie(this.settings, req, result, value, changes.matters);
  }
}

const ID_BYTES = 32;
const ID = /^[A-Za-z0-9_-]{43}$/;
const keyOf = (id: string): string => createHash('sha256').update(id).digest('base64url');

/** Keeps sessions in a store. An id that the store does not know is never taken over from a client. */
class StoreKeeper {
  constructor(
    private readonly settings: Settings,
    private readonly store: SessionStore,
  ) {}

  find(req: HttpRequest): Found | Promise<Found> {
    const id = readCookie(this.settings, req);
    if (id === undefined || !ID.test(id)) return NOTHING;
    return after(this.store.get(keyOf(id)), (text) => {
      const kept = typeof text === 'string' ? parseKept(text) : undefined;
      return kept === undefined || kept.ends <= Date.now() ? NOTHING : { id, kept, stale: false };
    });
  }

  keep(req: HttpRequest, result: Result, session: AnySession): Result | Promise<Result> {
    const { timeout } = this.settings;
    const { id } = session.found;
    if (session.fate === 'destroyed') {
      const gone = id === undefined ? undefined : this.store.delete(keyOf(id));
      if (readCookie(this.settings, req) === undefined) return result;
      return waitFor(gone, () => setCookie(this.settings, req, result, null, true));
    }
    const changes = session.changes(timeout);
    if (changes === undefined) return result;
    const text = textOf(changes.json, timeout);
    if (id !== undefined && session.fate === 'kept') {
      // One that another request has ended in the meantime must not come back.
      return after(this.store.get(keyOf(id)), (found) => {
        if (typeof found !== 'string') return result;
        // The client finds its session changed also without a new cookie.
        const kept = this.store.set(keyOf(id), text, timeout);
        return waitFor(kept, () => setCookie(this.settings, req, result, id, false));
      });
    }
    const next = randomBytes(ID_BYTES).toString('base64url');
    return waitFor(this.store.set(keyOf(next), text, timeout), () => {
      const gone = id === undefined ? undefined : this.store.delete(keyOf(id));
      return waitFor(gone, () => setCookie(this.settings, req, result, next, true));
    });
  }
}

const textOf = (json: string, timeout: number): string => `{"data":${json},"ends":${Date.now() + timeout}}`;

function parseKept(text: string): Kept | undefined {
  try {
    const kept = JSON.parse(text) as Kept | null;
    return typeof kept?.data === 'object' && typeof kept.ends === 'number' ? kept : undefined;
  } catch {
    return undefined;
  }
}

function waitFor(work: unknown, next: () => Result | Promise<Result>): Result | Promise<Result> {
  return isThenable(work) ? Promise.resolve(work).then(next) : next();
}
