import { describe, expect, it } from 'vitest';
import { RawClient, WAYS } from './support/http-raw.js';
import { gate, type Log, log, poolOf } from './support/pool-client.js';
import { serve, type TestServer, until } from './support/server.js';
import { content, FRAMINGS, MB, UPLOAD, Upload } from './support/upload.js';

const START = [
  ['at once', true],
  ['when there is enough of it', false],
] as const;

const ENDS: [string, (upload: Upload) => void][] = [
  ['goes with a FIN', ({ client }) => client.leave()],
  ['goes with a RST', ({ client }) => client.reset()],
];

const target = (path: string, notes: Log, gatePath?: string): string => {
  const query = new URLSearchParams({ log: notes.path });
  if (gatePath !== undefined) query.set('gate', gatePath);
  return `${path}?${query}`;
};

/** Nothing is left of anything, and the next request is served. */
async function unharmed(test: TestServer): Promise<void> {
  await until(() => test.server.stats().open === 0, 'no request is open');
  const { pool } = test.server.stats();
  if (pool !== null)
    await until(() => poolOf(test.server).running + poolOf(test.server).pending === 0, 'the pool is idle');
  expect(test.errors).toEqual([]);
  const answer = await fetch(`${test.url}/bytes`, { method: 'POST', body: content(2 * MB) });
  expect(answer.status).toBe(200);
}

describe.each(WAYS)('a client that goes away in the middle of a body for $way', ({ dispatch }) => {
  const start = (options: object): Promise<TestServer> =>
    serve(UPLOAD, { dispatch, ...(dispatch && { nMin: 1, nMax: 1 }), ...options });

  describe.each(START)('that starts %s', (_, streamBody) => {
    const size = streamBody ? 1000 : 1.5 * MB;

    it.each(ENDS)('and %s breaks the stream, fires the signal and is not answered', async (_how, end) => {
      const test = await start({ streamBody });
      for (const framing of FRAMINGS) {
        const notes = log();
        const sending = await Upload.begin(test.port, target('/watched', notes), 2 * size, framing);
        await sending.sendAll(content(size));
        await until(() => notes.lines().includes('begins'), 'the handler reads');
        end(sending);
        await until(() => notes.lines().length === 3, 'the handler is told', 15_000);
        expect(notes.lines().slice(1).sort()).toEqual([
          'AbortError OFFLOOP_ABORTED OFFLOOP_ABORTED',
          'signal OFFLOOP_ABORTED',
        ]);
      }
      expect(test.server.stats().answers).toEqual({});
      await unharmed(test);
    });

    it.each(ENDS)('and %s breaks what collects it', async (_how, end) => {
      const test = await start({ streamBody });
      for (const framing of FRAMINGS) {
        const notes = log();
        const sending = await Upload.begin(test.port, target('/watched-whole', notes), 2 * size, framing);
        await sending.sendAll(content(size));
        await until(() => notes.lines().includes('begins'), 'the handler reads');
        end(sending);
        await until(() => notes.lines().length === 2, 'the handler is told', 15_000);
        expect(notes.lines()[1]).toBe('AbortError OFFLOOP_ABORTED OFFLOOP_ABORTED true');
      }
      await unharmed(test);
    });

    it('and breaks its framing is treated no better', async () => {
      const test = await start({ streamBody });
      for (const bad of ['zz\r\n', '5\r\nhello world\r\n', '-1\r\n']) {
        const notes = log();
        const sending = await Upload.begin(test.port, target('/watched', notes), 0, 'chunked');
        await sending.sendAll(content(size));
        await until(() => notes.lines().includes('begins'), 'the handler reads');
        sending.client.send(bad);
        sending.client.send('x'.repeat(100));
        await sending.client.closed();
        await until(() => notes.lines().length === 3, 'the handler is told');
        expect(notes.lines()).toContain('AbortError OFFLOOP_ABORTED OFFLOOP_ABORTED');
      }
      await unharmed(test);
    });

    it('is one of sixty, and none leaves anything behind', async () => {
      const test = await start({ streamBody, ...(dispatch && { concurrency: 100 }) });
      const notes = log();
      const bytes = content(size);
      const uploads = await Promise.all(
        Array.from({ length: 60 }, async (_, i) => {
          const framing = i % 3 === 0 ? 'chunked' : 'length';
          const path = i % 5 === 0 ? '/watched-whole' : '/watched';
          const sending = await Upload.begin(test.port, target(path, notes), 2 * size, framing);
          await sending.sendAll(bytes);
          return sending;
        }),
      );
      await until(
        () => notes.lines().filter((line) => line === 'begins').length === 60,
        'all are read',
        10_000,
      );
      for (const [i, { client }] of uploads.entries()) i % 2 === 0 ? client.leave() : client.reset();
      const told = (): number => notes.lines().filter((line) => line.startsWith('AbortError')).length;
      await until(() => told() === 60, 'all handlers are told', 15_000);
      await unharmed(test);
    });
  });

  it('is no unhandled rejection when nobody waits for the body at that moment', async () => {
    const test = await start({ streamBody: true });
    for (const path of ['/waits-later', '/forgets']) {
      const free = gate();
      const notes = log();
      const sending = await Upload.begin(test.port, target(path, notes, free.path), 2000, 'length');
      await sending.send(content(1000));
      await until(() => notes.lines().includes('begins'), 'the handler reads');
      sending.client.leave();
      await until(() => notes.lines().includes('signal OFFLOOP_ABORTED'), 'the signal fires');
      free.open();
      await until(() => notes.lines().includes('done'), 'the handler is through');
    }
    await unharmed(test);
  });

  it('and is not read from at that moment is noticed when the handler reads on', async () => {
    const test = await start({ streamBody: true, maxBody: 64 * MB });
    const free = gate();
    const notes = log();
    const sending = await Upload.begin(test.port, target('/watched', notes, free.path), 64 * MB, 'length');
    void sending.sendAll(content(16 * MB), MB);
    await until(() => notes.lines().includes('begins'), 'the handler reads');
    await until(() => sending.client.socket.writableLength > 0, 'the kernel takes no more');
    sending.client.reset();
    free.open();
    await until(() => notes.lines().some((line) => line.startsWith('AbortError')), 'the handler is told');
    await unharmed(test);
  });

  it('but has sent it all is told from one that has not', async () => {
    const test = await start({ streamBody: true });
    const free = gate();
    const notes = log();
    const sending = await Upload.begin(test.port, target('/watched', notes, free.path), 1000, 'length');
    await sending.send(content(500));
    await until(() => notes.lines().includes('begins'), 'the handler reads');
    await sending.send(content(500));
    free.open();
    await until(() => notes.lines().includes('complete'), 'the handler has all of it');
    expect((await sending.client.response()).status).toBe(200);
  });
});

