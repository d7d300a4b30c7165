/**
 * Handlers written for uWebSockets.js, `nativeHandler` of offloop/web, and what they are handed: stand-ins for the engine's response
 * and request, with the same calls. See native-dispatcher.ts for how they run.
 */
import { OffloopTypeError } from './errors.js';
import { HEAD_FIELDS, type Invocation } from './protocol.js';

/** Text or bytes, wherever the engine takes them. */
export type NativeData = string | ArrayBuffer | ArrayBufferView;

/** The request of a native handler: as in uWebSockets.js, but valid for as long as it is kept. */
export interface NativeRequest {
  /** Undecoded, without the query; with the path the handler is mounted at. */
  getUrl(): string;
  /** The query without its `?`, '' when there is none; or the value of one parameter, undefined when it is not there. */
  getQuery(): string;
  getQuery(name: string): string | undefined;
  /** Lower case. */
  getMethod(): string;
  getCaseSensitiveMethod(): string;
  /** The first header of that name, '' when there is none. */
  getHeader(name: string): string;
  forEach(visit: (name: string, value: string) => void): void;
}

/**
 * The response of a native handler: as in uWebSockets.js, and safe. Once it has ended or its client has gone, calls do nothing and
 * return false where they return anything. Everything is corked as far as it can be.
 */
export interface NativeResponse {
  /** '404 Not Found'. The number counts; the reason is the usual one. Default 200. */
  writeStatus(status: string): this;
  /** A header line more. Content-Length, Transfer-Encoding and Date are the server's, and dropped. */
  writeHeader(name: NativeData, value: NativeData): this;
  /** A chunk. Returns false when the client reads slowly: wait for `onWritable`. With 16 MiB waiting the connection is cut. */
  write(chunk: NativeData): boolean;
  end(body?: NativeData, closeConnection?: boolean): this;
  endWithoutBody(reportedContentLength?: number, closeConnection?: boolean): this;
  /** A part of a body of `totalSize` bytes. All of it is taken; the first of the result is false when the client reads slowly. */
  tryEnd(chunk: NativeData, totalSize: number): [ok: boolean, done: boolean];
  /** Bytes of body taken so far. */
  getWriteOffset(): number;
  /** Called when the client has read all that had to wait. */
  onWritable(handler: (offset: number) => boolean): this;
  /** Called when nobody waits for the response any more: the client is gone, or `handlerTimeout` has passed. */
  onAborted(handler: () => void): this;
  /** The request body, chunk by chunk; an empty last one when there is none. */
  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): this;
  pause(): this;
  resume(): this;
  cork(work: () => void): this;
  /** Cut the connection. */
  close(): this;
  getRemoteAddressAsText(): ArrayBuffer;
}

export type NativeFunction = (res: NativeResponse, req: NativeRequest) => unknown;

/** What `nativeHandler` makes. */
export class NativeHandler {
  constructor(readonly handle: NativeFunction) {}
}

/**
 * A handler in the manner of uWebSockets.js, `(res, req) => ...`. It always runs on the I/O thread, whatever `dispatch` says.
 * What it throws, or a promise of its rejects with, is answered 500. @throws OFFLOOP_NO_HANDLER.
 */
export function nativeHandler(handle: NativeFunction): NativeHandler {
  if (typeof handle !== 'function')
    throw new OffloopTypeError(
      'OFFLOOP_NO_HANDLER',
      `nativeHandler takes a function (res, req) => ..., not a value of type ${handle === null ? 'null' : typeof handle}`,
    );
  return new NativeHandler(handle);
}

/** What the stand-ins are made of. Nothing it does throws. */
export interface NativeExchange {
  readonly invocation: Invocation;
  setStatus(status: NativeData): void;
  addHeader(name: NativeData, value: NativeData): void;
  write(chunk: NativeData, total: number | null): boolean;
  answer(payload: NativeData | number | null, close: boolean): void;
  cut(): void;
  run(work: () => unknown): void;
  onAborted(handler: () => void): void;
  onWritable(handler: (offset: number) => boolean): void;
  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): void;
  pause(): void;
  resume(): void;
  readonly over: boolean;
  readonly offset: number;
}

export class StandInRequest implements NativeRequest {
  readonly #invocation: Invocation;
  #lines: string[] | undefined;

  constructor(invocation: Invocation) {
    this.#invocation = invocation;
  }

  #split(): string[] {
    this.#lines ??= this.#invocation.head.split('\n');
    return this.#lines;
  }

  getUrl(): string {
    return this.#split()[1] as string;
  }
  getQuery(): string;
  getQuery(name: string): string | undefined;
  getQuery(name?: string): string | undefined {
    const query = (this.#split()[2] as string).slice(1);
    return name === undefined ? query : (new URLSearchParams(query).get(name) ?? undefined);
  }
  getMethod(): string {
    return this.getCaseSensitiveMethod().toLowerCase();
  }
  getCaseSensitiveMethod(): string {
    return this.#split()[0] as string;
  }
  getHeader(name: string): string {
    const lines = this.#split();
    const wanted = String(name).toLowerCase();
    for (let i = HEAD_FIELDS; i < lines.length; i += 2)
      if (lines[i] === wanted) return lines[i + 1] as string;
    return '';
  }
  forEach(visit: (name: string, value: string) => void): void {
    const lines = this.#split();
    for (let i = HEAD_FIELDS; i < lines.length; i += 2) visit(lines[i] as string, lines[i + 1] as string);
  }
}

/** Has no fields of its own that could be seen: handlers for the engine keep theirs on the response. */
export class StandInResponse implements NativeResponse {
  readonly #exchange: NativeExchange;

  constructor(exchange: NativeExchange) {
    this.#exchange = exchange;
  }

  writeStatus(status: NativeData): this {
    this.#exchange.setStatus(status);
    return this;
  }
  writeHeader(name: NativeData, value: NativeData): this {
    this.#exchange.addHeader(name, value);
    return this;
  }
  write(chunk: NativeData): boolean {
    return this.#exchange.write(chunk, null);
  }
  end(body: NativeData = '', closeConnection = false): this {
    this.#exchange.answer(body, closeConnection);
    return this;
  }
  endWithoutBody(reportedContentLength?: number, closeConnection = false): this {
    this.#exchange.answer(reportedContentLength ?? null, closeConnection);
    return this;
  }
  tryEnd(chunk: NativeData, totalSize: number): [ok: boolean, done: boolean] {
    const ok = this.#exchange.write(chunk, totalSize);
    return [ok, this.#exchange.over];
  }
  getWriteOffset(): number {
    return this.#exchange.offset;
  }
  onWritable(handler: (offset: number) => boolean): this {
    this.#exchange.onWritable(handler);
    return this;
  }
  onAborted(handler: () => void): this {
    this.#exchange.onAborted(handler);
    return this;
  }
  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): this {
    this.#exchange.onData(handler);
    return this;
  }
  pause(): this {
    this.#exchange.pause();
    return this;
  }
  resume(): this {
    this.#exchange.resume();
    return this;
  }
  cork(work: () => void): this {
    this.#exchange.run(work);
    return this;
  }
  close(): this {
    this.#exchange.cut();
    return this;
  }
  getRemoteAddressAsText(): ArrayBuffer {
    return new TextEncoder().encode(this.#exchange.invocation.addressOf()).buffer;
  }
}
