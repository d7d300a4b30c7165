/**
 * Reads the beginning of a body before anything of its response is sent. Most that come as a stream are small and there at
 * once: those are answered as a whole, with their true length.
 */
import { sizeOf } from '../bytes.js';
import type { Answer } from '../protocol.js';
import { isThenable } from './reasons.js';
import { asChunk, type Chunk, Measure, ownBytes, type Result, type Source, wellFormed } from './source.js';

/** A body of at most so many bytes, all there within one turn of the loop, is answered as a whole. */
const SMALL = 16 * 1024;
/** The same for one whose length is known and whose source is ours, such as a file, however long reading it takes. */
const SMALL_AND_SIZED = 64 * 1024;
/** Ms that reading bodies may keep the thread from everything else. */
export const SLICE = 2;
/** The same for the beginning of one, which counts as time of its handler. */
const FIRST_SLICE = 20;

/** A response whose body is still to be read. */
export interface Unread {
  readonly status: number;
  readonly head: string;
  readonly flags: number;
  /** Bytes of the body, if that is known. */
  readonly length: number | null;
  readonly source: Source;
}

export function isUnread(encoded: Answer | Unread): encoded is Unread {
  return 'source' in encoded;
}

/** A body that is too large or too slow to be answered as a whole, and what has been read of it. */
export interface Begun {
  readonly unread: Unread;
  readonly measure: Measure;
  /** Read already; ours. They are in the measure, and so is `last`. */
  readonly parts: readonly Chunk[];
  /** The last one read, on the memory of whoever made it, since it may be very large. */
  readonly last: Chunk | undefined;
  /** What comes next, if it has been asked for. */
  readonly reading: Promise<Result> | undefined;
}

export class Gather {
  private readonly parts: Chunk[] = [];
  private readonly measure: Measure;
  private over = false;
  private reading: Promise<Result> | undefined;
  private until = Number.POSITIVE_INFINITY;
  /** Nothing to be gained from sending a part of it early. */
  private readonly patient: boolean;
  private settle!: { resolve: (known: Answer | Begun) => void; reject: (error: unknown) => void };

  constructor(private readonly unread: Unread) {
    const { length, source } = unread;
    this.measure = new Measure(length);
    this.patient = source.owned && length !== null && length <= SMALL_AND_SIZED;
  }

  /**
   * The whole answer, or a body that has begun. Throws or rejects with what the source throws, or with OFFLOOP_BAD_RESPONSE
   * for what cannot be sent; the source has been let go then.
   */
  run(): Answer | Begun | Promise<Answer | Begun> {
    const until = performance.now() + FIRST_SLICE;
    for (;;) {
      const result = this.next();
      if (isThenable<Result>(result)) {
        return new Promise((resolve, reject) => {
          this.settle = { resolve, reject };
          this.wait(Promise.resolve(result));
          if (!this.patient && this.parts.length > 0) late.add(this);
        });
      }
      const known = this.take(result);
      if (known !== undefined) return known;
      if (performance.now() > until) return this.begun(undefined);
    }
  }

  /** Nobody wants it any more: what `run` has promised rejects with this reason. */
  abort(reason: unknown): void {
    if (this.over) return;
    this.unread.source.letGo(false, reason);
    this.finish();
    this.settle.reject(reason);
  }

  private next(): Result | PromiseLike<Result> {
    try {
      return this.unread.source.next();
    } catch (error) {
      this.unread.source.letGo(true);
      throw error;
    }
  }

  private wait(reading: Promise<Result>): void {
    this.reading = reading;
    reading.then(
      (result) => this.got(result),
      (error: unknown) => this.lost(error),
    );
  }

  private got(result: Result): void {
    if (this.over) return;
    try {
      this.reading = undefined;
      const first = this.parts.length === 0;
      const known = this.take(result);
      if (known === undefined) {
        // The first may take its time; from then on nobody shall wait for what is there.
        if (first) this.until = performance.now() + FIRST_SLICE;
        if (this.patient || performance.now() < this.until) {
          this.wait(Promise.resolve(this.next()));
          if (!this.patient && this.parts.length > 0) late.add(this);
          return;
        }
      }
      this.finish();
      this.settle.resolve(known ?? this.begun(undefined));
    } catch (error) {
      this.failed(error);
    }
  }

