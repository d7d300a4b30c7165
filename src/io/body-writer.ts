/** Writes a response body that comes bit by bit. */
import type { EngineResponse } from './engine.js';

/**
 * Bytes of a chunked body that are given to the engine at once. With its framing, and a short head, a piece fits into the
 * 16 KiB that the engine puts together: one system call for each.
 */
const PIECE = 16 * 1024 - 64;

/** What a writer needs of its exchange. */
export interface Writing {
  /** The response is dead. */
  readonly over: boolean;
  /** What is given next may be the last of it. */
  completing(): void;
  /** Everything given so far is on its way. */
  drained(): void;
  /** The last byte is on its way; the engine has taken the response back. */
  finish(): void;
  /** Close the connection, and with that the response: the rest of it will never come, or is on its way. */
  cutStream(): void;
  /** Something of ours threw: it must not get into the engine. */
  broken(error: unknown): void;
}

/**
 * Gives the engine what the client reads, and keeps the rest. The body is chunked, or `length` bytes long. Whoever writes
 * bounds what is kept, by waiting for `drained`. Lives on the I/O thread, as long as the exchange.
 */
export class BodyWriter {
  /** When anything was last given to it or taken by the client, on the performance.now() clock. */
  movedAt = performance.now();
  private readonly backlog: (string | Uint8Array)[] = [];
  private keptBytes = 0;
  /** Anything of it has been given to the engine. */
  begun = false;
  /** The client does not read: what comes now is kept. */
  private full = false;
  private ending = false;
  /** Bytes of a known length that are still to be given to the engine. */
  private left: number;

  constructor(
    private readonly res: EngineResponse,
    private readonly exchange: Writing,
    /** Writes the status line and the header lines. They leave with the first of the body: nobody can use them before. */
    private readonly writeHead: () => void,
    private readonly length: number | null,
    /** Whether the connection is to be closed behind it. Behind a chunked body only its client can do that. */
    private readonly close: boolean,
  ) {
    this.left = length ?? 0;
    // The engine calls when the socket takes data again; it leaves it to us to go on, even with what it holds itself.
    res.onWritable(() => {
      try {
        this.writable();
      } catch (error) {
        exchange.broken(error);
      }
      return true;
    });
  }

  /** Bytes that the engine has not been given. */
  get kept(): number {
    return this.keptBytes;
  }

  /**
   * Returns false when the client reads slowly; `drained` follows. Bytes are ours from here on, unless they are `lent`: then
   * what does not leave at once is copied. Only the first can be.
   */
  write(data: string | Uint8Array, lent = false): boolean {
    this.movedAt = performance.now();
    const bytes = this.length !== null && typeof data === 'string' ? Buffer.from(data) : data;
    if (this.full) this.keep(bytes);
    else this.feed(bytes);
    if (lent && this.backlog.length > 0) this.backlog[0] = Uint8Array.from(this.backlog[0] as Uint8Array);
    return !this.full;
  }

  /** That was all. */
  end(): void {
    this.ending = true;
    if (this.length !== null) {
      // With its last byte it is complete; without, its client shall see that it is not.
      if (this.keptBytes < this.left) this.exchange.cutStream();
    } else if (!this.full) {
      // Not in the engine's callback, where it would go on with what follows in the same packet.
      if (this.close) setImmediate(() => this.endChunked());
      else this.endChunked();
    }
  }

  private keep(data: string | Uint8Array): void {
    this.backlog.push(data);
    this.keptBytes += data.length;
  }
  private putBack(rest: Uint8Array): void {
    if (rest.byteLength === 0) return;
    this.backlog.unshift(rest);
    this.keptBytes += rest.byteLength;
  }

  private feed(data: string | Uint8Array): void {
    if (this.length === null) this.feedChunked(data);
    else this.feedSized(data as Uint8Array);
  }

  private begin(): void {
    if (this.begun) return;
    this.begun = true;
    this.writeHead();
  }

  /**
   * Give data as long as it leaves at once. Of what does not, the engine holds one piece: so there is always a bound to it, and
   * when the socket is writable again that piece goes out as a whole.
   */
  private feedChunked(data: string | Uint8Array): void {
    if (data.length <= PIECE) {
      this.writePiece(data);
      return;
    }
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    let at = 0;
    for (; at < bytes.byteLength && !this.full; at += PIECE) this.writePiece(bytes.subarray(at, at + PIECE));
    this.putBack(bytes.subarray(at));
  }

  private writePiece(piece: string | Uint8Array): void {
    this.res.cork(() => {
      this.begin();
      this.full = !this.res.write(piece);
    });
  }

  private feedSized(data: Uint8Array): void {
    const bytes = data.byteLength > this.left ? data.subarray(0, this.left) : data;
    if (bytes.byteLength === 0) return;
    let ok = false;
    let done = false;
    let taken = 0;
    if (bytes.byteLength === this.left) this.exchange.completing();
    this.res.cork(() => {
      this.beginSized();
      const from = this.res.getWriteOffset();
      [ok, done] = this.res.tryEnd(bytes, this.total);
      // The response is dead when it is done.
      taken = done ? bytes.byteLength : this.res.getWriteOffset() - from;
    });
    this.left -= taken;
    this.full = !ok;
    if (done) this.exchange.finish();
    else if (taken < bytes.byteLength) this.putBack(bytes.subarray(taken));
    else if (this.left === 0) this.closeSoon();
  }

  private beginSized(): void {
    if (this.begun) return;
    this.begin();
    // The length in the head is that of the first call.
    if (this.close) this.res.tryEnd('', this.length as number);
  }

  /**
   * What the engine takes for the length of the whole. It does not close behind what it takes for complete; so it gets to
   * expect a byte more, and we close.
   */
  private get total(): number {
    return (this.length as number) + (this.close ? 1 : 0);
  }

  /** When the engine has let go of its cork. */
  private closeSoon(): void {
    setImmediate(() => {
      if (this.exchange.over) return;
      this.res.cork(() => {
        // Nothing to write, but it says whether there is anything left of what was written.
        this.full = !this.res.tryEnd('', this.total)[0];
      });
      if (!this.full) this.exchange.cutStream();
    });
  }

  private writable(): void {
    if (this.exchange.over) return;
    this.movedAt = performance.now();
    this.full = false;
    // What the engine holds itself leaves at the end of a cork.
    if (this.backlog.length === 0) this.res.cork(() => undefined);
    while (!this.full) {
      const data = this.backlog.shift();
      if (data === undefined) break;
      this.keptBytes -= data.length;
      this.feed(data);
    }
    if (this.full || this.exchange.over) return;
    if (this.length !== null && this.left === 0) this.closeSoon();
    else if (this.ending) this.end();
    else this.exchange.drained();
  }

  private endChunked(): void {
    if (this.exchange.over) return;
    this.exchange.completing();
    this.res.cork(() => {
      this.begin();
      this.res.end();
    });
    this.exchange.finish();
  }
}
