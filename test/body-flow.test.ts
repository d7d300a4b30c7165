import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { BodyFlow, DROP_AT_MOST, type FlowLimits, type FlowOwner } from '../src/io/body-flow.js';
import type { EngineResponse } from '../src/io/engine.js';
import { BODY_WINDOW, type BodyProblem, type BodySink } from '../src/protocol.js';
import { content } from './support/upload.js';

const KB = 1024;

/** The engine's side of a socket, played by the test. It gives and takes back its memory as the engine does. */
class FakeSocket {
  reading = true;
  resumes = 0;
  private handler: (chunk: ArrayBuffer, isLast: boolean) => void = () => undefined;

  readonly res = {
    onData: (handler: (chunk: ArrayBuffer, isLast: boolean) => void) => {
      this.handler = handler;
    },
    pause: () => {
      this.reading = false;
    },
    resume: () => {
      this.reading = true;
      this.resumes++;
    },
  } as unknown as EngineResponse;

  async give(bytes: Uint8Array, isLast = false): Promise<void> {
    const memory = Uint8Array.from(bytes).buffer;
    this.handler(memory, isLast);
    structuredClone(memory, { transfer: [memory] });
    await turn();
  }
}

class Owner implements FlowOwner {
  answerWaits = false;
  readonly calls: string[] = [];
  bodyReady(): void {
    this.calls.push('ready');
  }
  bodyTooLarge(size: number, most: number): void {
    this.calls.push(`too large ${size} ${most}`);
  }
  bodyEnded(resumed: boolean): void {
    this.calls.push(`ended ${resumed}`);
  }
  bodyEndless(): void {
    this.calls.push('endless');
  }
  tryWriting(): void {
    this.calls.push('try writing');
  }
  stuck(): void {
    this.calls.push('stuck');
  }
  rescue(error: unknown): void {
    throw error;
  }
}

class Sink implements BodySink {
  readonly chunks: Uint8Array[] = [];
  readonly problems: BodyProblem[] = [];
  ended = 0;
  data(chunks: readonly Uint8Array[], last: boolean): void {
    this.chunks.push(...chunks);
    if (last) this.ended++;
  }
  broken(problem: BodyProblem): void {
    this.problems.push(problem);
  }
  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }
}

function flow(limits: Partial<FlowLimits> = {}) {
  const socket = new FakeSocket();
  const owner = new Owner();
  const body = new BodyFlow(socket.res, owner, {
    most: Number.POSITIVE_INFINITY,
    readyFrom: 0,
    declared: -1,
    crossesThreads: true,
    ...limits,
  });
  onTestFinished(() => body.over('gone'));
  return { socket, owner, body, sink: new Sink() };
}

