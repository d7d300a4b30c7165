import { createWorkerPool, type Distribution, type MountStats, type Server } from 'offloop';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  ask,
  gate,
  leavable,
  MAY_GO_ELSEWHERE,
  poolOf,
  queueUp,
  type Reply,
  tally,
  untilQueued,
  untilWhole,
  WORK,
  warmUp,
  work,
} from './support/pool-client.js';
import { fixture, serve, until } from './support/server.js';

const HELLO = fixture('pool/hello.mjs');
const BYE = fixture('pool/bye.mjs');
const one = { nMin: 1, nMax: 1 };
const NOTHING: Distribution = { count: 0, p50: null, p90: null, p99: null, max: null };

function mountOf(server: Server, path: string, virtualHost: string | null = null): MountStats {
  const found = server
    .stats()
    .mounts.find((mount) => mount.path === path && mount.virtualHost === virtualHost);
  if (found?.work == null) throw new Error(`${path} has no work`);
  return found.work;
}

/** Each distribution of the server, by where it stands. */
function distributions(server: Server): [string, Distribution][] {
  const { mounts, pool } = server.stats();
  const all: [string, Distribution][] = [];
  const add = (where: string, of: { queueWaitMicros: Distribution; runTimeMicros: Distribution }): void => {
    all.push(
      [`queueWaitMicros of ${where}`, of.queueWaitMicros],
      [`runTimeMicros of ${where}`, of.runTimeMicros],
    );
  };
  if (pool !== null) {
    add('the pool', pool);
    for (const worker of pool.workers) add(worker.name, worker);
  }
  for (const { path, work: its } of mounts) if (its !== null) add(path, its);
  return all;
}

/** A number that is not one would be lost on the way. */
function expectPlain(value: unknown): void {
  expect(JSON.parse(JSON.stringify(value))).toEqual(value);
  expect(structuredClone(value)).toEqual(value);
}

describe('the numbers of a server', () => {
  it('are plain JSON at every moment of its life', async () => {
    const { server, url } = await serve(WORK, { nMin: 1, nMax: 2 });
    await server.mount(() => ({ body: 'inline' }), { path: '/inline', dispatch: false });
    expectPlain(server.stats());
    const free = gate();
    const held = [ask(url, { block: free.path }), ask(url, { hold: free.path }), ask(url)];
    // A thread is on its way up meanwhile.
    await until(() => {
      expectPlain(server.stats());
      return poolOf(server).threads === 2;
    }, 'the pool has grown');
    expect((await ask(url, { exit: 1 })).status).toBe(500);
    expectPlain(server.stats());
    free.open();
    // The one that died has taken a promise with it, if it was the one that had it.
    for (const { status } of await Promise.all(held)) expect([200, 500]).toContain(status);
    expectPlain(server.stats());
    await server.stop();
    expectPlain(server.stats());
  });

  it('are plain JSON, and in their bounds, however quickly they are read', async () => {
    const { server, url } = await serve(WORK, { nMin: 2, nMax: 2 });
    await warmUp(url, 20, 2);
    for (let i = 0; i < 3000; i++) {
      const stats = poolOf(server);
      for (const { utilization } of stats.workers) {
        expect(utilization).toBeGreaterThanOrEqual(0);
        expect(utilization).toBeLessThanOrEqual(1);
      }
      if (i % 10 === 0) expectPlain(stats);
    }
  });

  it('do not change under those who have read them', async () => {
    const { server, url } = await serve(WORK, one);
    await work(url);
    const before = server.stats();
    const copy = structuredClone(before);
    await work(url);
    await work(url);
    server.stats();
    expect(before).toEqual(copy);
  });

  it('say nothing of a pool that was never used', async () => {
    const { server } = await serve(() => ({ body: 'inline' }), { dispatch: false });
    expect(server.stats()).toMatchObject({
      status: 'running',
      open: 0,
      pool: null,
      mounts: [{ path: '/', virtualHost: null, dispatch: false, work: null }],
    });
  });

  it('say what is open and what was answered', async () => {
    const { server, url } = await serve(WORK, one);
    const free = gate();
    const held = ask(url, { hold: free.path });
    await until(() => server.stats().open === 1, 'one is open');
    expect((await ask(url, { throw: 'x' })).status).toBe(500);
    free.open();
    await held;
    await until(() => server.stats().open === 0, 'none is open');
    expect(server.stats().answers).toEqual({ 200: 1, 500: 1 });
    expect(server.stats().uptime).toBeGreaterThanOrEqual(0);
    await server.stop();
    expect(server.stats()).toMatchObject({ status: 'stopped', pool: { threads: 0, workers: [] } });
  });
});

