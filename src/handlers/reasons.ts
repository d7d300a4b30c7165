/** Small things that calls of handlers and channels share. */
import { OffloopError } from '../errors.js';
import { type Answer, STATUS_TAKEN } from '../protocol.js';

/** In place of an answer: the request has been answered with a channel, or with a body that is under way. */
export const TAKEN: Answer = { status: STATUS_TAKEN, head: '', payload: null, flags: 0 };

export function isThenable<T>(value: unknown): value is PromiseLike<T> {
  return (
    value !== null && typeof value === 'object' && typeof (value as { then?: unknown }).then === 'function'
  );
}

/** The reason of `req.signal` when the client is gone. */
export function clientGone(): OffloopError {
  return new OffloopError('OFFLOOP_ABORTED', 'the client went away before it had the whole response');
}

/** The reason of `req.signal` when `handlerTimeout` has passed. */
export function timeIsUp(ms: number): OffloopError {
  return new OffloopError(
    'OFFLOOP_HANDLER_TIMEOUT',
    `the handler has run for its handlerTimeout of ${ms} ms`,
  );
}
