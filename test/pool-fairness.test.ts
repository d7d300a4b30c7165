import { createWorkerPool } from 'offloop';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  ask,
  gate,
  log,
  poolOf,
  queueUp,
  type Reply,
  tally,
  untilQueued,
  WORK,
  warmUp,
  work,
} from './support/pool-client.js';
import { FakePool, type Given, type Sent } from './support/pool-fakes.js';
import { serve, type TestServer, until } from './support/server.js';

const CHEAP = 0;
const SLOW = 1;
const OTHER = 2;

/** `prefix1` to `prefixN`. */
const names = (n: number, prefix: string): string[] =>
  Array.from({ length: n }, (_, i) => `${prefix}${i + 1}`);

/** `n` workers, with a cheap target that costs 10 us and slow ones that cost 50 ms. */
function taught(n: number, limits: ConstructorParameters<typeof FakePool>[1] = {}): FakePool {
  const pool = new FakePool(n, { nMax: n, ...limits });
  pool.learn(CHEAP, 10);
  pool.learn(SLOW, 50_000);
  pool.learn(OTHER, 50_000);
  return pool;
}

const costOf = ({ target }: Given): number => (target === CHEAP ? 10 : 50_000);

/** Let the workers do what they are given, one batch after the other, until nothing is left. In which order they began. */
function serveAll(pool: FakePool): string[] {
  const order: string[] = [];
  for (;;) {
    const given = pool.workers.flatMap((fake) =>
      fake
        .batches()
        .flat()
        .map((one) => ({ fake, one })),
    );
    if (given.length === 0) return order;
    for (const { fake, one } of given) {
      if (!fake.start(one)) continue;
      order.push(one.name);
      fake.answer(one, costOf(one));
    }
    pool.dispatcher.pump();
  }
}

const count = (order: readonly string[], prefix: string): number =>
  order.filter((name) => name.startsWith(prefix)).length;

/** Numbers from 0 to 1, the same in each run. */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function fakeTime(): void {
  beforeEach(() => {
    vi.useFakeTimers({
      toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate', 'performance'],
    });
  });
  afterEach(() => {
    vi.useRealTimers();
  });
}