describe('queuedMax', () => {
  it('is the most that waited since it was last read, and falls back then', async () => {
    const { server, url } = await serve(WORK, { ...one, queueSize: 50 });
    const free = gate();
    const running = ask(url, { block: free.path });
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    expect(poolOf(server).queuedMax).toBeLessThanOrEqual(1);
    expect(poolOf(server).queuedMax).toBe(0);
    // Nobody looks meanwhile.
    const waiting = Array.from({ length: 20 }, () => ask(url));
    await until(() => server.stats().open === 21, 'all are open');
    const leaving = await queueUp(server, url, [{}, {}]);
    // Reading has set it back to what waits now.
    expect(poolOf(server)).toMatchObject({ queued: 22, queuedMax: 22 });
    free.open();
    expect(tally(await Promise.all([running, ...waiting, ...leaving]))).toEqual({ 200: 23 });
    expect(poolOf(server)).toMatchObject({ queued: 0, queuedMax: 22 });
    expect(poolOf(server)).toMatchObject({ queued: 0, queuedMax: 0 });
  });

  it('still tells of a crowd that has left meanwhile', async () => {
    const { server, url } = await serve(WORK, { ...one, queueSize: 50 });
    const free = gate();
    const running = ask(url, { block: free.path });
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    const clients = Array.from({ length: 7 }, () => leavable(url));
    await untilQueued(server, 7);
    await Promise.all(clients.map((client) => client.leave()));
    let first: ReturnType<typeof poolOf> | undefined;
    await until(() => {
      first = poolOf(server);
      return first.queued === 0;
    }, 'they have left');
    // The first look since: those that were there at the last one count.
    expect(first?.queuedMax).toBeGreaterThan(0);
    expect(poolOf(server).queuedMax).toBe(0);
    free.open();
    await running;
  });
});

describe('how long requests wait and run', () => {
  it('is not known before there are any', async () => {
    const { server } = await serve(WORK, { nMin: 2, nMax: 2 });
    await server.mount(HELLO, { path: '/hello' });
    const all = distributions(server);
    expect(all).toHaveLength(10);
    for (const [where, distribution] of all) expect([where, distribution]).toEqual([where, NOTHING]);
    expect(poolOf(server).meanMicros).toBe(0);
  });

  it('is plausible afterwards, in the pool, in each worker and in each mount', async () => {
    const { server, url } = await serve(WORK, { nMin: 2, nMax: 2 });
    await server.mount(WORK, { path: '/other' });
    await warmUp(url, 60, 4);
    await warmUp(`${url}/other`, 30, 4);
    await work(url, { burn: 30 });
    for (const [where, { count, p50, p90, p99, max }] of distributions(server)) {
      const found = [count, p50, p90, p99, max] as number[];
      const sorted = found.slice(1).sort((a, b) => a - b);
      expect([where, ...found.slice(1)]).toEqual([where, ...sorted]);
      for (const micros of sorted) expect(Number.isInteger(micros)).toBe(true);
      expect(sorted[0]).toBeGreaterThanOrEqual(0);
      // Nothing has taken longer than all together.
      expect(max).toBeLessThan(60e6);
    }
    const { workers, runTimeMicros, queueWaitMicros } = poolOf(server);
    expect([runTimeMicros.count, queueWaitMicros.count]).toEqual([91, 91]);
    expect(workers.reduce((sum, worker) => sum + worker.runTimeMicros.count, 0)).toBe(91);
    expect(mountOf(server, '/').runTimeMicros.count).toBe(61);
    expect(mountOf(server, '/other').runTimeMicros.count).toBe(30);
    expect(runTimeMicros.max).toBe(Math.max(...workers.map((worker) => worker.runTimeMicros.max ?? 0)));
    expect(mountOf(server, '/').runTimeMicros.max).toBe(runTimeMicros.max);
  });

  it('is at least as long as a handler holds its thread', async () => {
    const { server, url } = await serve(WORK, one);
    await warmUp(url, 20);
    await work(url, { burn: 40 });
    const { runTimeMicros, workers } = poolOf(server);
    expect(runTimeMicros.max).toBeGreaterThanOrEqual(40_000);
    expect(workers[0]?.runTimeMicros.max).toBe(runTimeMicros.max);
    expect(runTimeMicros.p50).toBeLessThan(40_000);
    await work(url, { burnAsync: 60 });
    expect(poolOf(server).runTimeMicros.max).toBeGreaterThanOrEqual(60_000);
  });

  it('counts the time that a promise waits', async () => {
    const { server, url } = await serve(WORK, one);
    await work(url, { wait: 300 });
    // Timers may come a millisecond early.
    expect(poolOf(server).runTimeMicros.max).toBeGreaterThanOrEqual(299_000);
    // It has held its thread for much less.
    expect(poolOf(server).meanMicros).toBeLessThan(299_000);
  });

  it('counts the time that a request waits for its thread', async () => {
    const { server, url } = await serve(WORK, one);
    await warmUp(url, 20);
    const free = gate();
    const running = ask(url, { block: free.path });
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    const waiting = ask(url);
    await untilQueued(server, 1);
    const since = performance.now();
    await until(() => performance.now() - since > 50, 'it has waited for a while');
    const waited = (performance.now() - since) * 1000;
    free.open();
    await Promise.all([running, waiting]);
    expect(mountOf(server, '/').queueWaitMicros.max).toBeGreaterThanOrEqual(Math.floor(waited));
    expect(poolOf(server).queueWaitMicros.max).toBeGreaterThanOrEqual(Math.floor(waited));
    expect(poolOf(server).queueWaitMicros.p50).toBeLessThan(waited);
  });
});

