/** Small things that calls of handlers and channels share. */
import { OffloopError } from '../errors.js';

export function isThenable<T>(value: unknown): value is PromiseLike<T> {
  return (
    value !== null && typeof value === 'object' && typeof (value as { then?: unknown }).then === 'function'
  );
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