describe('whose turn it is', () => {
  fakeTime();

  it('is that of the cheap request, however many slow ones wait', () => {
    const pool = taught(1);
    pool.burst(SLOW, names(100, 'slow'));
    pool.burst(CHEAP, ['cheap']);
    const order = serveAll(pool);
    expect(order).toHaveLength(101);
    // One had begun.
    expect(order.indexOf('cheap')).toBe(1);
  });

  it('is that of each new cheap request, again and again', () => {
    const pool = taught(1);
    pool.burst(SLOW, names(30, 'slow'));
    const began: string[] = [];
    for (let i = 0; i < 20; i++) {
      pool.put(CHEAP, `cheap${i}`);
      const [given] = pool.at(0).batches().flat();
      if (given === undefined) throw new Error('nothing was given');
      pool.at(0).start(given);
      began.push(given.name);
      pool.at(0).answer(given, costOf(given));
      pool.dispatcher.pump();
    }
    began.push(...serveAll(pool));
    expect(began).toHaveLength(50);
    // Between a cheap request and the one after the next a slow one may have got the thread, never two.
    for (let i = 0; i + 2 < 40; i++) {
      const three = began.slice(i, i + 3);
      if (began.slice(i).some((name) => name.startsWith('cheap')))
        expect(count(three, 'slow')).toBeLessThanOrEqual(2);
    }
    expect(count(began.slice(0, 39), 'cheap')).toBe(20);
  });

  it('comes as often to each of two mounts that cost the same', () => {
    const pool = taught(1);
    pool.burst(SLOW, names(20, 'a'));
    pool.burst(OTHER, names(10, 'b'));
    const order = serveAll(pool);
    for (let n = 2; n <= 20; n += 2) expect(count(order.slice(1, n + 1), 'b')).toBe(n / 2);
    expect(order.filter((name) => name.startsWith('a'))).toEqual(names(20, 'a'));
    expect(order.filter((name) => name.startsWith('b'))).toEqual(names(10, 'b'));
  });

  it('comes by the time that each has had of the threads, not by the number of its requests', () => {
    const pool = new FakePool(1, { nMax: 1 });
    pool.learn(CHEAP, 5_000);
    pool.learn(SLOW, 50_000);
    pool.burst(SLOW, names(20, 'slow'));
    pool.burst(CHEAP, names(100, 'cheap'));
    const order: string[] = [];
    for (let given = pool.at(0).batches().flat(); given.length > 0; given = pool.at(0).batches().flat()) {
      for (const one of given) {
        pool.at(0).start(one);
        order.push(one.name);
        pool.at(0).answer(one, one.target === CHEAP ? 5_000 : 50_000);
      }
      pool.dispatcher.pump();
    }
    expect(order).toHaveLength(120);
    // For each slow one there are ten of the others, once both wait.
    for (let n = 1; n <= 9; n++) {
      const begun = count(order.slice(0, 11 * n), 'slow');
      expect(begun).toBeGreaterThanOrEqual(n - 1);
      expect(begun).toBeLessThanOrEqual(n + 1);
    }
  });

  it('is not saved up by a mount that had nothing to do', () => {
    const pool = taught(1);
    pool.burst(OTHER, ['b0']);
    serveAll(pool);
    pool.burst(SLOW, names(50, 'a'));
    const early: string[] = [];
    for (let i = 0; i < 30; i++) {
      const given = pool.at(0).batches().flat()[0] as Given;
      pool.at(0).start(given);
      early.push(given.name);
      pool.at(0).answer(given, 50_000);
      pool.dispatcher.pump();
    }
    expect(count(early, 'a')).toBe(30);
    // It has not had anything for a long time. That gives it no right to all of the next thirty.
    pool.burst(OTHER, names(30, 'b'));
    const order = serveAll(pool);
    expect(count(order.slice(0, 20), 'b')).toBeLessThanOrEqual(11);
    expect(count(order.slice(0, 20), 'b')).toBeGreaterThanOrEqual(9);
  });

  it('is shared by three of which two are slow', () => {
    const pool = taught(1);
    pool.burst(SLOW, names(40, 'a'));
    pool.burst(OTHER, names(40, 'b'));
    pool.burst(CHEAP, names(40, 'cheap'));
    const order = serveAll(pool);
    expect(order).toHaveLength(120);
    expect(order.lastIndexOf('cheap40')).toBeLessThan(44);
    expect(Math.abs(count(order.slice(0, 80), 'a') - count(order.slice(0, 80), 'b'))).toBeLessThanOrEqual(2);
  });

  it('is in the order they came within a mount that is alone', () => {
    const pool = taught(2);
    pool.burst(SLOW, names(9, 'a'));
    expect(serveAll(pool)).toEqual(names(9, 'a'));
    pool.burst(CHEAP, names(200, 'c'));
    expect(serveAll(pool)).toEqual(names(200, 'c'));
  });

  it('comes back to what was taken from a stuck thread, in order, before the rest of its mount', () => {
    const pool = taught(1);
    pool.burst(CHEAP, names(5, 'a'));
    pool.at(0).start(pool.at(0).batches().flat()[0] as Given);
    vi.advanceTimersByTime(10);
    pool.burst(CHEAP, names(3, 'b'));
    pool.burst(SLOW, ['slow']);
    pool.addWorker();
    pool.dispatcher.pump();
    const order = serveAll(pool);
    expect(order.filter((name) => name !== 'slow')).toEqual(['a2', 'a3', 'a4', 'a5', 'b1', 'b2', 'b3']);
  });
});

