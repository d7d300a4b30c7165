/** Who is told of bodies that could not be sent, after Immutant's wrap-write-error-handling. */

import { refuse } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { isWebResponse } from '../handlers/respond.js';
import type { HttpResponse, Returns } from '../handlers/types.js';
import { after, Draft, type Result } from './response.js';

/**
 * Has `handle` called for responses whose body cannot be read or sent to its end; one that has an `onWriteError` of its own
 * keeps that. It changes nothing: the error has been logged, and the client has a 500 or a response that is cut.
 * @throws OFFLOOP_BAD_OPTION.
 */
export function writeErrors(handle: NonNullable<HttpResponse['onWriteError']>): Middleware {
  if (typeof handle !== 'function') refuse('writeErrors', 'handle', handle, 'a function');
  const add = (result: Result): Result => {
    const draft = Draft.of(result);
    const response = result as HttpResponse;
    if (draft === null || response.onWriteError !== undefined) return result;
    if (isWebResponse(response)) return Object.assign(response, { onWriteError: handle });
    return { ...(draft.finish() as HttpResponse), onWriteError: handle };
  };
  return (handler) => (req) => after(handler(req) as Returns | Promise<Returns>, add);
}
