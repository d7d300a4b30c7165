/** One call of a Node-style handler: from an HttpRequest to `(req, res)`, and from what `res` is given to an HttpResponse. */
import type * as Http from 'node:http';
import { OffloopError } from '../../errors.js';
import { isThenable } from '../reasons.js';
import type { RingRequest } from '../request.js';
import type { HttpRequest, HttpResponse } from '../types.js';
import { Feed, fillIn } from './incoming.js';
import { Outgoing, type OutgoingOwner } from './outgoing.js';
import { type Done, NodeSocket, type SocketOwner } from './socket.js';

export type NodeListener = (req: Http.IncomingMessage, res: Http.ServerResponse) => unknown;

/** What Node keeps in a response and its types do not tell. */
interface Internals {
  _header: string | null;
  _hasBody: boolean;
  /** Of a body given to `end`. */
  _contentLength: number | null;
  _closed: boolean;
  destroyed: boolean;
  _storeHeader(firstLine: string, headers: unknown): void;
  [flag: symbol]: boolean;
}
type Response = Http.ServerResponse & Internals;
export type NodeHttp = typeof Http & { readonly ServerResponse: { readonly prototype: Response } };

/** Node sets it when a write has to wait, and expects the server to take it back when it emits 'drain'. */
let needDrain: symbol | undefined;

function needDrainOf(res: object): symbol | undefined {
  needDrain ??= Object.getOwnPropertySymbols(res).find(({ description }) => description === 'kNeedDrain');
  return needDrain;
}

/**
 * The request and the response are Node's own, so that whatever a framework does with them or their prototypes is what it does on
 * Node's own server. Only the socket between them is made here: what a response writes to it is its head, which is taken apart again,
 * and its body.
 */
export class Call implements SocketOwner, OutgoingOwner {
  private readonly req: Http.IncomingMessage;
  private readonly res: Response;
  private readonly socket: NodeSocket;
  private readonly feed: Feed;
  private readonly out = new Outgoing(this);
  private response: HttpResponse | undefined;
  private failure: { readonly error: unknown } | undefined;
  private settle:
    | { readonly resolve: (response: HttpResponse) => void; readonly reject: (error: unknown) => void }
    | undefined;
  /** The head has been seen. */
  private headed = false;
  /** The response has been written to its end. */
  private ended = false;
  private scheduled = false;

  constructor(
    private readonly request: HttpRequest,
    private readonly http: NodeHttp,
  ) {
    const socket = new NodeSocket(this);
    this.socket = socket;
    const req = new http.IncomingMessage(socket as never);
    this.req = req;
    fillIn(req, request);
    this.feed = new Feed(request, req, socket, (error) => this.bodyFailed(error));
    const res = new http.ServerResponse(req) as Response;
    this.res = res;
    // The engine writes it.
    res.sendDate = false;
    res._storeHeader = this.storeHead;
    res.assignSocket(socket as never);
    res.on('prefinish', () => this.end());
    res.on('finish', () => this.finish());
    // Writing behind the end is a mistake of this handler, and no reason to end the thread.
    res.on('error', (error) => this.fail(error));
  }

  /** Call the listener. Throws or rejects with what it does, as long as nothing of its response has been sent. */
  run(listener: NodeListener): HttpResponse | Promise<HttpResponse> {
    try {
      const result = listener(this.req, this.res);
      if (isThenable(result)) result.then(undefined, (error: unknown) => this.fail(error));
    } catch (error) {
      this.fail(error);
    }
    if (this.response !== undefined) return this.response;
    if (this.failure !== undefined) throw this.failure.error;
    this.watch(this);
    return new Promise((resolve, reject) => {
      this.settle = { resolve, reject };
    });
  }

  // ----------------------------------------------------------------------------------------------- to the response

  /** In place of a method of Node's: has the head made, and nothing framed. What is written is the body itself. */
  private readonly storeHead = (firstLine: string, headers: unknown): void => {
    const { res } = this;
    this.http.ServerResponse.prototype._storeHeader.call(res, firstLine, headers);
    res.chunkedEncoding = false;
  };

  written(data: string | Uint8Array, encoding: BufferEncoding | null, done: Done | undefined): boolean {
    const { res, out } = this;
    if (res._header === null) return this.informed(data, done);
    let chunk = data;
    if (!this.headed) {
      this.headed = true;
      // The head stands before the first chunk, in one string with it if that is one.
      if (typeof chunk === 'string') chunk = chunk.slice(res._header.length);
    }
    if (typeof chunk === 'string' && encoding !== null && encoding !== 'utf8' && encoding !== 'utf-8')
      chunk = Buffer.from(chunk, encoding);
    if (chunk.length > 0 || done !== undefined) out.write(chunk, done);
    if (this.response === undefined && !this.scheduled) {
      // It may be all there is: then it is answered as a whole.
      this.scheduled = true;
      process.nextTick(() => this.begin());
    }
    return out.size < this.socket.writableHighWaterMark;
  }

