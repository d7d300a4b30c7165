/** Makes the IncomingMessage of a request. */
import type { IncomingMessage } from 'node:http';
import type { HttpRequest } from '../types.js';
import { headerLines, isWhole, wholeBody } from '../untouched.js';
import type { NodeSocket } from './socket.js';

/** How Node's own parser hands headers to a request: they are looked at when somebody reads them. */
type Parsed = IncomingMessage & { _addHeaderLines(lines: string[], count: number): void };

/**
 * Where the body of one comes from. It is not touched before somebody reads, and read no faster than that.
 */
export class Feed {
  private reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  /** Somebody has read from it. */
  begun = false;
  private reading = false;
  private over = false;

  constructor(
    private readonly request: HttpRequest,
    private readonly message: IncomingMessage,
    private readonly socket: NodeSocket,
    private readonly failed: (error: Error) => void,
  ) {
    // What is there has been received, and so has nothing.
    message.complete = isWhole(request) || request.body === null;
  }

  /** Give the message the next piece. */
  read(): void {
    const { message, request } = this;
    if (this.over || this.reading) return;
    const first = !this.begun;
    this.begun = true;
    if (first) {
      const bytes = wholeBody(request);
      if (bytes !== undefined) {
        if (bytes.byteLength > 0) message.push(asBuffer(bytes));
        this.end();
        return;
      }
      this.reader = request.body?.getReader() as typeof this.reader;
      // The body may break while nobody waits for more.
      this.reader?.closed.catch((error: unknown) => this.broken(error));
    }
    if (this.reader === undefined) this.end();
    else {
      this.reading = true;
      this.reader
        .read()
        .then(
          ({ done, value }) => {
            this.reading = false;
            if (this.over) return;
            this.socket.moved();
            if (done) this.end();
            else message.push(asBuffer(value));
          },
          (error: unknown) => this.broken(error),
        )
        // Thrown by whoever listens for data.
        .catch((error: unknown) => this.failed(error as Error));
    }
  }

  private end(): void {
    this.over = true;
    this.message.complete = true;
    this.message.push(null);
  }

  private broken(error: unknown): void {
    if (this.over) return;
    this.over = true;
    this.failed(error as Error);
  }

  /** Nobody wants the rest. */
  stop(): void {
    if (this.over) return;
    this.over = true;
    this.reader?.cancel().catch(() => undefined);
  }

  /** Nobody has wanted any of it: it ends as if it had been read. */
  skip(): void {
    if (this.begun || this.over) return;
    this.begun = true;
    this.end();
    this.message.resume();
  }
}

/** Fill in what Node's parser would. `message` is new. */
export function fillIn(message: IncomingMessage, request: HttpRequest): void {
  message.httpVersionMajor = 1;
  message.httpVersionMinor = 1;
  message.httpVersion = '1.1';
  message.method = request.method;
  message.url = request.query === null ? request.path : `${request.path}?${request.query}`;
  const lines = headerLines(request);
  (message as Parsed)._addHeaderLines(lines, lines.length);
}

function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
