/** Cookies, after Ring's wrap-cookies. */
import { plainObject, type Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import type { HttpRequest, HttpResponse, Returns } from '../handlers/types.js';
import { peer } from './peers.js';
import { lazily } from './request.js';
import { after, Draft, type HeaderBag, type Result } from './response.js';
import { aBoolean, checkOptions, oneOf } from './rules.js';

/** What {@link cookies} adds to a request. */
export interface Cookies {
  /** Cookies by name, decoded. Parsed when first read. Inherits nothing. */
  readonly cookies: Readonly<Record<string, string | undefined>>;
}

/** Attributes of a cookie (RFC 6265, 4.1.2). */
export interface CookieAttributes {
  /** Seconds until it ends, whole. Without it and `expires` it ends with the browser session. */
  maxAge?: number;
  expires?: Date;
  domain?: string;
  /** Default '/'. */
  path?: string;
  /** Default true. */
  httpOnly?: boolean;
  /** Default: true for a request that came by https. */
  secure?: boolean;
  /** Default 'lax'. */
  sameSite?: 'strict' | 'lax' | 'none';
  partitioned?: boolean;
  priority?: 'low' | 'medium' | 'high';
}

/** A cookie to set: a value, or a value with attributes. A value of null deletes the cookie of this path and domain. */
export type CookieToSet = string | null | (CookieAttributes & { value: string | null });

/** A response with cookies. */
export interface CookieResponse extends HttpResponse {
  cookies?: Record<string, CookieToSet>;
}

export type CookiesOptions = CookieAttributes;

/** The part of the package cookie that is used. */
export interface CookieLibrary {
  parseCookie(header: string): Record<string, string | undefined>;
  stringifySetCookie(cookie: Record<string, unknown>): string;
}

export const ATTRIBUTE_RULES: Record<keyof CookieAttributes, Rule> = {
  maxAge: { allowed: 'whole seconds', ok: (v) => Number.isInteger(v) },
  expires: { allowed: 'a Date', ok: (v) => v instanceof Date && !Number.isNaN(v.getTime()) },
  domain: { allowed: 'a domain', ok: (v) => typeof v === 'string' && /^\.?[\w-]+(\.[\w-]+)*$/.test(v) },
  path: {
    allowed: "a path that starts with '/' and has no ';' or control characters",
    ok: (v) => typeof v === 'string' && /^\/[\x20-\x3a\x3c-\x7e]*$/.test(v),
  },
  httpOnly: aBoolean,
  secure: aBoolean,
  sameSite: {
    allowed: "'strict', 'lax', 'none'",
    ok: (v) => ['strict', 'lax', 'none'].includes(v as string),
  },
  partitioned: aBoolean,
  priority: oneOf('low', 'medium', 'high'),
};

/**
 * Adds `cookies` to the request and sets those that a response has in `cookies`. The options are attributes for all of them.
 * A name, value or attribute that is not allowed in a cookie makes the handler fail: it is a mistake of its own.
 * @throws OFFLOOP_BAD_OPTION, OFFLOOP_MISSING_PACKAGE.
 */
export function cookies(options: CookiesOptions = {}): Middleware<Cookies, Returns | CookieResponse> {
  checkOptions('cookies', options, ATTRIBUTE_RULES);
  const library = peer<CookieLibrary>('cookie', 'cookies');
  const withCookies = lazily<Jar, Cookies>({
    cookies: (jar) => {
      jar.parsed ??= library.parseCookie(jar.req.headers['cookie'] ?? '');
      return jar.parsed;
    },
  });
  return (handler) => (req) => {
    const inner = withCookies(req, { req, parsed: undefined });
    return after(handler(inner) as Returns | Promise<Returns>, (result) =>
      setAll(library, req, result, options),
    );
  };
}

interface Jar {
  readonly req: HttpRequest;
  parsed: Cookies['cookies'] | undefined;
}

function setAll(
  library: CookieLibrary,
  req: HttpRequest,
  result: Result,
  defaults: CookieAttributes,
): Result {
  const given = (result as CookieResponse | null | undefined)?.cookies;
  if (given === undefined || given === null) return result;
  const draft = Draft.of(result);
  if (draft === null) return result;
  for (const [name, cookie] of Object.entries(given)) {
    const attributes = (plainObject(cookie) ? cookie : { value: cookie }) as CookieAttributes & {
      value: string | null;
    };
    appendCookie(draft.headers, library, req, name, { ...defaults, ...attributes });
  }
  return draft.finish();
}

/** Add the Set-Cookie line of one cookie, with safe attributes where none are given. Returns the line. */
export function appendCookie(
  headers: HeaderBag,
  library: CookieLibrary,
  req: HttpRequest,
  name: string,
  { value, ...attributes }: CookieAttributes & { value: string | null },
): string {
  if (value !== null && typeof value !== 'string')
    throw new TypeError(`cookie ${name}: its value is a ${typeof value}, not a string or null`);
  const line = library.stringifySetCookie({
    name,
    value: value ?? '',
    path: '/',
    httpOnly: true,
    secure: req.scheme === 'https',
    sameSite: 'lax',
    ...attributes,
    ...(value === null && { maxAge: 0, expires: new Date(0) }),
  });
  headers.append('Set-Cookie', line);
  return line;
}