describe('a queue that is full', () => {
  fakeTime();

  /** One thread at work and a queue full of slow requests. */
  function full(queueSize: number): { pool: FakePool; slow: Sent[] } {
    const pool = taught(1, { queueSize });
    const slow = pool.burst(SLOW, names(queueSize + 1, 'slow'));
    return { pool, slow };
  }

  it('takes a cheap request in place of the newest slow one, which is refused', () => {
    const { pool, slow } = full(4);
    expect(slow.map((one) => one.refused)).toEqual([false, false, false, false, false]);
    const cheap = pool.put(CHEAP, 'cheap');
    expect(cheap.refused).toBe(false);
    expect(pool.dispatcher.queued + pool.dispatcher.running).toBe(5);
    vi.advanceTimersByTime(1);
    expect(slow.map((one) => one.invocation.refusals.length)).toEqual([0, 0, 0, 0, 1]);
    expect(slow[4]?.invocation.refusals[0]).toMatchObject({ reason: 'overloaded' });
    expect(slow[4]?.invocation.refusals[0]?.retryAfter).toBeGreaterThanOrEqual(1);
    expect(serveAll(pool)).toEqual(['slow1', 'cheap', 'slow2', 'slow3', 'slow4']);
    expect(slow[4]?.invocation.settled).toBe(1);
    expect(pool.mount(SLOW).stats).toMatchObject({ refused: 1, queued: 0 });
    expect(pool.mount(CHEAP).stats).toMatchObject({ refused: 0, queued: 0 });
    expect(pool.dispatcher.refused).toBe(1);
  });

  it('does not refuse it while the engine is in the middle of the other request', () => {
    const { pool, slow } = full(4);
    pool.put(CHEAP, 'cheap');
    expect(slow[4]?.invocation.settled).toBe(0);
    vi.advanceTimersByTime(1);
    expect(slow[4]?.invocation.settled).toBe(1);
  });

  it('takes no more from the greedy mount than makes them equal', () => {
    const { pool, slow } = full(6);
    const cheap = names(6, 'cheap').map((name) => pool.put(CHEAP, name));
    expect(cheap.map((one) => one.refused)).toEqual([false, false, false, true, true, true]);
    vi.advanceTimersByTime(1);
    expect(slow.map((one) => one.invocation.refusals.length)).toEqual([0, 0, 0, 0, 1, 1, 1]);
    expect(pool.dispatcher.queued + pool.dispatcher.running).toBe(7);
  });

  it('does not take anything from the others for the mount that fills it', () => {
    const { pool } = full(6);
    pool.put(CHEAP, 'cheap1');
    pool.put(CHEAP, 'cheap2');
    for (let i = 0; i < 10; i++) expect(pool.put(SLOW).refused).toBe(true);
    vi.advanceTimersByTime(1);
    expect(pool.mount(CHEAP).stats).toMatchObject({ queued: 2, refused: 0 });
  });

  it('takes the place from the mount that has most of it', () => {
    const pool = taught(1, { queueSize: 9 });
    pool.burst(SLOW, names(7, 'slow'));
    pool.burst(OTHER, names(3, 'other'));
    expect(pool.put(SLOW).refused).toBe(true);
    expect(pool.put(CHEAP, 'cheap').refused).toBe(false);
    vi.advanceTimersByTime(1);
    expect([SLOW, OTHER, CHEAP].map((target) => pool.mount(target).stats.queued)).toEqual([5, 3, 1]);
    expect(pool.put(OTHER).refused).toBe(false);
    expect(pool.put(OTHER).refused).toBe(true);
    expect([SLOW, OTHER, CHEAP].map((target) => pool.mount(target).stats.queued)).toEqual([4, 4, 1]);
  });

  it('has nobody to take from when nothing may wait', () => {
    const pool = taught(2, { queueSize: 0 });
    pool.burst(SLOW, names(2, 'slow'));
    expect(pool.put(CHEAP).refused).toBe(true);
    expect(pool.put(CHEAP).refused).toBe(true);
    vi.advanceTimersByTime(1);
    expect(pool.mount(SLOW).stats.refused).toBe(0);
  });

  it('refuses the newest of a mount that is alone', () => {
    const { pool, slow } = full(3);
    for (let i = 0; i < 5; i++) expect(pool.put(SLOW).refused).toBe(true);
    vi.advanceTimersByTime(1);
    expect(slow.map((one) => one.invocation.settled)).toEqual([0, 0, 0, 0]);
  });

  it('does not answer a client twice that leaves in the moment it is refused', () => {
    const { pool, slow } = full(4);
    pool.put(CHEAP, 'cheap');
    slow[4]?.cancel();
    vi.advanceTimersByTime(1);
    expect(slow[4]?.invocation.settled).toBeLessThanOrEqual(1);
    expect(pool.dispatcher.queued + pool.dispatcher.running).toBe(5);
    serveAll(pool);
    expect(pool.dispatcher.queued + pool.dispatcher.running).toBe(0);
  });

  it('tells those it gave up that the pool is closed, when it is by then', async () => {
    const { pool, slow } = full(2);
    pool.put(CHEAP, 'cheap');
    pool.dispatcher.closed = true;
    vi.advanceTimersByTime(1);
    expect(slow[2]?.invocation.settled).toBe(1);
    serveAll(pool);
    await pool.dispatcher.whenDrained();
  });
});