describe('a client that leaves before its handler has started', () => {
  it('takes its place in the queue with it', async () => {
    const test = await serve(UPLOAD, { nMin: 1, nMax: 1, streamBody: true });
    const free = gate();
    const notes = log();
    const busy = await RawClient.open(test.port);
    busy.send(`GET ${target('/block', notes, free.path)} HTTP/1.1\r\nHost: h\r\n\r\n`);
    await until(() => notes.lines().includes('blocks'), 'the only thread is busy');
    const waits = await Upload.begin(test.port, target('/watched', notes), 2000, 'length');
    await waits.send(content(1000));
    await until(() => poolOf(test.server).queued + poolOf(test.server).running === 2, 'it waits');
    waits.client.leave();
    await until(() => test.server.stats().open === 1, 'it is gone');
    free.open();
    expect((await busy.response()).status).toBe(200);
    await unharmed(test);
    expect(notes.lines()).toEqual(['blocks']);
  });
});

describe.each(WAYS)('a client that does not read what $way sends it while it sends', ({ dispatch }) => {
  it('is cut', { timeout: 60_000 }, async () => {
    const test = await serve(UPLOAD, { dispatch, maxBody: 512 * MB, ...(dispatch && { nMax: 1 }) });
    const sending = await Upload.begin(test.port, '/echo', 512 * MB, 'length');
    sending.client.socket.pause();
    const all = sending.sendForEver(content(MB));
    await until(() => test.server.stats().open === 1, 'it is taken');
    await until(() => test.server.stats().open === 0, 'it is cut', 40_000);
    sending.client.reset();
    await all;
    await unharmed(test);
  });
});

describe.each(WAYS)('a client that sends next to nothing to $way', ({ dispatch }) => {
  it('is cut, and its handler told', { timeout: 40_000 }, async () => {
    const test = await serve(UPLOAD, { dispatch, streamBody: true, ...(dispatch && { nMax: 1 }) });
    const notes = log();
    const slow = await Promise.all(
      FRAMINGS.map((framing) => Upload.begin(test.port, target('/watched', notes), 100_000, framing)),
    );
    const drip = setInterval(() => {
      for (const sending of slow) void sending.send(content(10));
    }, 500);
    await Promise.all(slow.map(({ client }) => client.closed(20_000)));
    clearInterval(drip);
    const told = (): string[] => notes.lines().filter((line) => line.startsWith('AbortError'));
    await until(() => told().length === 2, 'the handlers are told');
    await unharmed(test);
  });
});
