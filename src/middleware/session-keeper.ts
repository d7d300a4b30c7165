/** How sessions are found and kept: in their cookies, or in a store. */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { OffloopError } from '../errors.js';
import { isThenable } from '../handlers/reasons.js';
import type { HttpRequest } from '../handlers/types.js';
import { appendCookie, type CookieAttributes, type CookieLibrary } from './cookies.js';
import { logError } from './request.js';
import { after, draftFor, type Result } from './response.js';
import type { Session } from './session.js';
import type { SessionStore } from './session-store.js';

/** Browsers take no more for a cookie with its name and attributes (RFC 6265, 6.1). */
const MAX_COOKIE = 4096;
const DROPPED = 'a session was changed by a request that a channel has answered: it cannot set the cookie';
/** Part of `timeout` after which a session in use is prolonged. */
const PROLONG = 0.1;

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

/** What keepers go by. */
export interface Settings {
  readonly name: string;
  readonly timeout: number;
  readonly cookie: CookieAttributes;
  readonly library: CookieLibrary;
}

/** A session while its request is handled. */
export class CurrentSession<Data extends object> implements Session<Data> {
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
export class CookieKeeper {
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
export class StoreKeeper {
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
