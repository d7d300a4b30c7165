/** Short ways to write common responses. All return a plain {@link HttpResponse}. */
import type { HeaderValue, HttpResponse } from './types.js';

export interface ResponseInit {
  status?: number;
  headers?: Record<string, HeaderValue>;
}

function respond(contentType: string, body: string, init: ResponseInit): HttpResponse {
  const headers = init.headers ?? {};
  const named = Object.keys(headers).some((name) => name.toLowerCase() === 'content-type');
  return {
    status: init.status ?? 200,
    headers: named ? headers : { 'content-type': contentType, ...headers },
    body,
  };
}

/** `value` as JSON. Throws a TypeError for what JSON has no word for (undefined, a function, a cycle). */
export function json(value: unknown, init: ResponseInit = {}): HttpResponse {
  const body = JSON.stringify(value) as string | undefined;
  if (body === undefined) throw new TypeError(`json(): ${typeof value} has no JSON`);
  return respond('application/json; charset=utf-8', body, init);
}

/** Plain text. */
export function text(body: string, init: ResponseInit = {}): HttpResponse {
  return respond('text/plain; charset=utf-8', body, init);
}

/** HTML. Nothing is escaped. */
export function html(body: string, init: ResponseInit = {}): HttpResponse {
  return respond('text/html; charset=utf-8', body, init);
}

/** A redirect to `location`. Default status 302; RFC 9110, 15.4. */
export function redirect(location: string | URL, status: 301 | 302 | 303 | 307 | 308 = 302): HttpResponse {
  return { status, headers: { location: String(location) }, body: null };
}