  /** What is written before there is a head: 100 Continue, 102 and 103, which the engine does not send. */
  private informed(data: string | Uint8Array, done: Done | undefined): boolean {
    if (typeof data === 'string' && data.startsWith('HTTP/1.1 1')) {
      if (done !== undefined) process.nextTick(done);
      return true;
    }
    this.socket.destroy(bad('the connection was written to, and not through the response'));
    return false;
  }

  private begin(): void {
    if (this.response === undefined && this.failure === undefined) this.answer(this.out);
  }

  /** `res.end()` has been called. */
  private end(): void {
    this.ended = true;
    if (this.response !== undefined) {
      this.out.end();
      return;
    }
    // Of a body that is not written for HEAD the length may be known all the same; if not, none is sent.
    if (this.request.method === 'HEAD') this.answer(this.res._contentLength || this.out);
    else this.answer(this.out.whole());
    this.out.end();
  }

  private answer(body: string | Uint8Array | Outgoing | number): void {
    const { statusCode: status, _header } = this.res;
    const headers = headersIn(_header as string);
    this.response = { status, headers, body: typeof body === 'number' ? null : body };
    if (typeof body === 'number') {
      headers.push(['content-length', String(body)]);
      this.out.whole();
    }
    this.watch(undefined);
    this.settle?.resolve(this.response);
  }

  get waiting(): number {
    return this.out.size;
  }

  drained(): void {
    const { res } = this;
    const key = needDrainOf(res);
    if (res.destroyed || res.writableEnded || this.ended) return;
    if (key !== undefined) {
      if (!res[key]) return;
      res[key] = false;
    }
    res.emit('drain');
  }

  /** As Node's server does it when a response is complete. */
  private finish(): void {
    const { res, socket } = this;
    res.detachSocket(socket as never);
    socket.setTimeout(0);
    this.feed.skip();
    process.nextTick(() => {
      if (res.destroyed && res._closed) return;
      res.destroyed = true;
      res._closed = true;
      res.emit('close');
    });
  }

  // ---------------------------------------------------------------------------------------------------- what breaks

  /** The request is over: its client has gone, or its time is up. */
  abort(reason: unknown): void {
    this.failure ??= { error: reason };
    this.watch(undefined);
    this.socket.destroy();
    this.settle?.reject(reason);
  }

  get isBodiless(): boolean {
    return !this.res._hasBody || this.res.statusCode === 205;
  }

  /** The client has gone, or what was written cannot be sent; that has been logged. */
  unread(): void {
    this.failure ??= { error: undefined };
    this.socket.destroy();
  }

  /** What the handler has thrown, or destroyed its response with. */
  private fail(error: unknown): void {
    if (this.failure !== undefined) return;
    this.failure = { error };
    this.watch(undefined);
    if (this.response === undefined) this.settle?.reject(error);
    else if (this.out.isOver) this.log(error);
    else this.out.fail(error);
    this.socket.destroy();
  }

  private bodyFailed(error: Error): void {
    const { req } = this;
    if (this.ended) req.destroy(error);
    else this.fail(error);
  }

  wanted(): void {
    this.feed.read();
  }

  dropped(error: Error | null): void {
    const { req, out } = this;
    if (!out.isOver)
      this.fail(error ?? bad('the handler has destroyed the connection before its response was complete'));
    const reset = Object.assign(new Error('aborted'), { code: 'ECONNRESET' });
    out.drop(reset);
    this.feed.stop();
    if (!req.destroyed) req.destroy(reset);
  }

  timedOut(): boolean {
    const { req, res, socket } = this;
    const heard = req.emit('timeout', socket);
    return res.emit('timeout', socket) || heard;
  }

  /** Have this told when the request is over. */
  private watch(whom: Call | undefined): void {
    const root = (this.request as Partial<RingRequest>)._root;
    if (root !== undefined) root._sending = whom;
  }

  private log(error: unknown): void {
    const { method, path } = this.request;
    const opener = (this.request as Partial<RingRequest>)._root?._opener;
    opener?.log(`${method} ${path}: the handler failed behind its response`, error);
  }

  // ---------------------------------------------------------------------------------------------------- to the socket

  get remoteAddr(): string {
    return this.request.remoteAddr;
  }
  get scheme(): 'http' | 'https' {
    return this.request.scheme;
  }
  get serverPort(): number {
    return this.request.serverPort;
  }
}

/** The header lines of a head, as Node has written it. */
function headersIn(head: string): [name: string, value: string][] {
  const headers: [string, string][] = [];
  // Behind the status line, and before the empty one.
  let at = head.indexOf('\r\n') + 2;
  while (at < head.length - 2) {
    const end = head.indexOf('\r\n', at);
    const colon = head.indexOf(':', at);
    headers.push([head.slice(at, colon), head.slice(colon + 2, end)]);
    at = end + 2;
  }
  return headers;
}

function bad(message: string): OffloopError {
  return new OffloopError('OFFLOOP_BAD_RESPONSE', message);
}
