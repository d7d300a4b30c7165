/** What the bodies of responses are read from. On the thread of the handler. */
import { OffloopTypeError } from '../errors.js';

/**
 * A body of known length, such as a file or a range of one. It goes out with Content-Length, read chunk by chunk when there
 * is room for more.
 */
export interface SizedSource {
  /** Bytes that `chunks` yields, exactly: with less the connection is cut, more is never sent, and both are reported. */
  readonly length: number;
  /**
   * Read it. Called at most once, and not at all when no body is sent (HEAD, 204, 304). Chunks should be of 64 KiB or so; each
   * lies in an ArrayBuffer of its own that nobody else keeps, since that is transferred to another thread.
   */
  chunks(): AsyncIterable<Uint8Array>;
  /** Called once in any case, when it will not be read any further: at the end, after a failure, or unread. */
  close?(): unknown;
}

export type Result = IteratorResult<unknown, unknown>;

/** A body that is read chunk by chunk, whatever it is made of. */
export abstract class Source {
  private held = true;
  /** Whether its chunks are ours, so that they need no copy. */
  readonly owned: boolean = false;

  /** The next chunk, as an iterator gives it. May throw; what it gives is to be checked. Not called again before it is there. */
  abstract next(): Result | PromiseLike<Result>;

  /**
   * It will not be read any further: it has `ended` or failed by itself, or it is to be told so, with the reason. Never throws;
   * what the source thinks of it no longer matters. Safe to call again.
   */
  letGo(ended: boolean, reason?: unknown): void {
    if (!this.held) return;
    this.held = false;
    try {
      const released = this.release(ended, reason) as PromiseLike<unknown> | undefined;
      released?.then?.(undefined, () => undefined);
    } catch {}
  }

  protected abstract release(ended: boolean, reason: unknown): unknown;
}

/** What kind of source a value is, if it is one. Nothing is read, and nothing opened. */
export function sourceOf(body: object): Source | undefined {
  const value = body as Partial<AsyncIterable<unknown> & Iterable<unknown> & ReadableStream & Destroyable>;
  if (typeof value.getReader === 'function') return new WebStreamSource(body as ReadableStream);
  if (typeof value[Symbol.asyncIterator] === 'function') {
    if (typeof value.destroy === 'function') return new NodeStreamSource(body as NodeStream);
    return new IterableSource(body, Symbol.asyncIterator);
  }
  if (typeof value[Symbol.iterator] === 'function') return new IterableSource(body, Symbol.iterator);
  return undefined;
}

/** Generators, arrays, sets, and what else can be iterated over. */
class IterableSource extends Source {
  private iterator: Iterator<unknown> | AsyncIterator<unknown> | undefined;

  constructor(
    private readonly body: object,
    private readonly symbol: typeof Symbol.asyncIterator | typeof Symbol.iterator,
  ) {
    super();
  }

  next(): Result | PromiseLike<Result> {
    this.iterator ??= (this.body as Record<symbol, () => Iterator<unknown>>)[this.symbol]?.();
    return (this.iterator as Iterator<unknown>).next();
  }

  protected release(ended: boolean): unknown {
    if (ended) return undefined;
    // A generator that was never asked is its own iterator. What is none has opened nothing yet.
    const body = this.body as Partial<Iterator<unknown>>;
    const iterator = this.iterator ?? (typeof body.next === 'function' ? body : undefined);
    return iterator?.return?.();
  }
}

class WebStreamSource extends Source {
  private reader: ReadableStreamDefaultReader<unknown> | undefined;

  constructor(private readonly stream: ReadableStream<unknown>) {
    super();
  }

  next(): PromiseLike<Result> {
    this.reader ??= this.stream.getReader();
    return this.reader.read() as Promise<Result>;
  }

  protected release(ended: boolean, reason: unknown): unknown {
    return ended ? undefined : (this.reader ?? this.stream).cancel(reason);
  }
}

interface Destroyable {
  destroy(): unknown;
}
type NodeStream = AsyncIterable<unknown> & Destroyable & Partial<NodeJS.EventEmitter>;

class NodeStreamSource extends Source {
  private iterator: AsyncIterator<unknown> | undefined;

  constructor(private readonly stream: NodeStream) {
    super();
    // Whoever reads hears of an error; where nobody reads, or not yet, it must not become an uncaught exception.
    stream.on?.('error', () => undefined);
  }

  next(): PromiseLike<Result> {
    this.iterator ??= this.stream[Symbol.asyncIterator]();
    return this.iterator.next();
  }

  // Not through the iterator, which waits for the next chunk first.
  protected release(ended: boolean): unknown {
    if (!ended) this.stream.destroy();
    return undefined;
  }
}

/** Reads a {@link SizedSource}. */
export class SizedReader extends Source {
  override readonly owned: boolean;
  readonly length: number;
  private iterator: AsyncIterator<Uint8Array> | undefined;

  constructor(
    private readonly source: SizedSource,
    owned = true,
  ) {
    super();
    this.owned = owned;
    this.length = source.length;
  }

  next(): PromiseLike<Result> {
    this.iterator ??= this.source.chunks()[Symbol.asyncIterator]();
    return this.iterator.next();
  }

  // Both at once: `return` waits for a read that is under way.
  protected async release(ended: boolean): Promise<void> {
    const closed = Promise.resolve(this.source.close?.());
    closed.catch(() => undefined);
    if (!ended) await this.iterator?.return?.();
    await closed;
  }
}

export type Chunk = string | Uint8Array;

/** The chunk, of a kind that can be sent. Bytes are a view on the memory of whoever made them. */
export function asChunk(value: unknown): Chunk {
  if (typeof value === 'string') return value;
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  throw new OffloopTypeError(
    'OFFLOOP_BAD_RESPONSE',
    `a chunk of the body is ${show(value)}; chunks are strings or bytes`,
  );
}

/** Bytes in an ArrayBuffer of their own, which may be given away. */
export function ownBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

/** ES2024; in every Node this runs on. */
type WellFormable = string & { toWellFormed(): string };

/** Lone surrogates have no UTF-8: they become U+FFFD. */
export function wellFormed(text: string): string {
  return (text as WellFormable).toWellFormed();
}

/** For messages: never throws, and is short. */
export function show(value: unknown): string {
  try {
    return (JSON.stringify(value) ?? String(value)).slice(0, 80);
  } catch {
    return Object.prototype.toString.call(value);
  }
}

/** Holds a body to the length that was promised for it, if one was. */
export class Measure {
  total = 0;

  constructor(readonly length: number | null) {}

  /** Whether all that was promised has come: it must not be sent before it is certain that nothing follows. */
  get full(): boolean {
    return this.total === this.length;
  }

  /** Throws when that is more than there may be. */
  add(bytes: number): void {
    this.total += bytes;
    if (this.length !== null && this.total > this.length)
      throw wrongLength(`at least ${this.total}`, this.length);
  }

  /** Throws when that was not all there should be. */
  end(): void {
    if (this.length !== null && this.total < this.length) throw wrongLength(`${this.total}`, this.length);
  }
}

function wrongLength(total: string, length: number): OffloopTypeError {
  return new OffloopTypeError(
    'OFFLOOP_BAD_RESPONSE',
    `the body has ${total} bytes, and Content-Length is ${length}`,
  );
}