describe('the numbers of a worker', () => {
  it('say how many answers it has given, failures included', async () => {
    const { server, url } = await serve(WORK, one);
    await warmUp(url, 10);
    await ask(url, { throw: 'x' });
    await ask(url, { wait: 1 });
    expect(poolOf(server).workers[0]?.served).toBe(12);
  });

  it('say how large its heap is', async () => {
    const { server } = await serve(WORK, { nMin: 2, nMax: 2 });
    for (const { heapUsed } of poolOf(server).workers) {
      expect(heapUsed).toBeGreaterThan(1e6);
      expect(heapUsed).toBeLessThan(1e9);
    }
  });

  it('say which one is busy', async () => {
    const { server, url } = await serve(WORK, { nMin: 2, nMax: 2 });
    await warmUp(url, 20, 2);
    poolOf(server);
    const { threadId } = await work(url, { burn: 200 });
    const { workers } = poolOf(server);
    const busy = workers.find((worker) => worker.threadId === threadId)?.utilization ?? 0;
    const idle = workers.find((worker) => worker.threadId !== threadId)?.utilization ?? 1;
    expect(busy).toBeGreaterThan(idle);
    for (const utilization of [busy, idle]) {
      expect(utilization).toBeGreaterThanOrEqual(0);
      expect(utilization).toBeLessThanOrEqual(1);
    }
  });

  it('say it of the time since they were last read', async () => {
    const { server, url } = await serve(WORK, one);
    await work(url, { burn: 100 });
    poolOf(server);
    const since = performance.now();
    await until(() => performance.now() - since > 200, 'some time has passed');
    const [worker] = poolOf(server).workers;
    expect(worker?.utilization).toBeLessThan(0.5);
  });

  it('say what it has on its lane, what is pending, and its state', async () => {
    const { server, url } = await serve(WORK, { nMin: 1, nMax: 2 });
    const free = gate();
    const held = [ask(url, { hold: free.path }), ask(url, { hold: free.path })];
    await until(() => poolOf(server).pending === 2, 'two are pending');
    held.push(ask(url, { block: free.path }));
    await until(() => poolOf(server).running === 1, 'one runs');
    const pool = poolOf(server);
    expect(pool.busy).toBe(1);
    expect(pool.workers.reduce((sum, worker) => sum + worker.running, 0)).toBe(1);
    expect(pool.workers.reduce((sum, worker) => sum + worker.pending, 0)).toBe(2);
    for (const { name, state, age, threadId } of pool.workers) {
      expect(name).toMatch(/^offloop-worker-\d+$/);
      expect(['starting', 'ready']).toContain(state);
      expect(age).toBeGreaterThanOrEqual(0);
      expect(threadId > 0).toBe(state === 'ready');
    }
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 3 });
  });

  it('begin anew with the thread that takes its place', async () => {
    const { server, url } = await serve(WORK, one);
    await warmUp(url, 10);
    await ask(url, { exit: 1 });
    await work(url);
    await untilWhole(server, 1);
    const { workers, runTimeMicros, accepted } = poolOf(server);
    expect(workers[0]).toMatchObject({ served: 1, running: 0 });
    expect(workers[0]?.runTimeMicros.count).toBe(1);
    expect(accepted).toBe(12);
    // The one that died never said how long it took.
    expect(runTimeMicros.count).toBe(11);
  });
});

