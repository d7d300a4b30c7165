/** What an adapter may take from a request directly, because no middleware has changed it. */
import { HEAD_FIELDS } from '../protocol.js';
import { RingRequest } from './request.js';
import type { HttpRequest } from './types.js';

function isUntouched(req: HttpRequest, field: 'headers' | 'body'): req is RingRequest {
  return Object.getPrototypeOf(req) === RingRequest.prototype && !Object.hasOwn(req, field);
}

/** Names and values in turn, a pair for each header line. */
export function headerLines(req: HttpRequest): string[] {
  if (!isUntouched(req, 'headers')) return Object.entries(req.headers).flat();
  req._line(0);
  return (req._root._lines as string[]).slice(HEAD_FIELDS);
}

/** Whether all of the body is here. */
export function isWhole(req: HttpRequest): req is RingRequest {
  return isUntouched(req, 'body') && req._streamed === undefined;
}

/** The body, if all of it is here; undefined if it is still to be read. */
export function wholeBody(req: HttpRequest): Uint8Array<ArrayBuffer> | undefined {
  return isWhole(req) ? req._own() : undefined;
}
