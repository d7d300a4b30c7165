/** Puts answers on the wire. The one place that knows how the engine wants them. */
import { STATUS_CODES } from 'node:http';
import { FLAG_SERVER, type Payload } from '../protocol.js';
import type { EngineResponse } from './engine.js';

/** Bodies from this many bytes on are written as fast as the client reads, instead of being copied into the engine. */
const LARGE = 128 * 1024;

const CLASSES = ['', '', 'Successful', 'Redirection', 'Client Error', 'Server Error'];

function reason(status: number): string {
  return STATUS_CODES[status] ?? `${CLASSES[Math.floor(status / 100)]} (${status})`;
}

export class ResponseWriter {
  /** Status line and our own header lines, by status. */
  private readonly starts: string[] = [];

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

  /**
   * Write a whole answer. Must run in the engine's own callback or in `cork`. Returns whether it is finished; if not,
   * it goes on by itself and `done` is called at its end, or never when the client goes away first.
   *
   * `head` goes to the wire in one native call together with the status line: the encoder has checked it.
   */
  write(res: EngineResponse, status: number, head: string, payload: Payload, flags: number, close: boolean, done: () => void): boolean {
    let start = this.start(status, flags);
    // `tryEnd` cannot close behind itself: there the head asks the client to. `end` writes this line by itself.
    if (close && isLarge(payload)) start += '\r\nconnection: close';
    res.writeStatus(head === '' ? start : `${start}\r\n${head}`);
    if (isLarge(payload)) return writeLarge(res, typeof payload === 'string' ? Buffer.from(payload) : payload, done);
    if (payload === null) res.endWithoutBody(undefined, close);
    else if (payload === 0) res.end('', close);
    else if (typeof payload === 'number') res.endWithoutBody(payload, close);
    else res.end(payload, close);
    return true;
  }

  /** Begin an answer whose end has to wait; see `Exchange.refuseAndLinger`. */
  begin(res: EngineResponse, status: number, head: string, text: string): void {
    res.writeStatus(`${this.start(status, 0)}\r\n${head}`);
    res.write(text);
  }
}

function isLarge(payload: Payload): payload is string | Uint8Array {
  return payload !== null && typeof payload !== 'number' && payload.length >= LARGE;
}

/** The engine takes what the socket takes, and says when there is room for more. */
function writeLarge(res: EngineResponse, bytes: Uint8Array, done: () => void): boolean {
  const total = bytes.byteLength;
  const from = res.getWriteOffset();
  const [, finished] = res.tryEnd(bytes, total);
  if (finished) return true;
  res.onWritable((offset) => {
    const [ok, last] = res.tryEnd(bytes.subarray(offset - from), total);
    if (last) done();
    return ok;
  });
  return false;
}