describe('the numbers of a mount', () => {
  it('stand under its path and its host; what runs inline has none', async () => {
    const { server, url, port } = await serve(WORK, one);
    await server.mount(HELLO, { path: '/hello/' });
    await server.mount(BYE, { path: '/bye', virtualHost: ['A.test', 'b.test'] });
    await server.mount(() => ({ body: 'inline' }), { path: '/inline', dispatch: false });
    await ask(`${url}/hello`);
    await ask(`${url}/hello/x`);
    expect((await ask(`${url}/inline`)).text).toBe('inline');
    expect(port).toBe(server.port);
    const { mounts } = server.stats();
    expect(
      mounts.map(({ path, virtualHost, dispatch, work: its }) => [
        path,
        virtualHost,
        dispatch,
        its?.accepted,
      ]),
    ).toEqual([
      ['/', null, true, 0],
      ['/hello', null, true, 2],
      ['/inline', null, false, undefined],
      ['/bye', 'a.test', true, 0],
      ['/bye', 'b.test', true, 0],
    ]);
    expect(mounts[2]?.work).toBeNull();
  });

  it('say what waits for it, what it was refused, and what waited or ran for too long', async () => {
    const { server, url } = await serve(WORK, { ...one, queueSize: 2, killAfter: 20_000 });
    await server.mount(WORK, { path: '/hasty', queueTimeout: 20 });
    await server.mount(WORK, { path: '/late', handlerTimeout: 20 });
    expect(mountOf(server, '/')).toEqual({
      accepted: 0,
      queued: 0,
      refused: 0,
      timedOut: { queue: 0, handler: 0 },
      queueWaitMicros: NOTHING,
      runTimeMicros: NOTHING,
    });
    expect((await ask(`${url}/late`, { wait: 200 })).status).toBe(504);
    const free = gate();
    const held = [ask(url, { block: free.path })];
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    expect((await ask(`${url}/hasty`)).status).toBe(503);
    held.push(...(await queueUp(server, url, [{}, {}])));
    expect((await ask(url)).status).toBe(503);
    expect(mountOf(server, '/')).toMatchObject({
      accepted: 3,
      queued: 2,
      refused: 1,
      timedOut: { queue: 0, handler: 0 },
    });
    expect(mountOf(server, '/hasty')).toMatchObject({
      accepted: 1,
      queued: 0,
      refused: 0,
      timedOut: { queue: 1, handler: 0 },
    });
    expect(mountOf(server, '/late')).toMatchObject({ accepted: 1, timedOut: { queue: 0, handler: 1 } });
    expect(poolOf(server)).toMatchObject({ accepted: 5, refused: 1, timedOut: { queue: 1, handler: 1 } });
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 3 });
  });

  it('say in how many batches its requests went to the threads', MAY_GO_ELSEWHERE, async () => {
    const { server, url } = await serve(WORK, { ...one, batchMicros: 1_000_000 });
    await server.mount(HELLO, { path: '/hello' });
    for (let i = 1; i <= 3; i++) {
      expect((await ask(`${url}/hello`)).status).toBe(200);
      expect(poolOf(server)).toMatchObject({ accepted: i, batches: i });
    }
    const free = gate();
    const held = [ask(url, { block: free.path })];
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    held.push(...(await queueUp(server, `${url}/hello`, [{}, {}, {}, {}, {}])));
    expect(poolOf(server)).toMatchObject({ accepted: 9, batches: 4 });
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 6 });
    expect(poolOf(server).batches).toBe(5);
  });

  it('add up to those of the pool', async () => {
    const { server, url } = await serve(WORK, { nMin: 2, nMax: 2, queueSize: 4 });
    await server.mount(WORK, { path: '/a' });
    await server.mount(WORK, { path: '/b' });
    const replies: Reply[] = [];
    const client = async (path: string, burn: number): Promise<void> => {
      for (let i = 0; i < 25; i++) replies.push(await ask(url + path, { burn }));
    };
    const load = ['', '', '/a', '/a', '/a', '/b', '/b', '/b', '/b'].map((path, i) => client(path, i % 3));
    await Promise.all(load);
    await untilWhole(server, 2);
    const { mounts } = server.stats();
    const pool = poolOf(server);
    const sum = (of: (stats: MountStats) => number): number =>
      mounts.reduce((total, { work: its }) => total + of(its as MountStats), 0);
    expect(sum((its) => its.accepted)).toBe(pool.accepted);
    expect(sum((its) => its.refused)).toBe(pool.refused);
    expect(sum((its) => its.runTimeMicros.count)).toBe(pool.runTimeMicros.count);
    const counts = tally(replies);
    expect(pool.runTimeMicros.count).toBe(counts[200]);
    expect(pool.refused).toBe(counts[503] ?? 0);
    expect(server.stats().answers).toEqual(Object.fromEntries(Object.entries(counts)));
  });

  it('vanish with it', async () => {
    const { server, url } = await serve(WORK, one);
    await server.mount(WORK, { path: '/gone' });
    await server.mount(WORK, { path: '/host', virtualHost: 'a.test' });
    await ask(`${url}/gone`);
    const paths = (): string[] => server.stats().mounts.map(({ path }) => path);
    expect(paths()).toEqual(['/', '/gone', '/host']);
    expect(server.unmount({ path: '/gone' })).toBe(true);
    expect(paths()).toEqual(['/', '/host']);
    expect(server.unmount({ path: '/host', virtualHost: 'a.test' })).toBe(true);
    expect(paths()).toEqual(['/']);
    expectPlain(server.stats());
  });

  it('begin anew when something else is bound there, and what is in flight finishes', async () => {
    const { server, url } = await serve(WORK, one);
    await work(url);
    const free = gate();
    const held = ask(url, { hold: free.path });
    await until(() => poolOf(server).pending === 1, 'it is pending');
    await server.mount(HELLO, { path: '/' });
    expect(mountOf(server, '/')).toMatchObject({ accepted: 0, runTimeMicros: NOTHING });
    expect((await ask(url)).text).toBe('hello');
    free.open();
    expect((await held).status).toBe(200);
    expect(mountOf(server, '/').accepted).toBe(1);
    expect(poolOf(server)).toMatchObject({ accepted: 3, pending: 0, running: 0 });
  });

  it('say which one is to blame for a full queue when it is unmounted with requests waiting', async () => {
    const { server, url } = await serve(WORK, one);
    await server.mount(WORK, { path: '/gone' });
    const free = gate();
    const held = [ask(url, { block: free.path })];
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    held.push(...(await queueUp(server, `${url}/gone`, [{}, {}])));
    server.unmount({ path: '/gone' });
    expect(poolOf(server).queued).toBe(2);
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 3 });
    await untilWhole(server, 1);
  });
});

describe('the numbers of a shared pool', () => {
  it('are those of all its servers, and its mounts those of each', async () => {
    const workerPool = createWorkerPool(one);
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    const first = await serve(HELLO, { workerPool });
    const second = await serve(BYE, { workerPool });
    await ask(first.url);
    await ask(first.url);
    await ask(second.url);
    expect(workerPool.stats).toMatchObject({ accepted: 3 });
    expect(workerPool.stats.runTimeMicros.count).toBe(3);
    expect(mountOf(first.server, '/').accepted).toBe(2);
    expect(mountOf(second.server, '/').accepted).toBe(1);
    expectPlain(workerPool.stats);
  });

  it('keep nothing of servers that have stopped', async () => {
    const workerPool = createWorkerPool(one);
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    const first = await serve(HELLO, { workerPool });
    await ask(first.url);
    for (let i = 0; i < 5; i++) {
      const { server } = await serve(BYE, { workerPool });
      await server.stop();
    }
    // Nothing public tells how many mounts a pool still looks after.
    const { dispatcher } = workerPool as unknown as { dispatcher: { mounts: Set<unknown> } };
    expect(dispatcher.mounts.size).toBe(1);
  });
});
