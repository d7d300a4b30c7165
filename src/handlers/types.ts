/** What a handler sees and what it may return. */
import type { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import type { Channel } from './channel.js';
import type { FileBody } from './file.js';
import type { WebSocketResponse } from './listener.js';

/**
 * One HTTP request. Read-only; everything is copied out of the socket before the handler runs, so it may be kept and
 * read at any time. Only the body may still be on its way, when it is larger than 1 MiB, or for a mount with `streamBody`: the rest comes
 * as fast as it is read. Properties are parsed when first read.
 */
export interface HttpRequest {
  /** Upper case: 'GET'. */
  readonly method: string;
  /** The request target up to '?', not decoded: '/a%20b'. */
  readonly path: string;
  /** What follows '?', not decoded; '' for '/a?', null without '?'. */
  readonly query: string | null;
  /** Lower-case names. Duplicates are joined with ', ', those of `cookie` with '; '. Has no prototype. */
  readonly headers: Readonly<Record<string, string>>;
  readonly scheme: 'http' | 'https';
  /** 'HTTP/1.1'. */
  readonly protocol: string;
  /** Host of the Host header, without the port; IPv6 stays in brackets. */
  readonly serverName: string;
  /** Port of the Host header, else 80 for http and 443 for https. */
  readonly serverPort: number;
  /** Address of the peer; '' on a Unix domain socket. */
  readonly remoteAddr: string;
  /** The Content-Type header as it came, or null. */
  readonly contentType: string | null;
  /** Bytes of the body. null without one, and for a chunked one that is not complete. */
  readonly contentLength: number | null;
  /** Whether the request asks for an upgrade to WebSocket. */
  readonly isWebSocket: boolean;
  /** The path prefix of the mount that matched, not decoded; '' for '/'. */
  readonly context: string;
  /** The path behind `context`, not decoded; starts with '/'. */
  readonly pathInfo: string;
  /**
   * Whole ms the request had waited for a thread when its handler was called; 0 inline. What it waited for its body before that is not in
   * it.
   */
  readonly queueTime: number;
  /** Aborts when the client goes away before it has the whole response, or `handlerTimeout` is up. Made when first read. */
  readonly signal: AbortSignal;
  /**
   * The body as a byte stream, or null when there is none. A new one each time if the body was complete when the handler started, or has
   * been read as a whole; else always the same one, which errors with OFFLOOP_ABORTED when the client goes away or the request is
   * answered, and with OFFLOOP_REQUEST_TOO_LARGE when it grows beyond `maxBody`.
   */
  readonly body: ReadableStream<Uint8Array> | null;
  /**
   * The body's bytes; the same array each time. This and the methods below may be called again and again. They reject like `body` errors,
   * and with OFFLOOP_BODY_USED (a TypeError) when a body that was not complete has been read through `body`.
   */
  bytes(): Promise<Uint8Array>;
  /** The body as UTF-8. */
  text(): Promise<string>;
  /** The body as JSON. Rejects with a {@link BadRequestError}, which uncaught becomes a 400. */
  json(): Promise<unknown>;
  /** The body as a form, urlencoded or multipart. Rejects with a {@link BadRequestError}, which uncaught becomes a 400. */
  formData(): Promise<FormData>;
}

/**
 * A string (sent as UTF-8), bytes, a file, a stream, or an iterable of strings and bytes. null = empty. What has to be read is
 * read bit by bit, as the client takes it.
 */
export type Body =
  | string
  | Uint8Array
  | ArrayBuffer
  | FileBody
  | ReadableStream
  | Readable
  | Blob
  | Iterable<string | Uint8Array>
  | AsyncIterable<string | Uint8Array>
  | null;

export type HeaderValue = string | number | readonly (string | number)[] | null | undefined;

/**
 * A response. Framing is ours: Content-Length is always the true one, and Content-Length, Transfer-Encoding, Date and
 * Keep-Alive given here are dropped; but beside a stream or an iterable Content-Length is held to. `Connection: close` closes
 * the connection behind the response.
 */
export interface HttpResponse {
  /** 200 to 599. Default 200. */
  status?: number;
  /** A record, a `Headers` or a `Map`. An array makes one line each; null leaves the header out. Numbers are written as strings. */
  headers?: Record<string, HeaderValue> | Iterable<readonly [string, HeaderValue]>;
  body?: Body | undefined;
  /**
   * Called when the body cannot be read or sent to its end, with what its source threw. It changes nothing: the error has been
   * logged, and the client has a 500, or a response that is cut when its head was out. Not called when the client goes away:
   * `req.signal` says that. On the thread of the handler, once. After Immutant's `:write-error-handler`.
   */
  onWriteError?: ((error: unknown, req: HttpRequest, response: HttpResponse) => unknown) | undefined;
}

/** Nothing = 404, unless the request has been answered with a channel. */
export type Returns = HttpResponse | Response | Channel | WebSocketResponse | null | undefined;

// biome-ignore lint/suspicious/noConfusingVoidType: what a handler that falls off its end returns, and that is a 404
type Nothing = void;

/**
 * A Ring-style handler. Return the response, or a promise of it: while the promise is pending the thread is free for
 * others. A throw or a rejection becomes a 500 with a fixed sentence; the error goes to the server's `errorLogger`.
 *
 * Inside of middleware it may see more (`Req`) and return other things (`Result`).
 */
export type Handler<Req = HttpRequest, Result = Returns> = (
  req: Req,
) => Result | Nothing | Promise<Result | Nothing>;

/** A Fetch-style handler, as Hono, h3, itty-router and others are. */
export interface FetchHandler {
  fetch(request: Request): Response | Promise<Response>;
}

/** What a handler module exports. */
export interface HandlerModule {
  default: Handler | FetchHandler;
  /** Awaited in each worker before it takes work. A rejection counts like a module that cannot be loaded. */
  onWorkerStart?: () => unknown;
  /** Awaited in each worker that ends in an orderly way. */
  onWorkerStop?: () => unknown;
}
