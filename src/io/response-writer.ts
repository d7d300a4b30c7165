/** Puts answers on the wire. The one place that knows how the engine wants them. */
import type { STATUS_CODES } from 'node:http';
import { createRequire } from 'node:module';
import { writeText } from '../bytes.js';
import { FLAG_SERVER, type Payload } from '../protocol.js';
import type { EngineResponse } from './engine.js';

const CLASSES = ['', '', 'Successful', 'Redirection', 'Client Error', 'Server Error'];

// Node's whole HTTP server comes with its list: not in the way of the first 200.
const load = createRequire(import.meta.url);
let known: typeof STATUS_CODES = { 200: 'OK' };

function reason(status: number): string {
  if (known[status] === undefined)
    known = (load('node:http') as { STATUS_CODES: typeof STATUS_CODES }).STATUS_CODES;
  return known[status] ?? `${CLASSES[Math.floor(status / 100)]} (${status})`;
}

/** Whole heads are remembered, since a server gives the same few over and over: so many, of at most so many characters. */
const MEMORY = 512;
const MEMORABLE = 256;

/** Texts from so many characters on are made bytes here: the engine takes twice as long for that. */
const LONG_TEXT = 2048;

/** Where that is done, again and again: what the engine has been given it does not look at twice. */
let scratch = Buffer.allocUnsafeSlow(0);

function inScratch(text: string): Uint8Array {
  const length = Buffer.byteLength(text);
  if (length > scratch.byteLength) scratch = Buffer.allocUnsafeSlow(length);
  writeText(scratch, text, length);
  return new Uint8Array(scratch.buffer, 0, length);
}

export class ResponseWriter {
  /** Status line and our own header lines, by status. */
  private readonly starts: string[] = [];
  /** Status line and all header lines, by status and by the head of the answer. */
  private readonly heads: Map<string, string>[] = [];

  /** The last of them: the next answer has most likely the same. */
  private last = { status: 0, head: '', whole: '' };

  constructor(private readonly serverHeader: string | null) {}

  private start(status: number, flags: number): string {
    if (this.serverHeader === null || (flags & FLAG_SERVER) !== 0) return `${status} ${reason(status)}`;
    let start = this.starts[status];
    if (start === undefined) {
      start = `${status} ${reason(status)}\r\nserver: ${this.serverHeader}`;
      this.starts[status] = start;
    }
    return start;
  }

  /** Everything from the status on that is not the engine's. A remembered string is flat: nothing is copied together. */
  private whole(status: number, head: string, flags: number): string {
    if (head === '') return this.start(status, flags);
    if (status === this.last.status && head === this.last.head) return this.last.whole;
    let heads = this.heads[status];
    if (heads === undefined) {
      heads = new Map();
      this.heads[status] = heads;
    }
    // With a Server header of the handler's own, `flags` follows from `head`.
    let whole = heads.get(head);
    if (whole === undefined) {
      whole = `${this.start(status, flags)}\r\n${head}`;
      if (heads.size < MEMORY && head.length <= MEMORABLE) heads.set(head, whole);
    }
    this.last = { status, head, whole };
    return whole;
  }

  /**
   * Write a whole answer. Must run in the engine's own callback or in `cork`.
   *
   * The head goes to the wire in one native call together with the status line: the encoder has checked it.
   */
  write(
    res: EngineResponse,
    status: number,
    head: string,
    payload: Payload,
    flags: number,
    close: boolean,
  ): void {
    const whole = this.whole(status, head, flags);
    if (payload === null || (typeof payload === 'number' && payload > 0)) {
      // Given a length, the engine waits for as many bytes to be written; so the length is one of our own lines.
      res.writeStatus(payload === null ? whole : `${whole}\r\ncontent-length: ${payload}`);
      res.endWithoutBody();
      return;
    }
    res.writeStatus(whole);
    if (typeof payload === 'number') res.end('', close);
    else if (typeof payload === 'string' && payload.length >= LONG_TEXT) res.end(inScratch(payload), close);
    else res.end(payload, close);
  }

  /** The head of a response whose body follows, see body-writer.ts. Must run in the engine's own callback or in `cork`. */
  begin(res: EngineResponse, status: number, head: string, flags: number, close: boolean): void {
    const whole = this.whole(status, head, flags);
    res.writeStatus(close ? `${whole}\r\nconnection: close` : whole);
  }

  /** An answer without a body, on a connection that is closed behind it: see {@link writeAhead}. */
  writeBareAhead(
    res: EngineResponse,
    status: number,
    head: string,
    length: number | null,
    flags: number,
  ): void {
    const date = `date: ${new Date().toUTCString()}`;
    const lines = [this.whole(status, head, flags), date, 'connection: close'];
    if (length !== null) lines.push(`content-length: ${length}`);
    res.writeStatus(`${lines.join('\r\n')}\r\n`);
  }

  /**
   * Any answer with a body, sent as {@link writeAhead} does. The line end that comes behind is that of the last chunk: so the body is
   * one chunk, whatever it consists of.
   */
  writeWholeAhead(
    res: EngineResponse,
    status: number,
    head: string,
    payload: string | Uint8Array,
    flags: number,
  ): void {
    const body = typeof payload === 'string' ? Buffer.from(payload) : payload;
    const date = `date: ${new Date().toUTCString()}`;
    const lines = [this.whole(status, head, flags), date, 'connection: close', 'transfer-encoding: chunked'];
    const before = `${lines.join('\r\n')}\r\n\r\n${body.byteLength.toString(16)}\r\n`;
    res.writeStatus(Buffer.concat([Buffer.from(before), body, Buffer.from('\r\n0\r\n')]));
  }

  /**
   * Send a whole answer while the engine goes on thinking that there is none, so that the connection can still be read
   * from and then closed. What `writeStatus` is given goes out as it is, with a line end behind it.
   */
  writeAhead(res: EngineResponse, status: number, text: string): void {
    const body = `${text}\r\n`;
    const head = `connection: close\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(body)}`;
    res.writeStatus(
      `${this.start(status, 0)}\r\ndate: ${new Date().toUTCString()}\r\n${head}\r\n\r\n${text}`,
    );
  }
}
