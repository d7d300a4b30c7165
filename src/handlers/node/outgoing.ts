/** The body of a response that a Node-style handler writes, as the one who sends it reads it. */
import type { Chunk } from '../source.js';
import type { Done } from './socket.js';

type Result = IteratorResult<Chunk, undefined>;

const END: Result = { done: true, value: undefined };

/** Something that was written: an empty one has only somebody who waits for all before it. */
interface Written {
  readonly chunk: Chunk;
  readonly done: Done | undefined;
}

/** What the body tells of itself. */
export interface OutgoingOwner {
  /** There is room again. */
  drained(): void;
  /** Whether nobody asks for a body: the request is a HEAD, or the status has none. */
  readonly isBodiless: boolean;
  /** It will not be read any further, though there is, or could be, more. */
  unread(): void;
}

/**
 * Takes what is written and hands it on when it is asked for. An iterator whose results are there at once when something is, so that
 * a body that has been written in one go is read in one go.
 */
export class Outgoing implements AsyncIterableIterator<Chunk> {
  /** Characters and bytes that nobody has taken. */
  size = 0;
  private readonly queue: Written[] = [];
  /** What the reader has, and those who wait until it wants more. */
  private taken: Done[] = [];
  private ended = false;
  private failure: { readonly error: unknown } | undefined;
  private over = false;
  private reader:
    | { readonly resolve: (result: Result) => void; readonly reject: (error: unknown) => void }
    | undefined;

  constructor(private readonly owner: OutgoingOwner) {}

  /** All has been taken, or whoever could take it has gone. */
  get isOver(): boolean {
    return this.over || (this.ended && this.queue.length === 0);
  }

  write(chunk: Chunk, done: Done | undefined): void {
    if (this.over) {
      if (done !== undefined) process.nextTick(done);
      return;
    }
    this.size += chunk.length;
    this.queue.push({ chunk, done });
    if (this.reader === undefined) return;
    const result = this.take();
    if (result === undefined) return;
    const { resolve } = this.reader;
    this.reader = undefined;
    resolve(result);
  }

  /** Nothing is written any more. */
  end(): void {
    this.ended = true;
    const { reader } = this;
    this.reader = undefined;
    reader?.resolve(END);
  }

  /** What is read from here on fails. */
  fail(error: unknown): void {
    if (this.isOver || this.failure !== undefined) return;
    this.failure = { error };
    const { reader } = this;
    this.reader = undefined;
    reader?.reject(error);
  }

  /** All of it, when none has been read. */
  whole(): string | Uint8Array {
    this.over = true;
    this.size = 0;
    const chunks: Chunk[] = [];
    for (const { chunk, done } of this.queue.splice(0)) {
      if (chunk.length > 0) chunks.push(chunk);
      // Bytes are the handler's again when it is called back, and are encoded in microtasks at the latest: a tick asked for in one comes
      // behind them all.
      if (done !== undefined) queueMicrotask(() => process.nextTick(done));
    }
    const [first = ''] = chunks;
    if (chunks.length <= 1) return first;
    if (chunks.every((chunk) => typeof chunk === 'string')) return chunks.join('');
    return Buffer.concat(chunks.map((chunk) => (typeof chunk === 'string' ? Buffer.from(chunk) : chunk)));
  }

  /** Nobody will read it: who waits is told so. */
  drop(error: Error): void {
    this.over = true;
    this.size = 0;
    const waiting = [...this.taken, ...this.queue.splice(0).map(({ done }) => done)];
    this.taken = [];
    for (const done of waiting) if (done !== undefined) process.nextTick(done, error);
  }

  // ------------------------------------------------------------------------------------------------- to the reader

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Not a promise when something is there. */
  next(): Promise<Result> {
    return this.nextOrPromise() as Promise<Result>;
  }

  private nextOrPromise(): Result | Promise<Result> {
    // Asked for more, so it has done with what it had: its memory is that of the handler again.
    for (const done of this.taken.splice(0)) process.nextTick(done);
    if (this.failure !== undefined) throw this.failure.error;
    const result = this.take();
    if (result !== undefined) return result;
    if (this.isOver) return END;
    process.nextTick(() => this.owner.drained());
    return new Promise((resolve, reject) => {
      this.reader = { resolve, reject };
    });
  }

  /** The next one that is not empty. */
  private take(): Result | undefined {
    for (;;) {
      const next = this.queue.shift();
      if (next === undefined) return undefined;
      const { chunk, done } = next;
      this.size -= chunk.length;
      if (chunk.length === 0) {
        if (done !== undefined) process.nextTick(done);
        continue;
      }
      if (done !== undefined) this.taken.push(done);
      return { done: false, value: chunk };
    }
  }

  return(): Promise<Result> {
    if (this.owner.isBodiless) this.whole();
    else if (!this.isOver) this.owner.unread();
    this.over = true;
    return Promise.resolve(END);
  }
}
