/** Writes a response body that comes bit by bit. */
import { keepable, sizeOf } from '../bytes.js';
import type { EngineResponse } from './engine.js';

/**
 * Bytes of a chunked body that are given to the engine at once. With its framing, and a short head, a piece fits into the 16 KiB that the
 * engine puts together: one system call for each. Of what does not fit the framing is written first, and where that cannot be sent, as
 * may happen when the client does not read, the engine forgets the bytes behind it. Over TLS, and over the Unix socket behind the PROXY
 * protocol, the same is true of every body.
 */
const PIECE = 16 * 1024 - 64;

/** Data of a chunked body of at most so many bytes waits for the end of the loop's turn, and leaves together with what else has come by then. */
const SMALL = 4096;
/** Bytes of framing around a chunk, at most. */
const FRAMING = 12;

/**
 * The last bytes of a body behind which we close go to the engine together. It says how much of them has left only when they
 * are more than what it puts together by itself.
 */
const TAIL = 32 * 1024;

/** What a writer needs of its exchange. */
export interface Writing {
  /** The response is dead. */
  readonly over: boolean;
  /** Whether the connection is to be closed behind the response, by the handler, the client, or since the server stops. */
  readonly closing: boolean;
  /** Whether it is not to be read from the connection any more either, and it is to be closed at once. */
  readonly cutting: boolean;
  /** What is given next may be the last of it. */
  completing(): void;
  /**
   * Whether it may be complete now. A request is not over before its body is there: otherwise `then` is called when it is, or when there is
   * no more waiting for it.
   */
  mayComplete(then: () => void): boolean;
  /** The last byte is on its way: close the connection behind it. */
  cutBehind(): void;
  /** The client does not read as fast as it is written to. */
  unsent(): void;
  /** The client has read. */
  moved(): void;
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
  /** Small chunks that leave together, with their framing never more than {@link PIECE}. */
  private small: (string | Uint8Array)[] = [];
  private smallBytes = 0;
  /** Waits in {@link unflushed}. */
  private waitsForFlush = false;
  /** Anything of it has been given to the engine. */
  begun = false;
  /** The client does not read: what comes now is kept. */
  full = false;
  private ending = false;
  private completing = false;
  /** Bytes of a known length that are still to be given to the engine. */
  private left: number;
  /** What waits for the rest of the last {@link TAIL} bytes. */
  private tail: Uint8Array | undefined;
  /** The last byte, while it may not be complete. */
  private lastByte: Uint8Array | undefined;
  /** Bytes that the engine was given and did not take: it is to be given no less of them the next time. */
  private owed = 0;