describe('a body that is collected', () => {
  it('is ready when it is complete, in one piece', async () => {
    for (const size of [1, 4095, 4096, 500 * KB]) {
      const { socket, owner, body } = flow({ readyFrom: 1024 * KB });
      const bytes = content(size);
      await socket.give(new Uint8Array(0));
      await socket.give(bytes.subarray(0, size / 3));
      await socket.give(bytes.subarray(size / 3, size / 2));
      expect(owner.calls).toEqual([]);
      await socket.give(bytes.subarray(size / 2), true);
      expect(owner.calls).toEqual(['ready']);
      expect(body.whole !== null && Buffer.compare(body.whole, bytes)).toBe(0);
      expect(body.whole?.buffer.byteLength).toBe(size);
      expect(body.whole?.buffer instanceof SharedArrayBuffer).toBe(size >= 4096);
      expect(body.flows).toBe(false);
      expect(socket.reading).toBe(true);
    }
  });

  it('is not shared when it stays on its thread', async () => {
    const { socket, body } = flow({ readyFrom: 1024 * KB, crossesThreads: false });
    const bytes = content(500 * KB);
    await socket.give(bytes.subarray(0, 100 * KB));
    await socket.give(bytes.subarray(100 * KB), true);
    expect(body.whole !== null && Buffer.compare(body.whole, bytes)).toBe(0);
    expect(body.whole?.buffer).toBeInstanceOf(ArrayBuffer);
    expect(body.whole?.buffer.byteLength).toBe(500 * KB);
  });

  it('is the same when its length was known, however it is cut', async () => {
    const size = 100 * KB;
    const bytes = content(size);
    for (const crossesThreads of [true, false]) {
      for (const cuts of [[], [1], [size / 2 - 1, size / 2], [10, 20, size / 4, size - 1], [size]]) {
        const { socket, owner, body } = flow({ readyFrom: 1024 * KB, declared: size, crossesThreads });
        let at = 0;
        for (const cut of cuts) {
          await socket.give(bytes.subarray(at, cut));
          at = cut;
          expect(body.whole).toBeNull();
        }
        expect(owner.calls).toEqual([]);
        await socket.give(bytes.subarray(at), true);
        expect(owner.calls).toEqual(['ready']);
        expect(body.whole !== null && Buffer.compare(body.whole, bytes)).toBe(0);
        expect(body.whole?.buffer.byteLength).toBe(size);
        expect(body.whole?.buffer instanceof SharedArrayBuffer).toBe(crossesThreads);
        expect(body.flows).toBe(false);
      }
    }
  });

  it('leaves nothing when its client goes before all of it is there', async () => {
    const { socket, body } = flow({ readyFrom: 1024 * KB, declared: 100 * KB });
    await socket.give(content(50 * KB));
    body.over('gone');
    expect(body.whole).toBeNull();
    expect(body.keptBytes).toBe(0);
  });

  it('is none when it is empty', async () => {
    const { socket, owner, body } = flow({ readyFrom: 1024 * KB });
    await socket.give(new Uint8Array(0), true);
    expect(owner.calls).toEqual(['ready']);
    expect(body.whole).toBeNull();
    expect(body.flows).toBe(false);
  });

  it('is ready in part when there is enough of it, and then waits', async () => {
    const { socket, owner, body } = flow({ readyFrom: 1024 * KB });
    await socket.give(content(1024 * KB));
    expect(owner.calls).toEqual([]);
    await socket.give(content(1));
    expect(owner.calls).toEqual(['ready']);
    expect(body.whole).toBeNull();
    expect(body.flows).toBe(true);
    expect(socket.reading).toBe(false);
  });

  it('that grows too large is thrown away', async () => {
    const { socket, owner } = flow({ readyFrom: 1024 * KB, most: 1000 });
    await socket.give(content(900));
    await socket.give(content(101));
    expect(owner.calls).toEqual(['too large 1001 1000']);
  });
});

