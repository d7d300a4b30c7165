/** Bodies that come piece by piece, whatever they are made of, as one kind of thing. */
import { Readable } from 'node:stream';
import { isBlob } from '../handlers/respond.js';

/** Chunks, one after the other. */
export interface Source {
  next(): Promise<IteratorResult<unknown, unknown>>;
  /** No more is wanted. Never throws, and does not wait for a chunk that is still to come, unless it is a generator's. */
  cancel(): void;
}

/** A source over a stream, an iterable or a Blob; undefined for anything else. */
export function sourceOf(body: object): Source | undefined {
  if (isBlob(body)) return ofWebStream(body.stream() as unknown as ReadableStream<unknown>);
  if (typeof (body as Partial<ReadableStream>).getReader === 'function') {
    return ofWebStream(body as ReadableStream<unknown>);
  }
  if (body instanceof Readable) {
    const iterator = body[Symbol.asyncIterator]();
    return { next: () => iterator.next(), cancel: () => void body.destroy() };
  }
  const iterable = body as Partial<AsyncIterable<unknown> & Iterable<unknown>>;
  if (typeof iterable[Symbol.asyncIterator] === 'function')
    return ofIterator((iterable as AsyncIterable<unknown>)[Symbol.asyncIterator]());
  if (typeof iterable[Symbol.iterator] === 'function')
    return ofIterator((iterable as Iterable<unknown>)[Symbol.iterator]());
  return undefined;
}

function ofWebStream(stream: ReadableStream<unknown>): Source {
  const reader = stream.getReader();
  return {
    async next() {
      const { done, value } = await reader.read();
      return done ? { done, value: undefined } : { done, value };
    },
    cancel: () => void reader.cancel().catch(() => undefined),
  };
}

function ofIterator(iterator: AsyncIterator<unknown> | Iterator<unknown>): Source {
  return {
    next: async () => iterator.next(),
    cancel: () => void giveBack(iterator),
  };
}

async function giveBack(iterator: AsyncIterator<unknown> | Iterator<unknown>): Promise<void> {
  try {
    await iterator.return?.();
  } catch {}
}

/** Whether a promise settles by itself before the loop of this thread turns: what it stands for is there already. */
export function settlesNow(promise: Promise<unknown>): Promise<boolean> {
  return Promise.race([
    promise.then(
      () => true,
      () => true,
    ),
    new Promise<false>((resolve) => setImmediate(resolve, false)),
  ]);
}
