/** What middleware does with requests. */
import { isMainThread } from 'node:worker_threads';
import { OffloopError } from '../errors.js';
import type { RingRequest } from '../handlers/request.js';
import type { HttpRequest } from '../handlers/types.js';

/**
 * A request that is `req` but for `additions`: what they name is added or replaced, getters stay getters. `req` itself is
 * not changed.
 */
export function derive<Req extends HttpRequest, A extends object>(req: Req, additions: A): Req & A {
  return Object.create(req, Object.getOwnPropertyDescriptors(additions)) as Req & A;
}

/** Whether the request has been answered with a channel: then a handler that returns nothing means no 404. */
export function hasChannel(req: HttpRequest): boolean {
  return (req as Partial<RingRequest>)._root?._channel !== undefined;
}

/** Whether the client asked with HEAD, also where a middleware shows the handler a GET. */
export function isHead(req: HttpRequest): boolean {
  return (req as Partial<RingRequest>).isHead ?? req.method === 'HEAD';
}

/** Tell the server's `errorLogger`. */
export function logError(req: HttpRequest, message: string, error: unknown): void {
  const opener = (req as Partial<RingRequest>)._root?._opener;
  if (opener === undefined) console.error(message, error);
  else opener.log(message, error);
}

/** The media type of a Content-Type header in lower case, without its parameters; '' for none. */
export function mediaType(contentType: string | null | undefined): string {
  if (contentType === null || contentType === undefined) return '';
  const semicolon = contentType.indexOf(';');
  return (semicolon === -1 ? contentType : contentType.slice(0, semicolon)).trim().toLowerCase();
}

/**
 * Refuse to keep `what` in the memory of a worker. How many workers there are a worker cannot know; that its memory is
 * gone when it is replaced is certain. @throws OFFLOOP_NOT_SHARED.
 */
export function refuseInWorker(where: string, what: string): void {
  if (isMainThread) return;
  throw new OffloopError(
    'OFFLOOP_NOT_SHARED',
    `${where} keeps ${what} in memory, and this is a worker: each worker would have its own, and lose it when it is replaced. ` +
      'Mount the handler with { dispatch: false }, or give a store that all workers share.',
  );
}