describe('a body that flows', () => {
  it('waits for its reader with no more than a window and one read of it', async () => {
    const { socket, body, sink } = flow();
    await socket.give(content(BODY_WINDOW - 1));
    expect(socket.reading).toBe(true);
    await socket.give(content(512 * KB));
    expect(socket.reading).toBe(false);
    expect(body.keptBytes).toBe(BODY_WINDOW - 1 + 512 * KB);
    body.pull(sink, BODY_WINDOW, true);
    // What is there goes at once, as far as there is room.
    expect(sink.bytes.byteLength).toBeGreaterThanOrEqual(BODY_WINDOW);
  });

  it('is as a whole if it has come as a whole before anybody began to read, however often it is asked for', async () => {
    const { socket, owner, body } = flow();
    const bytes = content(100 * KB);
    await socket.give(bytes.subarray(0, 5 * KB));
    expect(body.whole).toBeNull();
    expect(body.flows).toBe(true);
    await socket.give(bytes.subarray(5 * KB), true);
    expect(owner.calls).toEqual(['ended false']);
    for (let i = 0; i < 2; i++) {
      expect(body.whole !== null && Buffer.compare(body.whole, bytes)).toBe(0);
      expect(body.flows).toBe(false);
    }
  });

  it('flows on if somebody has begun to read', async () => {
    const { socket, body, sink } = flow();
    body.pull(sink, BODY_WINDOW, true);
    await socket.give(content(1000), true);
    expect(body.whole).toBeNull();
    expect(sink).toMatchObject({ ended: 1, problems: [] });
    expect(sink.bytes.equals(content(1000))).toBe(true);
  });

  it('stops when its reader has as much as it asked for, and goes on when it asks for more', async () => {
    const { socket, body, sink } = flow();
    body.pull(sink, 100 * KB, true);
    await socket.give(content(60 * KB));
    expect(socket.reading).toBe(true);
    await socket.give(content(60 * KB));
    // One chunk more than asked for: it came in one piece.
    expect(sink.bytes.byteLength).toBe(120 * KB);
    expect(socket.reading).toBe(false);
    body.pull(sink, 10 * KB, false);
    expect(socket.reading).toBe(false);
    body.pull(sink, 20 * KB, false);
    expect(socket.reading).toBe(true);
    await socket.give(content(60 * KB));
    expect(sink.bytes.byteLength).toBe(180 * KB);
    expect(socket.reading).toBe(false);
  });

  it('gives what comes in one turn together, small chunks in one piece, in order', async () => {
    const { socket, body, sink } = flow();
    body.pull(sink, 4 * BODY_WINDOW, true);
    const bytes = content(200 * KB);
    const sizes = [1, 2, 3, 1000, 20 * KB, 5, 64 * KB, 10];
    const given: Promise<void>[] = [];
    let at = 0;
    for (const size of sizes) {
      given.push(socket.give(bytes.subarray(at, at + size)));
      at += size;
    }
    expect(sink.chunks).toEqual([]);
    await Promise.all(given);
    expect(sink.bytes.equals(bytes.subarray(0, at))).toBe(true);
    expect(sink.chunks.map((chunk) => chunk.byteLength)).toEqual([1006, 20 * KB, 5, 64 * KB, 10]);
    for (const chunk of sink.chunks) expect(chunk.buffer.byteLength).toBe(chunk.byteLength);
  });

  it('takes little more memory than it has bytes, even if they come one by one', async () => {
    const { socket, body, sink } = flow();
    const bytes = content(20_000);
    for (const byte of bytes) void socket.give(Uint8Array.of(byte));
    await turn();
    body.pull(sink, BODY_WINDOW, true);
    expect(sink.bytes.equals(bytes)).toBe(true);
    expect(sink.chunks.length).toBeLessThan(8);
  });

  it('knows how long its reader has waited for the client', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    onTestFinished(() => void vi.useRealTimers());
    const { socket, body, sink } = flow();
    expect(body.waited).toBe(0);
    vi.advanceTimersByTime(100);
    body.pull(sink, 100 * KB, true);
    vi.advanceTimersByTime(50);
    expect(body.waited).toBe(50);
    await socket.give(content(10));
    vi.advanceTimersByTime(1000);
    expect(body.waited).toBe(50);
    // It takes its time with what it has, and asks ahead meanwhile.
    body.pull(sink, 10, false);
    vi.advanceTimersByTime(1000);
    expect(body.waited).toBe(50);
    body.pull(sink, 0, true);
    vi.advanceTimersByTime(7);
    body.pull(sink, 0, true);
    vi.advanceTimersByTime(7);
    expect(body.waited).toBe(64);
    await socket.give(new Uint8Array(0), true);
    vi.advanceTimersByTime(7);
    expect(body.waited).toBe(64);
  });

  it('tells its reader once why it will not come', async () => {
    const gone = flow();
    gone.body.pull(gone.sink, 10, true);
    gone.body.over('gone');
    gone.body.over('answered');
    expect(gone.sink.problems).toEqual([{ kind: 'gone' }]);
    const large = flow({ most: 1000 });
    large.body.pull(large.sink, BODY_WINDOW, true);
    await large.socket.give(content(1001));
    large.body.over('answered');
    expect(large.sink.problems).toEqual([{ kind: 'too-large', size: 1001, max: 1000 }]);
    expect(large.body.tooLarge).toBe(true);
    const complete = flow();
    complete.body.pull(complete.sink, 10, true);
    await complete.socket.give(content(5), true);
    complete.body.over('answered');
    expect(complete.sink).toMatchObject({ problems: [], ended: 1 });
  });

  it('tells those who come late', async () => {
    const { socket, body, sink } = flow();
    await socket.give(content(5));
    body.over('gone');
    body.pull(sink, 10, true);
    expect(sink).toMatchObject({ chunks: [], problems: [{ kind: 'gone' }] });
  });

  it('is kept for a reader that has not begun', async () => {
    const { socket, body, sink } = flow();
    body.pull(sink, 0, false);
    await socket.give(content(100), true);
    expect(sink).toMatchObject({ chunks: [], ended: 0 });
    body.pull(sink, 10, true);
    expect(sink.ended).toBe(1);
    expect(sink.bytes.byteLength).toBe(100);
  });
});

