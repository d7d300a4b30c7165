/** One call of a handler, from request to encoded answer; the same in a worker and inline. */
import { OffloopError } from '../errors.js';
import type { Answer } from '../protocol.js';
import { isUnread } from './gather.js';
import { isListenerResponse, openListener } from './listener.js';
import { sendBody, writeFailed } from './pump.js';
import { isThenable, TAKEN } from './reasons.js';
import { BadRequestError, type ChannelOpener, type RingRequest } from './request.js';
import { type Encoded, encode, encodeText, letGo } from './respond.js';
import type { Handler } from './types.js';

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
  else if (req._channel === undefined) return send(encode(result, req), req, result);
  else if (result !== req._channel && result !== null && result !== undefined) {
    const error = new OffloopError('OFFLOOP_BAD_RESPONSE', 'the request has been answered with a channel');
    req._opener?.log(`${req.method} ${req.path}: a response returned beside a channel is dropped`, error);
    letGo(result, error);
  }
  return TAKEN;
}

function send(
  encoded: Encoded | Promise<Encoded>,
  req: RingRequest,
  response: unknown,
): Answer | Promise<Answer> {
  if (isThenable<Encoded>(encoded)) return sendLater(encoded, req, response as object);
  if (!isUnread(encoded)) return encoded;
  if (req._aborted) {
    encoded.source.letGo(false, req.signal.reason);
    return TAKEN;
  }
  return sendBody(encoded, req, req._opener as ChannelOpener, response as object);
}

async function sendLater(encoded: PromiseLike<Encoded>, req: RingRequest, response: object): Promise<Answer> {
  let known: Encoded;
  try {
    known = await encoded;
  } catch (error) {
    writeFailed(error, req, req._opener as ChannelOpener, response);
    throw error;
  }
  return send(known, req, response);
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
