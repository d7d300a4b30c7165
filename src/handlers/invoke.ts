/** One call of a handler, from request to encoded answer; the same in a worker and inline. */
import { OffloopError } from '../errors.js';
import { type Answer, STATUS_TAKEN } from '../protocol.js';
import { isListenerResponse, openListener } from './listener.js';
import { isThenable } from './reasons.js';
import { BadRequestError, type RingRequest } from './request.js';
import { encode, encodeText } from './respond.js';
import type { Handler } from './types.js';

const TAKEN: Answer = { status: STATUS_TAKEN, head: '', payload: null, flags: 0 };

/** Call `handler`. What it throws, and what is wrong with its answer, comes out as a throw or a rejection. */
export function invoke(handler: Handler, req: RingRequest): Answer | Promise<Answer> {
  const result = handler(req);
  if (isThenable(result)) return encodeLater(result, req);
  return answerWith(result, req);
}

async function encodeLater(result: PromiseLike<unknown>, req: RingRequest): Promise<Answer> {
  return answerWith(await result, req);
}

function answerWith(result: unknown, req: RingRequest): Answer | Promise<Answer> {
  if (isListenerResponse(result) && req._channel === undefined) openListener(req, result);
  else if (req._channel === undefined) return encode(result, req);
  else if (result !== req._channel && result !== null && result !== undefined) {
    const error = new OffloopError('OFFLOOP_BAD_RESPONSE', 'the request has been answered with a channel');
    req._opener?.log(`${req.method} ${req.path}: a response returned beside a channel is dropped`, error);
  }
  return TAKEN;
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