describe('a body that nobody wants', () => {
  it('is read to its end when that is near', async () => {
    const { socket, owner, body } = flow({ declared: 200 * KB });
    await socket.give(content(100 * KB));
    expect(body.drop(DROP_AT_MOST)).toBe(true);
    expect(body.keptBytes).toBe(0);
    await socket.give(content(100 * KB), true);
    expect(owner.calls).toEqual(['ended false']);
  });

  it('is known to be too much when its length says so, or when it has been', async () => {
    const long = flow({ declared: 1024 * KB });
    expect(long.body.drop(DROP_AT_MOST)).toBe(false);
    const chunked = flow();
    expect(chunked.body.drop(DROP_AT_MOST)).toBe(true);
    await chunked.socket.give(content(DROP_AT_MOST));
    expect(chunked.owner.calls).toEqual([]);
    await chunked.socket.give(content(1));
    expect(chunked.owner.calls).toEqual(['endless']);
    expect(chunked.socket.reading).toBe(false);
    chunked.body.drop(Number.POSITIVE_INFINITY);
    expect(chunked.socket.reading).toBe(true);
  });

  it('is read on when it had been stopped', async () => {
    const { socket, body } = flow();
    await socket.give(content(512 * KB));
    expect(socket.reading).toBe(false);
    body.cancel();
    expect(socket.reading).toBe(true);
    expect(body.keptBytes).toBe(0);
  });
});

describe('a body that comes while its answer goes out', () => {
  it('is stopped for short times only, while the answer waits', async () => {
    const { socket, owner, body, sink } = flow();
    await socket.give(content(512 * KB));
    expect(socket.reading).toBe(false);
    // The engine reads again when a write does not get through.
    socket.reading = true;
    owner.answerWaits = true;
    body.unsent();
    await turn();
    expect(socket.reading).toBe(false);
    await vi.waitFor(() => expect(owner.calls).toContain('try writing'), 10_000);
    await vi.waitFor(() => expect(socket.resumes).toBeGreaterThan(3), 10_000);
    owner.answerWaits = false;
    body.sent();
    await vi.waitFor(() => expect(socket.reading).toBe(false), 10_000);
    body.pull(sink, 4 * BODY_WINDOW, true);
    expect(socket.reading).toBe(true);
  });

  it('is stopped anew when the engine reads on by itself', async () => {
    const { socket, owner, body, sink } = flow();
    body.pull(sink, 1, true);
    owner.answerWaits = true;
    const chunk = content(512 * KB);
    for (let i = 0; i < 6; i++) {
      await socket.give(chunk);
      expect(socket.reading).toBe(false);
      socket.reading = true;
    }
  });

  it('does not grow without end', async () => {
    const { socket, owner, body } = flow();
    owner.answerWaits = true;
    const block = content(512 * KB);
    while (!owner.calls.includes('stuck')) {
      expect(body.keptBytes).toBeLessThanOrEqual(16 * 1024 * KB);
      await socket.give(block);
      body.unsent();
      await turn();
    }
    expect(body.keptBytes).toBe(16.5 * 1024 * KB);
  });
});