  private lost(error: unknown): void {
    if (this.over) return;
    this.unread.source.letGo(true);
    this.failed(error);
  }

  private failed(error: unknown): void {
    this.finish();
    this.settle.reject(error);
  }

  /** The loop has turned, and there is more to come. */
  waitNoLonger(): void {
    if (this.over) return;
    this.finish();
    this.settle.resolve(this.begun(undefined));
  }

  private finish(): void {
    this.over = true;
    late.gathers.delete(this);
  }

  private begun(last: Chunk | undefined): Begun {
    const { unread, measure, parts, reading } = this;
    return { unread, measure, parts, last, reading };
  }

  /** Returns what is known after this one. Throws for what cannot be sent, and has let go of the source then. */
  private take(result: Result): Answer | Begun | undefined {
    const { measure, parts } = this;
    const { source } = this.unread;
    try {
      if (result.done === true) {
        source.letGo(true);
        measure.end();
        return this.whole();
      }
      const chunk = asChunk(result.value);
      const isText = typeof chunk === 'string';
      measure.add(sizeOf(chunk));
      if (!this.patient && measure.total > SMALL) return this.begun(chunk);
      if (chunk.length > 0) parts.push(isText ? wellFormed(chunk) : source.owned ? chunk : ownBytes(chunk));
      return undefined;
    } catch (error) {
      source.letGo(false, error);
      throw error;
    }
  }

  private whole(): Answer {
    const { status, head, flags } = this.unread;
    const { parts } = this;
    const payload = parts.every((part) => typeof part === 'string') ? parts.join('') : joined(parts);
    return { status, head, payload: payload.length === 0 ? 0 : payload, flags };
  }
}

/** Those that have read something in this turn of the loop, and wait for more. */
const late = {
  gathers: new Set<Gather>(),
  scheduled: false,

  add(gather: Gather): void {
    this.gathers.add(gather);
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      for (const gather of this.gathers) gather.waitNoLonger();
    });
  },
};

const owned = (chunk: Chunk): Chunk => (typeof chunk === 'string' ? chunk : ownBytes(chunk));

function joined(parts: readonly Chunk[]): Uint8Array {
  const first = parts[0] as Chunk;
  if (parts.length === 1 && typeof first !== 'string') return first;
  const buffers = parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part));
  const whole = new Uint8Array(buffers.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let at = 0;
  for (const buffer of buffers) {
    whole.set(buffer, at);
    at += buffer.byteLength;
  }
  return whole;
}

/**
 * The chunks of a body that has begun, at the pace of whoever asks for them. Bytes are ours. Holds it to its length; lets the
 * thread do other things in between; lets go of the source, however it ends.
 */
export async function* chunksOf({ unread, measure, parts, last, reading }: Begun): AsyncGenerator<Chunk> {
  const { source } = unread;
  let ended = false;
  const read = last === undefined ? parts : [...parts, source.owned ? last : owned(last)];
  // What would make it complete waits until it is certain that it does.
  let held = measure.full ? read.at(-1) : undefined;
  let pending = reading;
  let until = performance.now() + SLICE;
  try {
    yield* held === undefined ? read : read.slice(0, -1);
    for (;;) {
      if (performance.now() > until) {
        await new Promise((resolve) => setImmediate(resolve));
        until = performance.now() + SLICE;
      }
      // As long as it is asked it is its own affair whether it fails.
      ended = true;
      const result = await (pending ?? source.next());
      pending = undefined;
      if (result.done === true) break;
      ended = false;
      const chunk = asChunk(result.value);
      if (chunk.length === 0) continue;
      measure.add(sizeOf(chunk));
      const own = source.owned ? chunk : owned(chunk);
      if (measure.full) held = own;
      else yield own;
    }
    measure.end();
    if (held !== undefined) yield held;
  } finally {
    source.letGo(ended);
  }
}
