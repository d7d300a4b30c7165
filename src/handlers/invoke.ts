/** One call of a handler, from request to encoded answer; the same in a worker and inline. */
import { OffloopError } from '../errors.js';
import type { Answer } from '../protocol.js';
import { BadRequestError, type RingRequest } from './request.js';
import { encode, encodeText } from './respond.js';
import type { Handler } from './types.js';

/** Call `handler`. What it throws, and what is wrong with its answer, comes out as a throw or a rejection. */
export function invoke(handler: Handler, req: RingRequest): Answer | Promise<Answer> {
  const result = handler(req);
  if (isThenable(result)) return encodeLater(result, req.isHead);
  return encode(result, req.isHead);
}

async function encodeLater(result: PromiseLike<unknown>, head: boolean): Promise<Answer> {
  return encode(await result, head);
}

export function isThenable<T>(value: unknown): value is PromiseLike<T> {
  return (
    value !== null && typeof value === 'object' && typeof (value as { then?: unknown }).then === 'function'
  );
}

/** The answer to errors that are the client's fault, or null for those that are the handler's (a 500). */
export function answerTo(error: unknown, req: RingRequest): Answer | null {
  return isBadRequest(error) ? encodeText(400, 'Bad Request', req.isHead) : null;
}

/** Never throws: what a handler throws may be a proxy that refuses to be looked at. */
function isBadRequest(error: unknown): boolean {
  try {
    return error instanceof BadRequestError;
  } catch {
    return false;
  }
}

/** The reason of `req.signal` when the client is gone. */
export function clientGone(): OffloopError {
  return new OffloopError('OFFLOOP_ABORTED', 'the client went away before the answer was ready');
}

/** The reason of `req.signal` when `handlerTimeout` has passed. */
export function timeIsUp(ms: number): OffloopError {
  return new OffloopError(
    'OFFLOOP_HANDLER_TIMEOUT',
    `the handler has run for its handlerTimeout of ${ms} ms`,
  );
}