  constructor(
    private readonly res: EngineResponse,
    private readonly exchange: Writing,
    /** Writes the status line and the header lines. They leave with the first of the body: nobody can use them before. */
    private readonly writeHead: () => void,
    private readonly length: number | null,
    /**
     * Whether the connection is encrypted. The engine encrypts all that it is given before it says whether it could send that; until then
     * it takes nothing for sent, and wants to see no less when it is given it again. So it gets little at a time.
     */
    private readonly secure = false,
  ) {
    this.left = length ?? 0;
    // The engine calls when the socket takes data again; it leaves it to us to go on, even with what it holds itself.
    res.onWritable(() => {
      exchange.moved();
      try {
        this.movedAt = performance.now();
        this.goOn();
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

  /** Whether it has any of the memory that it was given. */
  get holdsAny(): boolean {
    const { backlog, small, tail, lastByte } = this;
    return backlog.length + small.length > 0 || tail !== undefined || lastByte !== undefined;
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
    if (this.small.length > 0) this.flushSoon();
    if (lent) this.backlog.splice(0, Number.POSITIVE_INFINITY, ...this.backlog.map(keepable));
    if (lent && this.lastByte !== undefined) this.lastByte = new Uint8Array(this.lastByte);
    if (this.full) this.exchange.unsent();
    return !this.full;
  }

  /** That was all. */
  end(): void {
    this.ending = true;
    if (this.length !== null) {
      // With its last byte it is complete; without, its client shall see that it is not.
      const { keptBytes, tail, lastByte } = this;
      if (keptBytes + (tail?.byteLength ?? 0) + (lastByte?.byteLength ?? 0) < this.left)
        this.exchange.cutStream();
    } else if (!this.full) {
      // Not in the engine's callback, where it would go on with what follows in the same packet.
      if (this.exchange.closing) setImmediate(() => this.endChunked());
      else this.endChunked();
    }
  }

  private keep(data: string | Uint8Array): void {
    this.backlog.push(data);
    this.keptBytes += data.length;
  }
  private putBack(rest: string | Uint8Array): void {
    if (rest.length === 0) return;
    this.backlog.unshift(rest);
    this.keptBytes += rest.length;
  }

  private feed(data: string | Uint8Array): void {
    if (this.length === null) this.feedChunked(data);
    else if (this.secure && data.length > PIECE) this.feedPieces(data as Uint8Array);
    else this.feedSized(data as Uint8Array);
  }

  private feedPieces(bytes: Uint8Array): void {
    const behind = this.backlog.splice(0);
    let at = 0;
    while (at < bytes.byteLength && !this.full && !this.exchange.over) {
      const piece = bytes.subarray(at, at + Math.max(PIECE, this.owed));
      at += piece.byteLength;
      this.feedSized(piece);
    }
    if (at < bytes.byteLength) this.keep(bytes.subarray(at));
    this.backlog.push(...behind);
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
    if (data.length <= SMALL) {
      const size = sizeOf(data) + FRAMING;
      if (this.smallBytes + size > PIECE) this.flush();
      if (this.full) {
        this.putBack(data);
        return;
      }
      this.small.push(data);
      this.smallBytes += size;
      return;
    }
    this.flush();
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    let at = 0;
    for (; at < bytes.byteLength && !this.full; at += PIECE)
      this.writePieces([bytes.subarray(at, at + PIECE)]);
    this.putBack(bytes.subarray(at));
  }

  private writePieces(pieces: readonly (string | Uint8Array)[]): void {
    this.res.cork(() => {
      this.begin();
      for (const piece of pieces) this.full = !this.res.write(piece);
    });
  }

  /** Give the engine the small chunks that wait. Call this before anything that ends the response. */
  flush(): void {
    const { small } = this;
    if (small.length === 0) return;
    this.small = [];
    this.smallBytes = 0;
    if (!this.exchange.over) this.writePieces(small);
  }

  /**
   * At the end of the turn: ten events that are published at once are one packet for each subscriber then. And whoever publishes in a callback of
   * the engine's has the cork of his own connection, while everything would leave by itself on all others.
   */
  private flushSoon(): void {
    if (this.waitsForFlush) return;
    this.waitsForFlush = true;
    if (unflushed.push(this) === 1) setImmediate(flushAll);
  }

  /** The turn ends. */
  flushInTurn(): void {
    this.waitsForFlush = false;
    try {
      this.flush();
      if (this.full && !this.exchange.over) this.exchange.unsent();
    } catch (error) {
      this.exchange.broken(error);
    }
  }

  private feedSized(data: Uint8Array): void {
    const { closing } = this.exchange;
    let bytes = this.due(data, closing);
    this.owed = 0;
    if (!closing && bytes.byteLength === this.left && !this.exchange.mayComplete(this.complete)) {
      this.lastByte = bytes.subarray(-1);
      bytes = bytes.subarray(0, -1);
    }
    if (bytes.byteLength === 0) return;
    let ok = false;
    let done = false;
    let taken = 0;
    const length = this.length as number;
    if (bytes.byteLength === this.left) this.announce();
    this.res.cork(() => {
      if (!this.begun) {
        this.begin();
        // The length in the head is that of the first call.
        if (closing) this.res.tryEnd('', length);
      }
      const from = this.res.getWriteOffset();
      // The engine does not close behind what it takes for complete. So it gets to expect a byte more, and we close.
      [ok, done] = this.res.tryEnd(bytes, closing ? length + 1 : length);
      // The response is dead when it is done.
      taken = done ? bytes.byteLength : this.res.getWriteOffset() - from;
    });
    this.left -= taken;
    this.full = !ok;
    if (done) {
      this.exchange.finish();
    } else if (taken < bytes.byteLength) {
      if (this.secure) this.owed = bytes.byteLength - taken;
      this.putBack(join(bytes.subarray(taken), this.tail));
      this.tail = undefined;
    } else if (this.left === 0) {
      // When the engine has let go of its cork.
      setImmediate(() => {
        if (!this.exchange.over) this.exchange.cutBehind();
      });
    }
  }

  private readonly complete = (): void => {
    const { lastByte } = this;
    this.lastByte = undefined;
    if (lastByte === undefined) return;
    if (this.full) this.keep(lastByte);
    else this.feedSized(lastByte);
  };

  /** What is given to the engine now. */
  private due(data: Uint8Array, closing: boolean): Uint8Array {
    const bytes = data.byteLength > this.left ? data.subarray(0, this.left) : data;
    if (!closing || (this.length as number) <= TAIL) return bytes;
    const all = join(this.tail, bytes);
    const now =
      all.byteLength === this.left
        ? this.left
        : Math.max(this.owed, Math.min(all.byteLength, this.left - TAIL));
    this.tail = now < all.byteLength ? all.subarray(now) : undefined;
    return all.subarray(0, now);
  }

  /** See whether what waits can leave, though nobody has said so. */
  tryOn(): void {
    if (this.full) this.goOn();
  }

  /** The socket takes data again, or is to be asked whether it does. */
  goOn(): void {
    // What is about to be written asks by itself.
    if (this.exchange.over || this.completing) return;
    this.full = false;
    // What the engine holds itself leaves at the end of a cork.
    if (this.backlog.length === 0) this.res.cork(() => undefined);
    while (!this.full) {
      const data = this.backlog.shift();
      if (data === undefined) break;
      this.keptBytes -= data.length;
      this.feed(data);
    }
    this.flush();
    if (this.exchange.over) return;
    if (this.full) this.exchange.unsent();
    else if (this.ending) this.end();
    else this.exchange.drained();
  }

  /** Say that what is written next may be the last. */
  private announce(): void {
    this.completing = true;
    this.exchange.completing();
    this.completing = false;
  }

  private readonly endChunked = (): void => {
    if (this.exchange.over) return;
    if (!this.exchange.mayComplete(this.endChunked)) {
      this.flush();
      return;
    }
    this.announce();
    const { small } = this;
    this.small = [];
    this.res.cork(() => {
      this.begin();
      for (const piece of small) this.res.write(piece);
      this.res.end(undefined, this.exchange.cutting);
    });
    this.exchange.finish();
  };
}

/** Those with small chunks for the end of this turn. */
let unflushed: BodyWriter[] = [];

function flushAll(): void {
  const all = unflushed;
  unflushed = [];
  for (const writer of all) writer.flushInTurn();
}

function join(first: Uint8Array | undefined, second: Uint8Array | undefined): Uint8Array {
  if (first === undefined || second === undefined) return (first ?? second) as Uint8Array;
  const both = new Uint8Array(first.byteLength + second.byteLength);
  both.set(first);
  both.set(second, first.byteLength);
  return both;
}
