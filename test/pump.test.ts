import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { invoke } from '../src/handlers/invoke.js';
import { BODIES, type OpenBody, WINDOW } from '../src/handlers/pump.js';
import { type ChannelOpener, RingRequest } from '../src/handlers/request.js';
import type { Handler, HttpResponse } from '../src/handlers/types.js';
import { type Answer, type BodyOutlet, STATUS_TAKEN } from '../src/protocol.js';

/** The I/O side of a body, played by the test. */
class Outlet implements BodyOutlet {
  body!: OpenBody;
  head: { status: number; length: number | null } | undefined;
  readonly chunks: Uint8Array[] = [];
  sent = 0;
  tracked = 0;
  state: 'open' | 'ended' | 'failed' = 'open';
  error: unknown;

  start(status: number, _head: string, _flags: number, length: number | null): void {
    this.head = { status, length };
  }
  send(data: Uint8Array, track: boolean): void {
    expect(this.state).toBe('open');
    this.chunks.push(data);
    this.sent += data.byteLength;
    if (track) this.tracked = this.sent;
  }
  end(): void {
    this.state = 'ended';
  }
  fail(error: unknown): void {
    this.state = 'failed';
    this.error = error;
  }
  /** All that word was asked for has left. */
  flow(): void {
    this.body.flowed(this.tracked);
  }
  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }
}

const outlets: Outlet[] = [];
const logged: unknown[] = [];
const opener: ChannelOpener = {
  isOneOfMany: true,
  newId: () => '',
  open: () => undefined,
  op: () => undefined,
  forget: () => undefined,
  log: (_, error) => logged.push(error),
  openBody(body) {
    const outlet = new Outlet();
    outlet.body = body;
    outlets.push(outlet);
    return outlet;
  },
  beforeSending: (work) => void setImmediate(work),
};

function request(): RingRequest {
  const head = 'GET\n/a\n\n\nhttp\n\nhost\nh';
  return new RingRequest({ isHead: false, head, body: null, addressOf: () => '' }, opener);
}

/** What comes of a handler that returns this. */
function answer(response: HttpResponse, req = request()): Answer | Promise<Answer> {
  return invoke((() => response) as Handler, req);
}
async function start(response: HttpResponse, req = request()): Promise<Outlet> {
  expect((await answer(response, req)).status).toBe(STATUS_TAKEN);
  return outlets.at(-1) as Outlet;
}
const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await turn();
};

function* endless(size = 10_000, made = { chunks: 0 }): Generator<Uint8Array> {
  const chunk = new Uint8Array(size);
  for (;;) {
    made.chunks++;
    yield chunk;
  }
}

