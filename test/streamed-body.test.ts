import { Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { describe, expect, it } from 'vitest';
import { OffloopError } from '../src/errors.js';
import { type BodyRequest, StreamedBody } from '../src/handlers/body.js';
import { BODY_WINDOW, type BodySink, type BodySource } from '../src/protocol.js';
import { content } from './support/upload.js';

/** The other side: notes what is asked for. */
class Source implements BodySource {
  readonly pulls: [bytes: number, waiting: boolean][] = [];
  cancelled = 0;
  sink: BodySink | undefined;
  /** What to do when the reader asks, if not to wait. */
  answer: ((sink: BodySink) => void) | undefined;

  pull(sink: BodySink, bytes: number, waiting: boolean): void {
    this.sink = sink;
    this.pulls.push([bytes, waiting]);
    this.answer?.(sink);
  }
  cancel(): void {
    this.cancelled++;
  }
  give(last: boolean, ...chunks: Uint8Array<ArrayBuffer>[]): void {
    this.sink?.data(chunks, last);
  }
}

function body(contentLength: number | null = null) {
  const source = new Source();
  const reasons: unknown[] = [];
  const request: BodyRequest = {
    contentLength,
    get _abortReason() {
      return reasons[0];
    },
    _abort: (reason) => reasons.push(reason),
  };
  return { source, reasons, streamed: new StreamedBody(source, request) };
}

/** Until the stream has asked. */
const asked = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const chunk = (size: number, seed = 1): Uint8Array<ArrayBuffer> => Uint8Array.from(content(size, seed));

async function all(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const one of stream) chunks.push(one);
  return Buffer.concat(chunks);
}

describe('a body as a stream', () => {
  it('asks for nothing before somebody reads, then for a window, and for more as it is taken', async () => {
    const { source, streamed } = body();
    const reader = streamed.stream.getReader();
    await Promise.resolve();
    expect(source.pulls).toEqual([]);
    const first = reader.read();
    expect(source.pulls).toEqual([[BODY_WINDOW, true]]);
    source.give(false, chunk(1000), chunk(BODY_WINDOW));
    expect((await first).value?.byteLength).toBe(1000);
    expect(source.pulls).toHaveLength(1);
    // While it works on this, the next may come.
    expect((await reader.read()).value?.byteLength).toBe(BODY_WINDOW);
    expect(source.pulls.slice(1)).toEqual([[BODY_WINDOW + 1000, false]]);
    const next = reader.read();
    expect(source.pulls.slice(2)).toEqual([[0, true]]);
    source.give(true, chunk(5));
    expect((await next).value?.byteLength).toBe(5);
    expect((await reader.read()).done).toBe(true);
    expect(source.pulls).toHaveLength(3);
  });

  it('gives what comes before the pull has returned', async () => {
    const { source, streamed } = body();
    let left = 4;
    source.answer = (sink) => sink.data([chunk(10, left)], --left === 0);
    const bytes = await all(streamed.stream);
    expect(bytes.equals(Buffer.concat([4, 3, 2, 1].map((seed) => chunk(10, seed))))).toBe(true);
    expect(streamed).toMatchObject({ size: 40, ended: true });
  });

  it('is read by Node streams, in buffers of one’s own, and in two branches', async () => {
    const bytes = content(300_000);
    const parts = (): Uint8Array<ArrayBuffer>[] => [
      Uint8Array.from(bytes.subarray(0, 70_000)),
      Uint8Array.from(bytes.subarray(70_000, 70_001)),
      Uint8Array.from(bytes.subarray(70_001)),
    ];
    const make = (): ReadableStream<Uint8Array> => {
      const { source, streamed } = body();
      source.answer = (sink) => {
        source.answer = undefined;
        setImmediate(() => sink.data(parts(), true));
      };
      return streamed.stream;
    };
    expect(Buffer.concat(await Readable.fromWeb(make()).toArray()).equals(bytes)).toBe(true);
    const reader = make().getReader({ mode: 'byob' });
    const read: Buffer[] = [];
    for (;;) {
      const { done, value } = await reader.read(new Uint8Array(9999));
      if (done) break;
      read.push(Buffer.from(value));
    }
    expect(Buffer.concat(read).equals(bytes)).toBe(true);
    for (const branch of await Promise.all(make().tee().map(all))) expect(branch.equals(bytes)).toBe(true);
  });

  it('that is empty ends at once', async () => {
    const { source, streamed } = body();
    source.answer = (sink) => sink.data([], true);
    expect((await all(streamed.stream)).byteLength).toBe(0);
  });

  it('is the same each time', () => {
    const { streamed } = body();
    expect(streamed.stream).toBe(streamed.stream);
  });

  it('that is cancelled takes nothing more and says so once', async () => {
    const { source, streamed } = body();
    const reader = streamed.stream.getReader();
    const first = reader.read();
    await asked();
    source.give(false, chunk(10), chunk(10));
    await first;
    await reader.cancel('enough');
    expect(source.cancelled).toBe(1);
    source.give(true, chunk(10));
    source.sink?.broken({ kind: 'answered' });
    expect((await reader.read()).done).toBe(true);
    const { source: unread, streamed: other } = body();
    await other.stream.cancel();
    expect(unread.cancelled).toBe(1);
    expect(unread.pulls).toEqual([]);
  });

  it('that has come to its end may be cancelled without anybody hearing of it', async () => {
    const { source, streamed } = body();
    const reader = streamed.stream.getReader();
    const first = reader.read();
    await asked();
    source.give(true, chunk(10), chunk(10));
    await first;
    await reader.cancel();
    expect(source.cancelled).toBe(0);
  });
});

