import { createWorkerPool, type WorkerStats } from 'offloop';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  ask,
  gate,
  log,
  MAY_GO_ELSEWHERE,
  poolOf,
  type Reply,
  tally,
  untilWhole,
} from './support/pool-client.js';
import { code, type Said, say } from './support/pool-code.js';
import { serve, type TestServer, until, within } from './support/server.js';

const one = { nMin: 1, nMax: 1 };

const inState = (test: TestServer, state: WorkerStats['state']): WorkerStats[] =>
  poolOf(test.server).workers.filter((worker) => worker.state === state);

/** Look at the pool in every turn of the event loop; what was seen is told at the end. */
function watch(test: TestServer, look: (test: TestServer) => void): () => void {
  let over = false;
  const again = (): void => {
    look(test);
    if (!over) setImmediate(again);
  };
  again();
  onTestFinished(() => {
    over = true;
  });
  return () => {
    over = true;
  };
}

/** Fewest threads that were ready at any look. */
function fewestReady(test: TestServer): () => number {
  let fewest = Number.POSITIVE_INFINITY;
  const stop = watch(test, () => {
    fewest = Math.min(fewest, inState(test, 'ready').length);
  });
  return () => {
    stop();
    return fewest;
  };
}

describe('a thread that has served as many requests as it should', () => {
  it('is replaced by another, runs onWorkerStop, and is counted as recycled and not as crashed', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 10 } });
    const threads = new Set<number>();
    const ready = fewestReady(test);
    await until(async () => threads.add((await say(test.url)).threadId).size === 3, 'three have served');
    await until(() => handler.count('stop') >= 2, 'two have stopped');
    expect(poolOf(test.server).recycled).toBeGreaterThanOrEqual(2);
    expect(ready()).toBe(1);
    expect(poolOf(test.server)).toMatchObject({
      crashed: 0,
      killed: 0,
      lost: 0,
      reloads: 0,
      startFailure: null,
    });
    expect([test.errors, test.warnings]).toEqual([[], []]);
    await untilWhole(test.server, 1);
    expect(handler.count('stop')).toBe(poolOf(test.server).recycled);
  });

  it('goes on serving until its replacement is ready', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 3 } });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const [{ threadId }] = poolOf(test.server).workers as [WorkerStats];
    for (let i = 0; i < 3; i++) await say(test.url);
    await until(() => handler.count('begin two') === 1, 'its replacement is starting');
    for (let i = 0; i < 20; i++) expect((await say(test.url)).threadId).toBe(threadId);
    expect(poolOf(test.server)).toMatchObject({ threads: 2, recycled: 0 });
    expect(handler.count('begin')).toBe(2);
    go.open();
    await until(() => poolOf(test.server).recycled === 1, 'it is replaced');
    expect((await say(test.url)).version).toBe('two');
    await until(() => handler.count('stop one') === 1, 'it has stopped');
    await untilWhole(test.server, 1);
  });

  it('finishes what it is at, and its answers arrive: what computes, and what is pending', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 2 } });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const free = gate();
    const pending = say(test.url, { hold: free.path, id: 'pending' });
    await until(() => poolOf(test.server).pending === 1, 'one is pending');
    await say(test.url);
    await say(test.url);
    await until(() => handler.count('begin two') === 1, 'its replacement is starting');
    const computing = say(test.url, { block: free.path, id: 'computing' });
    await until(() => handler.count('block one') === 1, 'one computes');
    go.open();
    await until(() => poolOf(test.server).recycled === 1, 'it is replaced');
    for (let i = 0; i < 5; i++) expect((await say(test.url)).version).toBe('two');
    expect(handler.count('stop one')).toBe(0);
    free.open();
    expect(await pending).toMatchObject({ version: 'one', id: 'pending' });
    expect(await computing).toMatchObject({ version: 'one', id: 'computing' });
    await until(() => handler.count('stop one') === 1, 'it has stopped');
  });

  it('is one for which the limit varies by a tenth, so that not all go at once', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 100 } });
    const limits: number[] = [];
    for (let round = 1; round <= 5; round++) {
      await untilWhole(test.server, 1);
      let served = 0;
      // The replacement is on its way as soon as the limit is reached.
      while (poolOf(test.server).threads === 1) {
        await say(test.url);
        served++;
      }
      limits.push(served);
      await until(() => poolOf(test.server).recycled === round, 'it is replaced');
    }
    for (const limit of limits) {
      expect(limit).toBeGreaterThanOrEqual(90);
      expect(limit).toBeLessThanOrEqual(110);
    }
    expect(new Set(limits).size).toBeGreaterThan(1);
  });

  it('costs no request under load, and there are never fewer than nMin that are ready', async () => {
    const handler = code();
    const { path, lines } = log();
    const test = await serve(handler.path, {
      nMin: 2,
      nMax: 2,
      queueSize: 1000,
      recycleAfter: { requests: 40 },
    });
    const ready = fewestReady(test);
    let sent = 0;
    const replies: Reply[] = [];
    const client = async (): Promise<void> => {
      while (poolOf(test.server).recycled < 6) replies.push(await ask(test.url, { id: sent++, log: path }));
    };
    await within(Promise.all(Array.from({ length: 8 }, client)), 'six threads to be recycled', 45_000);
    expect(tally(replies)).toEqual({ 200: sent });
    expect(lines()).toHaveLength(sent);
    expect(new Set(lines()).size).toBe(sent);
    expect(ready()).toBe(2);
    expect(poolOf(test.server)).toMatchObject({ crashed: 0, refused: 0 });
    await untilWhole(test.server, 2);
    expect(test.errors).toEqual([]);
    expect(handler.count('stop')).toBe(poolOf(test.server).recycled);
  });

  it('costs no promise under load either', async () => {
    const handler = code();
    const test = await serve(handler.path, {
      nMin: 2,
      nMax: 2,
      queueSize: 1000,
      recycleAfter: { requests: 20 },
    });
    const replies: Reply[] = [];
    const client = async (): Promise<void> => {
      while (poolOf(test.server).recycled < 4) {
        const free = gate();
        const held = ask(test.url, { hold: free.path });
        replies.push(await ask(test.url));
        free.open();
        replies.push(await held);
      }
    };
    await within(Promise.all(Array.from({ length: 6 }, client)), 'four threads to be recycled', 45_000);
    expect(tally(replies)).toEqual({ 200: replies.length });
    await untilWhole(test.server, 2);
  });

  it('may be every single one', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 1 } });
    const said: Said[] = [];
    for (let i = 1; i <= 5; i++) {
      said.push(await say(test.url));
      await until(() => poolOf(test.server).recycled === i, 'it is replaced');
    }
    expect(new Set(said.map(({ threadId }) => threadId)).size).toBe(5);
    await untilWhole(test.server, 1);
  });

  it('may be in a shared pool', async () => {
    const handler = code();
    const workerPool = createWorkerPool({ ...one, recycleAfter: { requests: 5 } });
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    const first = await serve(handler.path, { workerPool });
    const second = await serve(handler.path, { workerPool });
    const both = async (): Promise<boolean> => {
      await Promise.all([say(first.url), say(second.url)]);
      return workerPool.stats.recycled >= 2;
    };
    await until(both, 'two are recycled');
    await untilWhole(first.server, 1);
  });
});