describe('threads kept for cheap work', () => {
  fakeTime();

  /** How many slow requests are at work. */
  const slowAtWork = (pool: FakePool): number =>
    pool.workers.filter((fake) => fake.worker.given === 1 && fake.worker.cost > 10_000).length;

  it.each([
    [1, 1],
    [2, 2],
    [3, 3],
    [4, 3],
    [7, 6],
    [8, 6],
    [16, 12],
  ])('of %i leave slow work %i while cheap work is about', (nMax, most) => {
    const pool = taught(nMax);
    pool.learn(CHEAP, 10);
    pool.burst(SLOW, names(2 * nMax, 'slow'));
    expect(slowAtWork(pool)).toBe(most);
    expect(pool.dispatcher.queued).toBe(2 * nMax - most);
    // The others are there for cheap work, and stay there.
    if (most === nMax) return;
    for (let i = 0; i < 20; i++) {
      pool.send(CHEAP, `cheap${i}`);
      const taker = pool.workers.find((fake) => fake.worker.given > 0 && fake.worker.cost < 10_000);
      expect(taker?.finish()).toEqual([`cheap${i}`]);
      pool.dispatcher.pump();
      expect(slowAtWork(pool)).toBe(most);
    }
  });

  it('are all for slow work when there has been none for a second, without anybody asking', () => {
    const pool = taught(4);
    pool.learn(CHEAP, 10);
    pool.burst(SLOW, names(10, 'slow'));
    expect(slowAtWork(pool)).toBe(3);
    vi.advanceTimersByTime(900);
    expect(slowAtWork(pool)).toBe(3);
    vi.advanceTimersByTime(200);
    expect(slowAtWork(pool)).toBe(4);
  });

  it('are given back one by one when cheap work comes again', () => {
    const pool = taught(4);
    vi.advanceTimersByTime(1500);
    pool.burst(SLOW, names(20, 'slow'));
    expect(slowAtWork(pool)).toBe(4);
    pool.burst(CHEAP, ['cheap']);
    expect(pool.dispatcher.queued).toBe(17);
    const [first] = pool.at(2).batches().flat();
    pool.at(2).start(first as Given);
    pool.at(2).answer(first as Given, 50_000);
    pool.dispatcher.pump();
    expect(pool.at(2).finish()).toEqual(['cheap']);
    pool.dispatcher.pump();
    expect(slowAtWork(pool)).toBe(3);
  });

  it('count a slow request no longer that waits for its promise, or whose thread has died', () => {
    const pool = taught(4);
    pool.learn(CHEAP, 10);
    pool.burst(SLOW, names(6, 'slow'));
    const [a, b, c] = pool.workers.filter((fake) => fake.worker.given > 0) as FakePool['workers'];
    if (a === undefined || b === undefined || c === undefined) throw new Error('three should be at work');
    const [inA] = a.batches().flat() as [Given];
    a.start(inA);
    a.pending(inA);
    pool.dispatcher.pump();
    expect([slowAtWork(pool), pool.dispatcher.queued]).toEqual([3, 2]);
    b.start(b.batches().flat()[0] as Given);
    pool.ready.splice(pool.ready.indexOf(b.worker), 1);
    pool.dispatcher.lost(b.worker, new Error('gone'));
    expect([slowAtWork(pool), pool.dispatcher.queued]).toEqual([3, 1]);
    // Not begun, so it goes back into the queue, and from there to another one.
    pool.addWorker();
    pool.ready.splice(pool.ready.indexOf(c.worker), 1);
    pool.dispatcher.lost(c.worker, new Error('gone'));
    expect([slowAtWork(pool), pool.dispatcher.queued]).toEqual([3, 1]);
  });

  it('count a slow request no longer that was taken from a stuck thread', () => {
    const pool = taught(4, { batchMicros: 500_000 });
    pool.learn(CHEAP, 10);
    pool.burst(SLOW, names(3, 'slow'));
    const [first, ...rest] = pool.at(0).batches().flat() as [Given, ...Given[]];
    expect(rest).toHaveLength(2);
    pool.at(0).start(first);
    vi.advanceTimersByTime(10);
    const others = pool.workers.slice(1).flatMap((fake) => fake.names());
    expect(new Set(others)).toEqual(new Set(['slow2', 'slow3']));
    pool.burst(OTHER, names(3, 'other'));
    expect(pool.dispatcher.queued).toBe(3);
    pool.at(0).answer(first, 50_000);
    pool.dispatcher.pump();
    expect(pool.dispatcher.queued).toBe(2);
  });
});