describe('a body as a whole', () => {
  it('is put together from what comes, whether its length was known or not', async () => {
    for (const length of [null, 30]) {
      const { source, streamed } = body(length);
      const bytes = streamed.bytes();
      expect(streamed.bytes()).toBe(bytes);
      expect(source.pulls).toEqual([[BODY_WINDOW, true]]);
      source.give(false, chunk(10, 1), chunk(10, 2));
      // All that has come is taken at once.
      expect(source.pulls).toEqual([
        [BODY_WINDOW, true],
        [20, true],
      ]);
      source.give(true, chunk(10, 3));
      const whole = await bytes;
      expect(Buffer.from(whole).equals(Buffer.concat([1, 2, 3].map((seed) => chunk(10, seed))))).toBe(true);
      expect(whole.buffer.byteLength).toBe(30);
    }
  });

  it('is not promised memory because of a length that was only declared', async () => {
    const { source, streamed } = body(2 ** 50);
    const bytes = streamed.bytes();
    source.give(false, chunk(10));
    source.sink?.broken({ kind: 'gone' });
    await expect(bytes).rejects.toMatchObject({ code: 'OFFLOOP_ABORTED' });
  });

  it('can be had as a stream as well, again and again', async () => {
    const { source, streamed } = body();
    const bytes = streamed.bytes();
    const early = all(streamed.stream);
    source.give(true, chunk(100));
    const whole = Buffer.from(await bytes);
    for (const stream of [await early, await all(streamed.stream)]) expect(stream.equals(whole)).toBe(true);
    // Whoever takes the chunks away leaves the bytes alone.
    for await (const one of streamed.stream) structuredClone(one, { transfer: [one.buffer as ArrayBuffer] });
    expect((await streamed.bytes()).byteLength).toBe(100);
  });

  it('cannot be had once somebody reads the stream, has read it, or has cancelled it', async () => {
    const used = { name: 'TypeError', code: 'OFFLOOP_BODY_USED' };
    const locked = body().streamed;
    const reader = locked.stream.getReader();
    await expect(locked.bytes()).rejects.toMatchObject(used);
    reader.releaseLock();
    // Nothing has been read: it is as good as new.
    const late = locked.bytes();
    expect(locked.bytes()).toBe(late);
    const { source, streamed: read } = body();
    source.answer = (sink) => sink.data([chunk(1)], true);
    await all(read.stream);
    await expect(read.bytes()).rejects.toMatchObject(used);
    const cancelled = body().streamed;
    await cancelled.stream.cancel();
    await expect(cancelled.bytes()).rejects.toMatchObject(used);
  });

  it('is taken from under a stream that nobody has read', async () => {
    const { source, streamed } = body();
    const { stream } = streamed;
    const bytes = streamed.bytes();
    source.give(true, chunk(10));
    expect((await bytes).byteLength).toBe(10);
    expect(stream.locked).toBe(true);
  });
});

describe('a body that breaks', () => {
  it.each([
    ['gone', 'the client went away before the request body was complete'],
    ['answered', 'the request was answered before its body was read to the end'],
  ] as const)('is an AbortError: %s', async (kind, message) => {
    for (const read of [
      (streamed: StreamedBody) => all(streamed.stream),
      (streamed: StreamedBody) => streamed.bytes(),
    ]) {
      const { source, streamed, reasons } = body();
      const reading = read(streamed);
      await asked();
      source.give(false, chunk(10));
      source.sink?.broken({ kind });
      source.sink?.broken({ kind: 'gone' });
      const error: unknown = await Promise.resolve(reading).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(OffloopError);
      expect(error).toMatchObject({ name: 'AbortError', code: 'OFFLOOP_ABORTED', message });
      // The client has gone for everybody.
      expect(reasons).toHaveLength(kind === 'gone' ? 1 : 0);
      expect((error as Error).cause).toBe(reasons[0]);
    }
  });

  it('is a 413 when it is too large', async () => {
    const { source, streamed } = body();
    const reading = streamed.bytes();
    source.sink?.broken({ kind: 'too-large', size: 11, max: 10 });
    const error = {
      code: 'OFFLOOP_REQUEST_TOO_LARGE',
      status: 413,
      message: 'request body 11; max request body 10',
    };
    await expect(reading).rejects.toMatchObject(error);
    await expect(streamed.bytes()).rejects.toMatchObject(error);
  });

  it('is broken for those who come late, too', async () => {
    for (const late of [
      (streamed: StreamedBody) => all(streamed.stream),
      (streamed: StreamedBody) => streamed.bytes(),
    ]) {
      const { streamed } = body();
      streamed.broken({ kind: 'answered' });
      await expect(late(streamed)).rejects.toMatchObject({ name: 'AbortError' });
    }
  });

  it('is whole when it had come to its end', async () => {
    const { source, streamed } = body();
    const reader = streamed.stream.getReader();
    const first = reader.read();
    await asked();
    source.give(true, chunk(10), chunk(20));
    source.sink?.broken({ kind: 'gone' });
    expect((await first).value?.byteLength).toBe(10);
    expect((await reader.read()).value?.byteLength).toBe(20);
    expect((await reader.read()).done).toBe(true);
  });
});