describe('a thread that has lived as long as it should', () => {
  it('is replaced, busy or not, one after the other', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2, recycleAfter: { ms: 300 } });
    let most = 0;
    const stop = watch(test, () => {
      most = Math.max(most, poolOf(test.server).threads);
    });
    const ready = fewestReady(test);
    const names = poolOf(test.server).workers.map((worker) => worker.name);
    const gone = (): boolean => poolOf(test.server).workers.every((worker) => !names.includes(worker.name));
    await until(gone, 'both have been replaced', 30_000);
    stop();
    expect(ready()).toBe(2);
    expect(most).toBe(3);
    expect(poolOf(test.server).recycled).toBeGreaterThanOrEqual(2);
    expect(handler.count('stop')).toBeGreaterThanOrEqual(2);
    expect(test.errors).toEqual([]);
  });

  it('is replaced even while another that was replaced before is still at work', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2, recycleAfter: { ms: 100 } });
    const free = gate();
    const held = [1, 2, 3, 4].map((id) => say(test.url, { hold: free.path, id }));
    await until(() => poolOf(test.server).pending === 4, 'both have something pending');
    await until(() => poolOf(test.server).recycled >= 3, 'more are replaced', 30_000);
    free.open();
    for (const { version } of await Promise.all(held)) expect(version).toBe('one');
  });
});

describe('a thread whose heap has grown too large', () => {
  it('is replaced, and the others are not', MAY_GO_ELSEWHERE, async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2, recycleAfter: { heapMb: 80 } });
    const free = gate();
    const held = say(test.url, { hold: free.path });
    await until(() => poolOf(test.server).pending === 1, 'one of them has a promise pending');
    // The other one has fewer of them, so this goes there.
    const { threadId } = await say(test.url, { leak: 100 });
    free.open();
    const modest = await held;
    expect(modest.threadId).not.toBe(threadId);
    const leaking = (): WorkerStats | undefined =>
      poolOf(test.server).workers.find((worker) => worker.threadId === threadId);
    const ready = fewestReady(test);
    await until(() => (leaking()?.heapUsed ?? 0) > 100e6 || leaking() === undefined, 'it says so');
    await until(() => leaking() === undefined, 'it is gone');
    expect(ready()).toBe(2);
    expect(poolOf(test.server)).toMatchObject({ recycled: 1, crashed: 0 });
    expect(poolOf(test.server).workers.map((worker) => worker.threadId)).toContain(modest.threadId);
    expect(handler.lines().filter((line) => line.startsWith('stop'))).toEqual([`stop one ${threadId}`]);
    for (const { heapUsed } of poolOf(test.server).workers) expect(heapUsed).toBeLessThan(80e6);
    expect(test.errors).toEqual([]);
  });
});