describe('whatever happens', () => {
  fakeTime();

  it.each([1, 2, 3, 4, 5, 6])(
    'the bound holds, everything is settled once, and the books are right (%i)',
    (seed) => {
      const random = dice(seed);
      const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;
      const nMax = 4;
      const queueSize = 20;
      const pool = new FakePool(nMax, { nMax, queueSize, concurrency: 8 });
      const sent: Sent[] = [];
      const left = new Set<Sent>();
      const held: { fake: FakePool['workers'][0]; given: Given }[] = [];
      let dead = 0;
      const costs = [10, 50_000, 300, 15_000];
      for (let step = 0; step < 1500; step++) {
        const dies = random();
        if (dies < 0.45) {
          sent.push(pool.put(Math.floor(random() * 4)));
        } else if (dies < 0.5) {
          const one = pick(sent);
          if (one !== undefined) {
            one.cancel();
            left.add(one);
          }
        } else if (dies < 0.52 && dead < 30) {
          const fake = pool.workers.find(({ worker }) => pool.ready.includes(worker));
          if (fake !== undefined) {
            dead++;
            pool.ready.splice(pool.ready.indexOf(fake.worker), 1);
            pool.dispatcher.lost(fake.worker, new Error('gone'));
            pool.addWorker();
          }
        } else if (dies < 0.6) {
          vi.advanceTimersByTime(Math.floor(random() * 8));
        } else {
          for (const fake of pool.workers)
            for (const given of fake.batches().flat()) held.push({ fake, given });
          const next = held.shift();
          // Threads run what they have in order; one that died runs nothing.
          if (next !== undefined && pool.ready.includes(next.fake.worker) && next.fake.start(next.given)) {
            if (random() < 0.2) {
              next.fake.pending(next.given, costs[next.given.target]);
              const { fake, given } = next;
              setTimeout(() => {
                if (pool.ready.includes(fake.worker)) fake.answer(given, 10);
              }, random() * 50);
            } else {
              next.fake.answer(next.given, costs[next.given.target]);
            }
          }
        }
        const { queued, running } = pool.dispatcher;
        expect(queued + running).toBeLessThanOrEqual(nMax + queueSize);
        expect(queued).toBe([0, 1, 2, 3].reduce((sum, target) => sum + pool.mount(target).stats.queued, 0));
        for (const fake of pool.workers) expect(fake.worker.given).toBeGreaterThanOrEqual(0);
      }
      for (let round = 0; round < 2000 && pool.dispatcher.queued + pool.dispatcher.running > 0; round++) {
        for (const fake of pool.workers)
          for (const given of fake.batches().flat()) held.push({ fake, given });
        for (const { fake, given } of held.splice(0))
          if (pool.ready.includes(fake.worker) && fake.start(given)) fake.answer(given, costs[given.target]);
        vi.advanceTimersByTime(5);
      }
      vi.advanceTimersByTime(200);
      const { queued, running, waiting } = pool.dispatcher;
      expect({ queued, running, waiting }).toEqual({ queued: 0, running: 0, waiting: 0 });
      for (const one of sent) {
        if (left.has(one)) expect(one.invocation.settled).toBeLessThanOrEqual(1);
        else expect(one.invocation.settled).toBe(1);
      }
      // No slow request is on the books: without cheap work about they get all the threads, with it all but one.
      vi.advanceTimersByTime(5000);
      pool.burst(SLOW, names(8, 'last'));
      expect(pool.dispatcher.running).toBe(4);
    },
  );
});

// ---------------------------------------------------------------------------------------------------- real threads

