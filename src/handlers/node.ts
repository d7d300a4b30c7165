/** Node-style handlers: a `(req, res)` listener, as Express, Koa and Fastify have one. */
import { OffloopTypeError } from '../errors.js';
import { text } from './helpers.js';
import { Call, type NodeHttp, type NodeListener } from './node/call.js';
import type { Handler } from './types.js';

export type { NodeListener };

/**
 * A handler out of a listener for Node's `http.Server`: an Express app, `koa.callback()`, or `fastify.routing` when Fastify is
 * ready. It gets a real IncomingMessage and ServerResponse, one of each for a call. What it throws, or the promise it returns rejects
 * with, becomes a 500; the call ends with `res.end()`. Requests for a WebSocket are answered 501.
 * @throws OFFLOOP_BAD_OPTION for what is no function.
 */
export function nodeHandler(listener: NodeListener): Handler {
  if (typeof listener !== 'function') throw notAListener(listener);
  // Loaded here and not by every worker.
  const http = process.getBuiltinModule('node:http') as NodeHttp;
  return (req) =>
    req.isWebSocket
      ? text('This handler takes no WebSockets', { status: 501 })
      : new Call(req, http).run(listener);
}

function notAListener(given: unknown): OffloopTypeError {
  const has = (name: string): boolean =>
    typeof given === 'object' &&
    given !== null &&
    typeof (given as Record<string, unknown>)[name] === 'function';
  const hint = has('routing')
    ? 'of a Fastify app pass app.routing, after await app.ready()'
    : has('callback')
      ? 'of a Koa app pass app.callback()'
      : 'pass a function (req, res)';
  return new OffloopTypeError(
    'OFFLOOP_BAD_OPTION',
    `nodeHandler() was given ${given === null ? 'null' : `a ${typeof given}`}, which is no listener: ${hint}.`,
  );
}