describe('a replacement that cannot start', () => {
  it('leaves the old thread in service, says so, and is tried again later', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 5 } });
    const { threadId } = await say(test.url);
    handler.writeText('throw new RangeError("no licence")');
    await until(async () => {
      expect((await say(test.url)).threadId).toBe(threadId);
      return test.errors.length > 0;
    }, 'it is logged');
    expect(test.errors[0]?.message).toContain('should be recycled');
    expect(test.errors[0]?.error).toMatchObject({ name: 'RangeError', message: 'no licence' });
    await untilWhole(test.server, 1);
    expect(poolOf(test.server)).toMatchObject({ recycled: 0, crashed: 0, startFailure: null });
    expect(handler.count('stop')).toBe(0);
    handler.write('two');
    await until(async () => (await say(test.url)).version === 'two', 'it is replaced after all');
    expect(poolOf(test.server).recycled).toBe(1);
    await untilWhole(test.server, 1);
  });
});

describe('a thread that ends while its replacement is starting', () => {
  it('because it died has it take its place at once, and no other', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 2 } });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    await say(test.url);
    await say(test.url);
    await until(() => handler.count('begin two') === 1, 'its replacement is starting');
    expect((await ask(test.url, { exit: 1 })).status).toBe(500);
    const waiting = say(test.url);
    go.open();
    expect((await waiting).version).toBe('two');
    await untilWhole(test.server, 1);
    expect(poolOf(test.server)).toMatchObject({ crashed: 1, recycled: 0 });
    expect(handler.count('begin two')).toBe(1);
  });

  it('because of an exception nobody caught leaves no thread too many', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 2 } });
    const go = gate();
    const [throws, free] = [gate(), gate()];
    handler.write('two', { startWhen: go.path });
    const held = say(test.url, { hold: free.path });
    const stray = ask(test.url, { strayWhen: throws.path });
    await stray;
    await say(test.url);
    await until(() => handler.count('begin two') === 1, 'its replacement is starting');
    throws.open();
    await until(() => poolOf(test.server).crashed === 1, 'the exception was heard of');
    go.open();
    free.open();
    expect((await held).version).toBe('one');
    await untilWhole(test.server, 1);
    expect((await say(test.url)).version).toBe('two');
  });

  it('because it had been idle leaves no thread too many', async () => {
    const stop = gate();
    const handler = code('one', { stopWhen: stop.path });
    const test = await serve(handler.path, {
      nMin: 1,
      nMax: 2,
      threadIdleTimeout: 100,
      recycleAfter: { requests: 1 },
    });
    const free = gate();
    const held = [1, 2].map((id) => ask(test.url, { block: free.path, id }));
    await until(() => poolOf(test.server).busy === 2, 'there are two');
    const go = gate();
    handler.write('two', { startWhen: go.path });
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 2 });
    await until(() => handler.count('begin two') === 1, 'one of them is being recycled');
    await until(() => inState(test, 'retiring').length === 1, 'one of them has idled for too long');
    go.open();
    await until(() => handler.count('start two') === 1, 'the replacement is ready');
    stop.open();
    await untilWhole(test.server, 1);
  });
});

describe('a stop while threads are being recycled', () => {
  it('ends cleanly, at whatever moment', async () => {
    for (let i = 0; i < 6; i++) {
      const handler = code();
      const test = await serve(handler.path, { nMin: 2, nMax: 2, recycleAfter: { requests: 1 } });
      // Some may come too late: nobody listens any more.
      const last = Array.from({ length: 2 + i }, () => ask(test.url).catch(() => undefined));
      const begun = performance.now();
      await until(() => performance.now() - begun >= 8 * i, 'some time has passed');
      await within(test.server.stop(), 'the server to stop');
      for (const reply of await Promise.all(last)) expect([200, 503, undefined]).toContain(reply?.status);
      expect(poolOf(test.server)).toMatchObject({ threads: 0, running: 0, pending: 0, queued: 0 });
      expect(test.errors).toEqual([]);
    }
  });

  it('does not wait for a replacement that takes its time', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 1 } });
    handler.write('two', { startWhen: gate().path });
    await say(test.url);
    await until(() => handler.count('begin two') === 1, 'its replacement is starting');
    await within(test.server.stop(), 'the server to stop');
    expect(poolOf(test.server).threads).toBe(0);
    expect(handler.count('stop one')).toBe(1);
    expect(test.errors).toEqual([]);
  });
});