describe('a mount that is flooded', () => {
  /**
   * Rounds in which requests of 25 ms wait for threads that are all busy, and then a cheap one comes. Returns how many of the others had begun
   * before the cheap one, in each round.
   */
  async function overtaken(
    slow: TestServer,
    path: string,
    cheap: TestServer,
    threads: number,
  ): Promise<number[]> {
    const file = log();
    const flooded = slow.url + path;
    await warmUp(cheap.url, 100, threads);
    await work(flooded, { burn: 25 });
    const begun: number[] = [];
    for (let round = 0; round < 10; round++) {
      const free = gate();
      const replies = Array.from({ length: threads }, () => ask(flooded, { block: free.path }));
      await until(() => poolOf(slow.server).running === threads, 'all threads are busy');
      const query = { burn: 25, id: 'slow', log: file.path };
      replies.push(...Array.from({ length: 12 }, () => ask(flooded, query)));
      await untilQueued(slow.server, 12);
      replies.push(ask(cheap.url, { id: `cheap${round}`, log: file.path }));
      await untilQueued(slow.server, 13);
      free.open();
      expect(tally(await Promise.all(replies))).toEqual({ 200: threads + 13 });
      begun.push(file.lines().slice(-13).indexOf(`cheap${round}`));
    }
    return begun;
  }

  it('does not hold up another one of the same pool', async () => {
    const test = await serve(WORK, { nMin: 2, nMax: 2, queueSize: 1000 });
    await test.server.mount(WORK, { path: '/slow' });
    // Those that get a thread first, and perhaps one more for each.
    for (const begun of await overtaken(test, '/slow', test, 2)) {
      expect(begun).toBeGreaterThanOrEqual(0);
      expect(begun).toBeLessThanOrEqual(4);
    }
  });

  it('does not hold up another server with the same pool', async () => {
    const workerPool = createWorkerPool({ nMin: 1, nMax: 1, queueSize: 1000 });
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    const slow = await serve(WORK, { workerPool });
    const cheap = await serve(WORK, { workerPool });
    for (const begun of await overtaken(slow, '/', cheap, 1)) {
      expect(begun).toBeGreaterThanOrEqual(0);
      expect(begun).toBeLessThanOrEqual(3);
    }
  });

  it('does not take the whole queue: a cheap request is taken, and the newest slow one is answered 503', async () => {
    const { url, server, events } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 5 });
    await server.mount(WORK, { path: '/slow' });
    await warmUp(url, 50);
    const free = gate();
    const running = ask(`${url}/slow`, { block: free.path });
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    const slow = await queueUp(
      server,
      `${url}/slow`,
      names(5, 'slow').map((id) => ({ id })),
    );
    expect((await ask(`${url}/slow`)).status).toBe(503);
    const cheap: Promise<Reply>[] = [ask(url), ask(url)];
    const refused = await Promise.all(slow.slice(3));
    expect(refused.map((reply) => reply.status)).toEqual([503, 503]);
    for (const { text, headers } of refused) {
      expect(text).toBe('Server unavailable, please try again');
      expect(headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
      expect(headers.get('connection')).not.toBe('close');
    }
    expect(poolOf(server)).toMatchObject({ running: 1, queued: 5, refused: 3 });
    expect(server.stats().mounts.map(({ path, work }) => [path, work?.queued, work?.refused])).toEqual([
      ['/', 2, 0],
      ['/slow', 3, 3],
    ]);
    // Both have their share by now.
    const third = ask(url);
    const fourth = ask(url);
    expect(tally(await Promise.all([third, fourth]))).toEqual({ 503: 2 });
    free.open();
    expect(tally(await Promise.all([running, ...slow.slice(0, 3), ...cheap]))).toEqual({ 200: 6 });
    expect(events.filter((name) => name === 'httpkit.server.status.503')).toHaveLength(5);
  });

  it('is served in the order its requests came when it is alone', async () => {
    const { path, lines } = log();
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 1 });
    await warmUp(url, 50);
    const free = gate();
    const running = ask(url, { block: free.path });
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    const ids = names(30, '');
    const waiting = await queueUp(
      server,
      url,
      ids.map((id) => ({ id, log: path, ...(Number(id) % 7 === 0 ? { burn: 3 } : {}) })),
    );
    await untilQueued(server, 30);
    free.open();
    expect(tally(await Promise.all([running, ...waiting]))).toEqual({ 200: 31 });
    expect(lines()).toEqual(ids);
  });

  it('gets all threads of the pool when nothing else is about', async () => {
    const { url, server } = await serve(WORK, { nMin: 4, nMax: 4 });
    await server.mount(WORK, { path: '/slow' });
    await warmUp(url, 50);
    await work(`${url}/slow`, { burn: 25 });
    const free = gate();
    const slow = Array.from({ length: 8 }, () => ask(`${url}/slow`, { block: free.path }));
    await until(() => poolOf(server).running === 4, 'all four are at work');
    expect(poolOf(server).queued).toBe(4);
    free.open();
    expect(tally(await Promise.all(slow))).toEqual({ 200: 8 });
  });
});
