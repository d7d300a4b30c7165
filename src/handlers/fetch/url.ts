/** The absolute URL of a request, as a Request has it. */
import { BadRequestError } from '../request.js';
import type { HttpRequest } from '../types.js';

/**
 * What the URL standard leaves as it is: no character that would be encoded, no backslash, and no dot behind a slash, which could
 * begin a segment that would be resolved. A dot may be written %2e.
 */
const PLAIN_PATH = /^(?:\/(?!\.|%2e)[\w\-.~!$&'()*+,;=:@%]*)+$/i;
const PLAIN_QUERY = /^[\w\-.~!$&()*+,;=:@%/?[\]{}|]*$/;

/** The last origin, and what it was made of: most requests of a server name the same. */
let last = { scheme: '', host: '', origin: '' };

/** Throws a BadRequestError when the Host header is none. */
export function urlOf({ scheme, headers, path, query }: HttpRequest): string {
  const host = headers['host'] ?? 'localhost';
  if (scheme !== last.scheme || host !== last.host) last = { scheme, host, origin: originOf(scheme, host) };
  const url = `${last.origin}${path}${query === null ? '' : `?${query}`}`;
  return PLAIN_PATH.test(path) && (query === null || PLAIN_QUERY.test(query)) ? url : parse(url).href;
}

function originOf(scheme: string, host: string): string {
  const url = parse(`${scheme}://${host}`);
  // With more than a name and a port it would be another host, or another path.
  if (url.href !== `${url.origin}/` || /[/?#@\\]/.test(host)) throw wrong(host);
  return url.origin;
}

function parse(url: string): URL {
  try {
    return new URL(url);
  } catch {
    throw wrong(url);
  }
}

function wrong(part: string): BadRequestError {
  return new BadRequestError(`the request has no valid URL: ${JSON.stringify(part.slice(0, 80))}`);
}