describe('a body that is sent bit by bit', () => {
  // Those that are left open would count in the next test.
  afterEach(() => {
    for (const outlet of outlets.splice(0)) outlet.body.unwanted();
    expect(logged.splice(0)).toEqual([]);
  });

  it.each([7, 1000, 16_384, 65_536, 1_000_000])(
    'has a window on its way, and no more before some of it has left: chunks of %i',
    async (size) => {
      const made = { chunks: 0 };
      const outlet = await start({ body: endless(size, made) });
      await turns(60);
      const most = WINDOW + 64 * 1024;
      expect(outlet.sent).toBeGreaterThanOrEqual(WINDOW - 64 * 1024);
      expect(outlet.sent).toBeLessThanOrEqual(most);
      expect(made.chunks * size).toBeLessThanOrEqual(most + 2 * size);
      for (let i = 0; i < 5; i++) {
        const before = outlet.sent;
        outlet.flow();
        await turns(60);
        expect(outlet.sent).toBeGreaterThan(before);
        expect(outlet.sent - outlet.tracked).toBeLessThan(64 * 1024);
        expect(outlet.sent).toBeLessThanOrEqual(before + most);
      }
    },
  );

  it('goes out in few pieces, however small its chunks are', async () => {
    const rows = function* (): Generator<string> {
      for (let i = 0; i < 10_000; i++) yield `row ${i}\n`;
    };
    const outlet = await start({ body: rows() });
    while (outlet.state === 'open') {
      outlet.flow();
      await turn();
    }
    expect(outlet.text).toBe([...rows()].join(''));
    expect(outlet.chunks.length).toBeLessThan(30);
  });

  it('sends what there is when its source makes it wait', async () => {
    let go: (() => void) | undefined;
    const slow = async function* (): AsyncGenerator<string> {
      for (const word of ['one ', 'two ', 'three ']) {
        yield word;
        await new Promise<void>((resolve) => {
          go = resolve;
        });
      }
    };
    const outlet = await start({ body: slow() });
    for (const text of ['one ', 'one two ', 'one two three ']) {
      await turns(5);
      expect(outlet.text).toBe(text);
      go?.();
    }
    await turns(5);
    expect(outlet.state).toBe('ended');
  });

  it('does not mix with another one', async () => {
    const letters = async function* (letter: string): AsyncGenerator<string> {
      for (let i = 0; i < 300; i++) {
        yield letter.repeat(100);
        if (i % 7 === 0) await turn();
      }
    };
    const all = await Promise.all(['a', 'b', 'c'].map((letter) => start({ body: letters(letter) })));
    while (outlets.some(({ state }) => state === 'open')) await turn();
    expect(outlets.map(({ text }) => text).sort()).toEqual(
      ['a', 'b', 'c'].map((letter) => letter.repeat(30_000)),
    );
    expect(all).toHaveLength(3);
  });

  it('gives away memory of its own, in whole buffers', async () => {
    const memory = new Uint8Array(100_000);
    const outlet = await start({ body: [memory.subarray(0, 20_000), memory.subarray(7), memory, 'x'] });
    while (outlet.state === 'open') await turn();
    expect(outlet.sent).toBe(219_994);
    for (const { buffer, byteLength } of outlet.chunks) {
      expect(buffer).not.toBe(memory.buffer);
      expect(buffer.byteLength).toBe(byteLength);
    }
    expect(new Set(outlet.chunks.map(({ buffer }) => buffer)).size).toBe(outlet.chunks.length);
  });

  it('is asked for no more when nobody wants the rest, and told once', async () => {
    let closed = 0;
    const body = (function* (): Generator<Uint8Array> {
      try {
        yield* endless();
      } finally {
        closed++;
      }
    })();
    const req = request();
    const outlet = await start({ body }, req);
    await turns(5);
    const { sent } = outlet;
    outlet.body.unwanted();
    outlet.body.unwanted();
    outlet.flow();
    await turns(5);
    expect([closed, outlet.sent, outlet.state]).toEqual([1, sent, 'open']);
    expect(req.signal.reason).toMatchObject({ code: 'OFFLOOP_ABORTED' });
  });

  it('that fails tells its response, in this order: its source, the outlet, onWriteError', async () => {
    const order: string[] = [];
    const body = (function* (): Generator<unknown> {
      try {
        yield new Uint8Array(20_000);
        yield 5;
      } finally {
        order.push('closed');
      }
    })();
    const req = request();
    const response: HttpResponse = {
      body: body as Iterable<string>,
      onWriteError: (error, request, of) => {
        order.push(`told ${(error as Error).message}`);
        expect(request).toBe(req);
        expect(of).toBe(response);
        return Promise.reject(new Error('and fails itself'));
      },
    };
    const outlet = await start(response, req);
    await turns(5);
    expect(outlet.state).toBe('failed');
    expect(order).toEqual(['closed', 'told a chunk of the body is 5; chunks are strings or bytes']);
    expect(logged.splice(0)).toEqual([new Error('and fails itself')]);
  });

  it('keeps back what would make it complete until its source has ended', async () => {
    let go: (() => void) | undefined;
    const source = async function* (extra: boolean): AsyncGenerator<string> {
      yield 'a'.repeat(20_000);
      yield 'b'.repeat(20_000);
      await new Promise<void>((resolve) => {
        go = resolve;
      });
      if (extra) yield 'c';
    };
    const headers = { 'content-length': 40_000 };
    for (const extra of [false, true]) {
      const outlet = await start({ headers, body: source(extra) });
      await turns(5);
      expect(outlet.head).toEqual({ status: 200, length: 40_000 });
      expect(outlet.sent).toBeLessThan(40_000);
      go?.();
      await turns(5);
      expect([outlet.state, outlet.sent === 40_000]).toEqual(extra ? ['failed', false] : ['ended', true]);
    }
  });

  it('shares the thread with others that have much to do, and with everything else', async () => {
    const burning = function* (): Generator<string> {
      for (;;) {
        const until = performance.now() + 1;
        while (performance.now() < until);
        yield 'x'.repeat(300);
      }
    };
    const all = await Promise.all(Array.from({ length: 10 }, () => start({ body: burning() })));
    for (let i = 0; i < 40; i++) {
      const before = performance.now();
      await turn();
      // Not ten times as long. A machine that is busy may take its time.
      expect(performance.now() - before).toBeLessThan(2000);
    }
    await turns(20);
    for (const outlet of all) expect(outlet.sent).toBeGreaterThan(0);
  });

  it('may take the thread for itself in microtasks no longer than others', async () => {
    const busy = async function* (): AsyncGenerator<string> {
      for (;;) yield 'x';
    };
    let called = 0;
    const interval = setInterval(() => called++, 1);
    const outlet = await start({ body: busy() });
    while (called < 5) {
      outlet.flow();
      await turn();
    }
    clearInterval(interval);
    expect(outlet.sent).toBeGreaterThan(0);
  });

  it('has less of a window when there are many, and waits for its turn when there are very many', async () => {
    const sources = Array.from({ length: BODIES }, () => start({ body: endless(5000) }));
    const open = await Promise.all(sources);
    await turns(3000);
    const sent = open.reduce((sum, outlet) => sum + outlet.sent, 0);
    expect(sent).toBeGreaterThan(32 * 1024 * 1024);
    // 64 MiB, a piece more for each, and what was sent before there were so many.
    expect(sent).toBeLessThan(160 * 1024 * 1024);

    const req = request();
    let closed = 0;
    const body = (function* (): Generator<Uint8Array> {
      try {
        yield* endless();
      } finally {
        closed++;
      }
    })();
    const late = Promise.resolve(answer({ body }));
    const leaving = Promise.resolve(answer({ body: endless() }, req));
    leaving.catch(() => undefined);
    let known = false;
    void late.then(() => {
      known = true;
    });
    await turns(10);
    expect([known, outlets.length]).toEqual([false, BODIES]);
    // Small ones need no turn.
    expect(await answer({ body: ['a'] })).toMatchObject({ status: 200, payload: 'a' });
    req._abort(new Error('gone'));
    await expect(leaving).rejects.toThrow('gone');
    open[5]?.body.unwanted();
    expect((await late).status).toBe(STATUS_TAKEN);
    expect(outlets.length).toBe(BODIES + 1);
    outlets.at(-1)?.body.unwanted();
    expect(closed).toBe(1);
  });

  it('is let go without being read when its request has been given up', async () => {
    let cancelled = 0;
    let pulled = 0;
    const stream = new ReadableStream(
      { pull: () => void pulled++, cancel: () => void cancelled++ },
      { highWaterMark: 0 },
    );
    const req = request();
    req._abort(new Error('gone'));
    expect((await answer({ body: stream }, req)).status).toBe(STATUS_TAKEN);
    expect([pulled, cancelled, outlets.length]).toEqual([0, 1, 0]);
  });

  it('that is beside a wrong status or header is let go', async () => {
    let cancelled = 0;
    const make = (): ReadableStream => new ReadableStream({ cancel: () => void cancelled++ });
    for (const wrong of [{ status: 99 }, { headers: { 'bad name': 'x' } }])
      expect(() => answer({ ...wrong, body: make() })).toThrow();
    await turn();
    expect(cancelled).toBe(2);
  });

  it('survives iterators that break every rule', async () => {
    const wrong: unknown[] = [
      { next: () => null },
      { next: () => undefined },
      { next: () => 5 },
      { next: 5 },
      {
        next: () => ({
          get done(): boolean {
            throw new Error('hostile');
          },
        }),
      },
      {
        next: () => {
          throw null;
        },
      },
      {
        next: () => ({ done: false, value: Symbol('s') }),
        return: () => {
          throw new Error('hostile return');
        },
      },
      { next: () => ({ done: false, value: 1n }), return: () => Promise.reject(new Error('hostile return')) },
    ];
    for (const iterator of wrong) {
      for (const symbol of [Symbol.iterator, Symbol.asyncIterator]) {
        const body = { [symbol]: () => iterator } as unknown as Iterable<string>;
        await expect((async () => answer({ body }))()).rejects.not.toBeUndefined();
      }
    }
    const body = { [Symbol.iterator]: () => undefined } as unknown as Iterable<string>;
    await expect((async () => answer({ body }))()).rejects.toThrow(TypeError);
    await turns(3);
  });
});
