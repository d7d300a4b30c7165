/** Conditional requests for what handlers make, after Ring's wrap-not-modified. */
import { createHash } from 'node:crypto';
import type { Middleware } from '../handlers/compose.js';
import { evaluate } from '../handlers/file/conditions.js';
import { parseDate } from '../handlers/file/dates.js';
import { FileBody } from '../handlers/file.js';
import { asBytes } from '../handlers/respond.js';
import type { HttpRequest, Returns } from '../handlers/types.js';
import { after, Draft, discard, type Result } from './response.js';
import { aBoolean, checkOptions } from './rules.js';

export interface NotModifiedOptions {
  /** Give answers made of a string or of bytes an ETag, a hash of them, unless they have one. Default true. */
  etag?: boolean;
}

/** Fields about a content that a 304 does not have (RFC 9110, 15.4.5). */
const OF_CONTENT = [
  'content-type',
  'content-length',
  'content-encoding',
  'content-language',
  'content-range',
];

/**
 * Answers 304 to a GET or HEAD whose client has the answer already, by ETag or Last-Modified, and 412 where If-Match or
 * If-Unmodified-Since fails. It saves the way to the client, not the work of the handler. Files do this by themselves.
 * @throws OFFLOOP_BAD_OPTION.
 */
export function notModified(options: NotModifiedOptions = {}): Middleware {
  checkOptions('notModified', options, { etag: aBoolean });
  const { etag = true } = options;
  return (handler) => (req) => {
    if (req.method !== 'GET' && req.method !== 'HEAD') return handler(req);
    return after(handler(req) as Returns | Promise<Returns>, (result) => compare(req, result, etag));
  };
}

function compare(req: HttpRequest, result: Result, tag: boolean): Result | Promise<Result> {
  const draft = Draft.of(result);
  if (draft === null || draft.status !== 200 || draft.body instanceof FileBody) return result;
  const { headers } = draft;
  if (tag && !headers.has('etag')) {
    const made = tagOf(draft.body, req.method);
    if (made !== undefined) headers.set('ETag', made);
  }
  const lastModified = headers.get('last-modified');
  const status = evaluate(req.headers, {
    etag: headers.get('etag'),
    modified: lastModified === undefined ? undefined : parseDate(lastModified),
    settled: false,
  });
  if (status === 200) return draft.finish();
  const { body } = draft;
  draft.status = status;
  draft.body = null;
  for (const name of OF_CONTENT) headers.delete(name);
  return after(discard(body), () => draft.finish());
}

function tagOf(body: unknown, method: string): string | undefined {
  const content = typeof body === 'object' && body !== null ? asBytes(body) : body;
  if (typeof content !== 'string' && !(content instanceof Uint8Array)) return undefined;
  // The handler of a HEAD may have left the body out.
  if (content.length === 0 && method === 'HEAD') return undefined;
  return `"${createHash('sha1').update(content).digest('base64url')}"`;
}
