import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { MessagePort } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { OffloopError, toErrorRecord } from '../src/errors.js';
import { Ticket } from '../src/pool/ticket.js';
import { Worker } from '../src/pool/worker.js';
import { BOARD_CLAIM } from '../src/protocol.js';
import { FakeInvocation, FakePool, type Given } from './support/pool-fakes.js';

const CHEAP = 0;
const SLOW = 1;

/** `prefix1` to `prefixN`. */
const names = (n: number, prefix = 'r'): string[] => Array.from({ length: n }, (_, i) => `${prefix}${i + 1}`);

function first(batches: Given[][]): Given {
  const given = batches[0]?.[0];
  if (given === undefined) throw new Error('nothing was given');
  return given;
}

/** `n` workers, with a cheap target that costs 10 us and a slow one that costs 50 ms. */
function taught(n: number, limits?: ConstructorParameters<typeof FakePool>[1]): FakePool {
  const pool = new FakePool(n, limits);
  pool.learn(CHEAP, 10);
  pool.learn(SLOW, 50_000);
  return pool;
}

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate', 'performance'],
  });
});
afterEach(() => {
  vi.useRealTimers();
});

describe('batches', () => {
  it('give all cheap requests of one turn to one worker in one message', () => {
    const pool = taught(2);
    pool.burst(CHEAP, names(20));
    expect(
      pool
        .at(0)
        .batches()
        .map((batch) => batch.map((given) => given.name)),
    ).toEqual([names(20)]);
    expect(pool.at(1).batches()).toEqual([]);
  });

  it('go out at the end of the turn, not at the first request', () => {
    const pool = taught(1);
    pool.put(CHEAP, 'a');
    pool.put(CHEAP, 'b');
    expect(pool.at(0).batches()).toEqual([]);
    vi.advanceTimersToNextTimer();
    expect(pool.at(0).batches()).toHaveLength(1);
  });

  it('are worth at most a millisecond of expected work', () => {
    const pool = new FakePool(2);
    pool.learn(CHEAP, 300);
    pool.burst(CHEAP, names(7));
    expect(pool.at(0).names()).toHaveLength(3);
    expect(pool.at(1).names()).toHaveLength(3);
    expect(pool.dispatcher.queued).toBe(1);
  });

  it('let a request of a target never seen travel alone', () => {
    const pool = taught(3);
    pool.burst(2, names(3));
    for (const fake of pool.workers) expect(fake.names()).toHaveLength(1);
  });

  it('never put a cheap request behind one of a target never seen', () => {
    const pool = taught(2);
    pool.put(2, 'unknown');
    pool.put(CHEAP, 'cheap');
    pool.dispatcher.pump();
    expect(pool.workers.map((fake) => fake.names())).toEqual([['unknown'], ['cheap']]);
  });

  it('spread expensive work over all free workers at once', () => {
    const pool = taught(3);
    pool.burst(SLOW, names(5));
    expect(pool.workers.map((fake) => fake.names())).toEqual([['r1'], ['r2'], ['r3']]);
    expect(pool.dispatcher.queued).toBe(2);
  });

  it('share what is waiting out over the ready workers when its target is async', () => {
    const pool = taught(3);
    pool.learnAsync(CHEAP);
    pool.burst(CHEAP, names(8));
    const given = pool.workers.map((fake) => fake.names());
    expect(given.map((one) => one.length)).toEqual([3, 3, 2]);
    expect(given.flat().sort()).toEqual(names(8));
    expect(given[0]).toEqual(['r1', 'r2', 'r3']);
  });

  it('go to one worker again when an async target has long been answering at once', () => {
    const pool = taught(2);
    pool.learnAsync(CHEAP);
    for (let i = 0; i < 64; i++) pool.learn(CHEAP, 10);
    pool.burst(CHEAP, names(8));
    expect(pool.workers.map((fake) => fake.names())).toEqual([names(8), []]);
  });

  it('fill the worker that is awake before a second one is woken', () => {
    const pool = taught(2);
    pool.send(CHEAP, 'a');
    pool.send(CHEAP, 'b');
    pool.send(CHEAP, 'c');
    expect(pool.at(0).names()).toEqual(['a', 'b', 'c']);
    expect(pool.at(1).names()).toEqual([]);
  });

  it('leave a worker alone that has not been heard of for a while', () => {
    const pool = taught(2);
    pool.send(CHEAP, 'a');
    vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 50);
    pool.send(CHEAP, 'b');
    expect(pool.workers.map((fake) => fake.names())).toEqual([['a'], ['b']]);
    vi.restoreAllMocks();
  });

  it('remember the worst a target has done lately, and forget it in time', () => {
    const pool = new FakePool(1);
    for (let i = 0; i < 5; i++) pool.learn(CHEAP, 10);
    pool.learn(CHEAP, 50_000);
    pool.burst(CHEAP, names(2));
    expect(pool.at(0).finish()).toEqual(['r1']); // alone, after the surprise
    pool.dispatcher.pump();
    pool.at(0).finish();
    for (let i = 0; i < 60; i++) pool.learn(CHEAP, 10);
    pool.burst(CHEAP, names(10));
    expect(pool.at(0).batches()).toHaveLength(1);
  });

  it('hold no more than the worker has room for pending promises', () => {
    const pool = taught(1, { nMax: 1, queueSize: 100, concurrency: 4 });
    pool.burst(CHEAP, names(10));
    expect(pool.at(0).names()).toHaveLength(4);
    expect(pool.dispatcher.queued).toBe(6);
  });
});

describe('the worker for the next request', () => {
  it('is the one with the fewest pending promises', () => {
    const pool = taught(2);
    pool.send(CHEAP, 'a');
    pool.at(0).pending(first(pool.at(0).batches()));
    pool.send(CHEAP, 'b');
    expect(pool.at(1).names()).toEqual(['b']);
    expect(pool.at(0).names()).toEqual([]);
  });

  it('is none while all are full of pending promises, and the first to have one settle', () => {
    const pool = taught(1, { nMax: 1, queueSize: 10, concurrency: 2 });
    pool.burst(CHEAP, ['a', 'b', 'c']);
    const given = pool.at(0).batches().flat();
    for (const one of given) pool.at(0).pending(one);
    expect(given).toHaveLength(2);
    pool.dispatcher.pump();
    expect(pool.at(0).names()).toEqual([]);
    pool.at(0).answer(given[0] as Given);
    vi.advanceTimersToNextTimer();
    expect(pool.at(0).names()).toEqual(['c']);
  });

  it('is a new one when no other is free: the pool grows by as many as wait, before anything waits long', () => {
    const pool = taught(1, { nMax: 3, queueSize: 10, concurrency: 64 });
    pool.canGrow = true;
    pool.burst(SLOW, names(2));
    expect(pool.grown).toBe(1);
    pool.send(SLOW);
    pool.send(SLOW);
    expect(pool.grown).toBe(2);
  });
});

describe('the worker for the next request of an async target', () => {
  it('is the one with the fewest pending promises and requests on its lane', () => {
    const pool = taught(3);
    pool.learnAsync(CHEAP);
    pool.send(CHEAP, 'a');
    pool.send(CHEAP, 'b');
    pool.at(0).pending(first(pool.at(0).batches()));
    pool.send(CHEAP, 'c');
    expect(pool.workers.map((fake) => fake.names())).toEqual([[], ['b'], ['c']]);
  });
});

describe('the bound', () => {
  it('is nMax running and queueSize waiting, whatever the workers are doing', () => {
    const pool = taught(2, { nMax: 2, queueSize: 3, concurrency: 64 });
    const sent = Array.from({ length: 10 }, () => pool.put(SLOW));
    expect(sent.map((one) => one.refused)).toEqual([
      ...Array<boolean>(5).fill(false),
      ...Array<boolean>(5).fill(true),
    ]);
    pool.dispatcher.pump();
    expect(pool.put(SLOW).refused).toBe(true);
    expect(pool.dispatcher.refused).toBe(6);
  });

  it('counts threads that may exist and do not yet', () => {
    const pool = new FakePool(0, { nMax: 3, queueSize: 0, concurrency: 64 });
    expect(Array.from({ length: 5 }, () => pool.put(SLOW).refused)).toEqual([
      false,
      false,
      false,
      true,
      true,
    ]);
  });

  it('counts a batch by its requests', () => {
    const pool = taught(1, { nMax: 1, queueSize: 5, concurrency: 64 });
    const sent = pool.burst(CHEAP, names(8));
    expect(sent.filter((one) => one.refused)).toHaveLength(2);
    expect(pool.send(CHEAP).refused).toBe(true);
    const batch = pool.at(0).batches().flat();
    pool.at(0).answer(batch[0] as Given);
    expect(pool.send(CHEAP).refused).toBe(false);
    expect(pool.send(CHEAP).refused).toBe(true);
  });

  it('does not count a pending promise, but a thread that is full of them', () => {
    const pool = taught(1, { nMax: 1, queueSize: 1, concurrency: 2 });
    pool.send(CHEAP, 'a');
    pool.at(0).pending(first(pool.at(0).batches()));
    pool.send(CHEAP, 'b');
    pool.at(0).pending(first(pool.at(0).batches()));
    // The one thread is full of promises: what is left is the place in the queue.
    expect(pool.send(CHEAP, 'c').refused).toBe(false);
    expect(pool.send(CHEAP, 'd').refused).toBe(true);
  });

  it('frees the place of a waiting client that leaves at once', () => {
    const pool = taught(1, { nMax: 1, queueSize: 1, concurrency: 64 });
    pool.send(SLOW, 'runs');
    const waits = pool.send(SLOW, 'waits');
    expect(pool.send(SLOW).refused).toBe(true);
    waits.cancel();
    expect(pool.dispatcher.queued).toBe(0);
    expect(pool.send(SLOW, 'next').refused).toBe(false);
    pool.at(0).finish();
    pool.dispatcher.pump();
    expect(pool.at(0).names()).toEqual(['next']);
    expect(waits.invocation.settled).toBe(0);
  });

  it('refuses everything once the pool is closed, without calling that an overload', () => {
    const pool = taught(1);
    pool.dispatcher.closed = true;
    expect(pool.put(CHEAP).refused).toBe(true);
    expect(pool.logged).toEqual([]);
  });
});

describe('Retry-After', () => {
  it('is a whole number of at least one second', () => {
    const pool = new FakePool(1);
    expect(pool.dispatcher.retryAfter()).toBe(1);
    pool.learn(CHEAP, 3);
    expect(pool.dispatcher.retryAfter()).toBe(1);
  });

  it('grows with what waits and with what it costs, and shrinks with the threads', () => {
    const retryAfter = (nMax: number, waiting: number): number => {
      const pool = new FakePool(nMax, { nMax, queueSize: 1000, concurrency: 64 });
      for (let i = 0; i < 100; i++) pool.learn(SLOW, 500_000);
      pool.burst(SLOW, names(waiting));
      return pool.dispatcher.retryAfter();
    };
    expect(Number.isInteger(retryAfter(1, 10))).toBe(true);
    expect(retryAfter(1, 10)).toBeGreaterThan(3);
    expect(retryAfter(1, 40)).toBeGreaterThan(retryAfter(1, 10));
    expect(retryAfter(4, 40)).toBeLessThan(retryAfter(1, 40));
  });
});

describe('an overload', () => {
  const overloaded = (): FakePool => {
    const pool = taught(1, { nMax: 1, queueSize: 0, concurrency: 64 });
    pool.send(SLOW);
    return pool;
  };

  it('is logged once when it begins and once when it is over, with how many were refused', () => {
    const pool = overloaded();
    for (let i = 0; i < 50; i++) pool.put(SLOW);
    vi.advanceTimersByTime(600);
    for (let i = 0; i < 50; i++) pool.put(SLOW);
    expect(pool.logged.map((line) => line.message)).toEqual(['failed to submit task to executor service']);
    expect(pool.logged[0]?.error).toMatchObject({ code: 'OFFLOOP_OVERLOADED' });
    vi.advanceTimersByTime(5000);
    expect(pool.logged).toHaveLength(2);
    expect(pool.logged[1]?.message).toContain('100 refused');
    expect(pool.logged[1]?.error).toBeUndefined();
  });

  it('is logged again when another one begins later', () => {
    const pool = overloaded();
    pool.put(SLOW);
    vi.advanceTimersByTime(5000);
    pool.put(SLOW);
    vi.advanceTimersByTime(5000);
    expect(pool.logged.map((line) => line.message.includes('over,'))).toEqual([false, true, false, true]);
  });

  it('ends as often as it begins, even when the I/O thread was too busy to notice the end in time', () => {
    const pool = overloaded();
    const now = vi.spyOn(performance, 'now');
    const began = performance.now();
    pool.put(SLOW);
    // The loop was held up for longer than the gap: the next refusal comes before the timer.
    now.mockReturnValue(began + 1500);
    pool.put(SLOW);
    now.mockRestore();
    vi.advanceTimersByTime(10_000);
    const ends = pool.logged.filter((line) => line.message.startsWith('overload is over')).length;
    expect(ends).toBe(pool.logged.length - ends);
  });
});

describe('a worker that is stuck', () => {
  /** A worker with a batch of five cheap requests, of which it has started the first and does not come back. */
  function stuck(workers: number): { pool: FakePool; started: Given; rest: Given[] } {
    const pool = taught(workers);
    pool.burst(CHEAP, names(5));
    const [started, ...rest] = pool.at(0).batches().flat();
    pool.at(0).start(started as Given);
    return { pool, started: started as Given, rest };
  }

  it('loses what it has not started to a worker that is free, in order', () => {
    const { pool, rest } = stuck(2);
    vi.advanceTimersByTime(5);
    expect(pool.at(1).names()).toEqual(['r2', 'r3', 'r4', 'r5']);
    expect(rest.map((given) => pool.at(0).start(given))).toEqual([false, false, false, false]);
    expect(pool.at(0).worker.given).toBe(1);
  });

  it('loses it to the queue when nobody is free, ahead of what came later', () => {
    const { pool } = stuck(1);
    pool.put(CHEAP, 'late');
    vi.advanceTimersByTime(10);
    expect(pool.dispatcher.queued).toBe(5);
    pool.addWorker();
    pool.dispatcher.pump();
    expect(pool.at(1).names()).toEqual(['r2', 'r3', 'r4', 'r5', 'late']);
  });

  it('makes the pool grow when nobody is free', () => {
    const { pool } = stuck(1);
    pool.canGrow = true;
    vi.advanceTimersByTime(10);
    expect(pool.grown).toBeGreaterThan(0);
  });

  it('keeps what it has started, and its answer counts when it comes after all', () => {
    const { pool, started } = stuck(2);
    vi.advanceTimersByTime(10);
    pool.at(1).finish();
    pool.at(0).answer(started);
    expect(pool.dispatcher.running).toBe(0);
    expect(pool.at(0).worker.idle).toBe(true);
    expect(pool.at(1).worker.idle).toBe(true);
  });

  it('never has a request answered twice, whoever wins the race for it', () => {
    const pool = taught(2);
    const sent = pool.burst(CHEAP, names(5));
    const batch = pool.at(0).batches().flat();
    for (const given of batch.slice(0, 3)) pool.at(0).start(given);
    vi.advanceTimersByTime(10); // r4 and r5 go to the other worker
    for (const given of batch) pool.at(0).answer(given); // it claims to have run all five
    expect(pool.at(1).finish()).toEqual(['r4', 'r5']);
    expect(sent.map((one) => one.invocation.settled)).toEqual([1, 1, 1, 1, 1]);
  });

  it('is not given more until it is heard of again', () => {
    const { pool, started } = stuck(1);
    vi.advanceTimersByTime(10);
    expect(pool.at(0).batches()).toEqual([]);
    pool.at(0).answer(started);
    vi.advanceTimersByTime(1);
    expect(pool.at(0).names()).toEqual(['r2', 'r3', 'r4', 'r5']);
  });

  it('is looked at by one timer, however often something is taken back', () => {
    const pool = taught(4);
    for (let round = 0; round < 100; round++) {
      for (const fake of pool.workers) {
        for (const given of fake.batches().flat()) if (fake.start(given)) fake.answer(given);
      }
      pool.burst(CHEAP, names(10, `round${round}-`));
      for (const fake of pool.workers) {
        const given = fake.batches().flat()[0];
        if (given !== undefined) fake.start(given);
      }
      vi.advanceTimersByTime(6);
    }
    expect(vi.getTimerCount()).toBeLessThanOrEqual(2);
  });

  it('leaves no timer behind when all is answered', () => {
    const { pool, started } = stuck(2);
    vi.advanceTimersByTime(10);
    pool.at(1).finish();
    pool.at(0).answer(started);
    vi.advanceTimersByTime(100);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('has delivered what it finished while its next handler still runs', () => {
    const pool = taught(1);
    const sent = pool.burst(CHEAP, ['done', 'runs']);
    const [done, runs] = pool.at(0).batches().flat() as [Given, Given];
    pool.at(0).start(done);
    pool.at(0).write(done);
    pool.at(0).start(runs);
    expect(sent.map((one) => one.invocation.settled)).toEqual([0, 0]);
    vi.advanceTimersByTime(10);
    expect(sent.map((one) => one.invocation.answers.map((answer) => answer.payload))).toEqual([['done'], []]);
    expect(sent.map((one) => one.invocation.failures)).toEqual([[], []]);
    expect(pool.dispatcher.running).toBe(1);
    // It comes back and says so at last.
    pool.at(0).answer(runs);
    expect(sent.map((one) => one.invocation.settled)).toEqual([1, 1]);
    expect(pool.dispatcher.running).toBe(0);
  });

  it('has delivered what it finished, loses what it has not started, and keeps what runs', () => {
    const pool = taught(2);
    const sent = pool.burst(CHEAP, names(5));
    const [r1, r2, r3] = pool.at(0).batches().flat() as [Given, Given, Given];
    for (const given of [r1, r2]) {
      pool.at(0).start(given);
      pool.at(0).write(given);
    }
    pool.at(0).start(r3);
    vi.advanceTimersByTime(10);
    expect(sent.map((one) => one.invocation.answers.length)).toEqual([1, 1, 0, 0, 0]);
    expect(pool.at(1).finish()).toEqual(['r4', 'r5']);
    expect(pool.dispatcher.running).toBe(1);
    expect(
      pool
        .at(0)
        .worker.outstanding()
        .map((ticket) => ticket.seq),
    ).toEqual([r3.seq]);
  });

  it('does not get back a request whose client has left', () => {
    const pool = taught(2);
    const sent = pool.burst(CHEAP, names(3));
    pool.at(0).start(first(pool.at(0).batches()));
    sent[1]?.cancel();
    vi.advanceTimersByTime(10);
    expect(pool.at(1).names()).toEqual(['r3']);
    expect(pool.dispatcher.running).toBe(2);
  });
});

describe('a worker that is lost', () => {
  it('fails what it had started; what it had not runs elsewhere, in order', () => {
    const pool = taught(2);
    const sent = pool.burst(CHEAP, names(5));
    const batch = pool.at(0).batches().flat();
    pool.at(0).start(batch[0] as Given);
    pool.at(0).answer(batch[0] as Given);
    pool.at(0).start(batch[1] as Given);
    pool.ready.shift();
    pool.dispatcher.lost(pool.at(0).worker, new Error('gone'));
    expect(pool.at(1).finish()).toEqual(['r3', 'r4', 'r5']);
    expect(sent.map((one) => one.invocation.answers.length)).toEqual([1, 0, 1, 1, 1]);
    expect(sent[1]?.invocation.failures).toEqual([new Error('gone')]);
    expect(pool.dispatcher.running).toBe(0);
  });

  it('has everything delivered that it finished without a word; only what it was at fails', () => {
    const pool = taught(1);
    const sent = pool.burst(CHEAP, names(4));
    const batch = pool.at(0).batches().flat() as [Given, Given, Given, Given];
    for (const given of batch) pool.at(0).start(given);
    pool.at(0).pending(batch[0]); // its promise settles later
    for (const given of batch.slice(0, 3)) pool.at(0).write(given);
    pool.ready.shift();
    pool.dispatcher.lost(pool.at(0).worker, new Error('gone'));
    expect(sent.map((one) => one.invocation.answers.map((answer) => answer.payload))).toEqual([
      ['r1'],
      ['r2'],
      ['r3'],
      [],
    ]);
    expect(sent.map((one) => one.invocation.failures)).toEqual([[], [], [], [new Error('gone')]]);
    expect(pool.dispatcher.running + pool.dispatcher.waiting).toBe(0);
  });

  it('fails every promise that was pending in it, and nothing else', () => {
    const pool = taught(2);
    const sent = pool.burst(CHEAP, names(3));
    const batch = pool.at(0).batches().flat();
    for (const given of batch) pool.at(0).start(given);
    pool.at(0).pending(batch[0] as Given);
    pool.at(0).pending(batch[1] as Given);
    pool.at(0).answer(batch[2] as Given);
    pool.ready.shift();
    pool.dispatcher.lost(pool.at(0).worker, new Error('gone'));
    expect(sent.map((one) => one.invocation.failures.length)).toEqual([1, 1, 0]);
    expect(pool.dispatcher.waiting).toBe(0);
  });

  it('does not have the requests of clients that left given to another', () => {
    const pool = taught(2);
    const sent = pool.burst(CHEAP, names(3));
    pool.at(0).start(first(pool.at(0).batches()));
    sent[0]?.cancel();
    sent[1]?.cancel();
    pool.ready.shift();
    pool.dispatcher.lost(pool.at(0).worker, new Error('gone'));
    expect(pool.at(1).names()).toEqual(['r3']);
    expect(sent[0]?.invocation.settled).toBe(0);
    expect(sent[1]?.invocation.settled).toBe(0);
  });

  it('does not disturb the books when its answers come afterwards', () => {
    const pool = taught(2);
    pool.burst(CHEAP, names(2));
    const batch = pool.at(0).batches().flat();
    for (const given of batch) pool.at(0).start(given);
    pool.ready.shift();
    pool.dispatcher.lost(pool.at(0).worker, new Error('gone'));
    for (const given of batch) pool.at(0).answer(given);
    expect(pool.dispatcher.running).toBe(0);
    expect(pool.dispatcher.waiting).toBe(0);
  });
});

describe('a client that leaves', () => {
  it('while its request runs has its worker told, and hears nothing any more', () => {
    const pool = taught(1);
    const sent = pool.send(CHEAP);
    const given = first(pool.at(0).batches());
    sent.cancel();
    sent.cancel();
    pool.at(0).batches();
    expect(pool.at(0).cancels).toEqual([given.seq]);
    pool.at(0).answer(given);
    expect(sent.invocation.settled).toBe(0);
    expect(pool.dispatcher.running).toBe(0);
  });

  it('while its promise is pending has its worker told', () => {
    const pool = taught(1);
    const sent = pool.send(CHEAP);
    const given = first(pool.at(0).batches());
    pool.at(0).pending(given);
    sent.cancel();
    pool.at(0).batches();
    expect(pool.at(0).cancels).toEqual([given.seq]);
    pool.at(0).answer(given);
    expect(sent.invocation.settled).toBe(0);
    expect(pool.dispatcher.waiting).toBe(0);
  });

  it('after its answer changes nothing', () => {
    const pool = taught(1);
    const sent = pool.send(CHEAP);
    pool.at(0).finish();
    sent.cancel();
    pool.at(0).batches();
    expect(pool.at(0).cancels).toEqual([]);
    expect(sent.invocation.settled).toBe(1);
  });

  it('lets the pool drain', async () => {
    const pool = taught(1, { nMax: 1, queueSize: 10, concurrency: 64 });
    const runs = pool.send(SLOW);
    const waits = pool.send(SLOW);
    let drained = false;
    const done = pool.dispatcher.whenDrained().then(() => {
      drained = true;
    });
    waits.cancel();
    await Promise.resolve();
    expect(drained).toBe(false);
    runs.cancel();
    pool.at(0).finish();
    await done;
  });
});

describe('answers', () => {
  it('of a handler that failed arrive as the error it threw', () => {
    const pool = taught(1);
    const sent = pool.send(CHEAP);
    pool.at(0).fail(first(pool.at(0).batches()), toErrorRecord(new RangeError('too far')));
    expect(sent.invocation.failures[0]).toBeInstanceOf(RangeError);
    expect(sent.invocation.failures[0]).toMatchObject({ message: 'too far' });
  });

  it('that name an object method as their error still fail one request only', () => {
    const pool = taught(1);
    const sent = pool.burst(CHEAP, names(2));
    const [one, two] = pool.at(0).batches().flat() as [Given, Given];
    const record = { ...toErrorRecord(new Error('odd')), name: 'toString' };
    expect(() => pool.at(0).fail(one, record)).not.toThrow();
    pool.at(0).answer(two);
    expect(sent.map((s) => s.invocation.settled)).toEqual([1, 1]);
  });

  it('that come over the lane are kept in the same books', () => {
    const pool = taught(1);
    const sent = pool.burst(CHEAP, names(3));
    const [one, two, three] = pool.at(0).batches().flat() as [Given, Given, Given];
    const large = 'x'.repeat(100_000);
    pool.at(0).answerOverLane(one, large);
    pool.at(0).pendingOverLane(two);
    expect([pool.dispatcher.running, pool.dispatcher.waiting]).toEqual([1, 1]);
    pool.at(0).answer(two);
    pool.at(0).answerOverLane(three, null);
    expect(sent.map((s) => s.invocation.answers.map((answer) => answer.payload))).toEqual([
      [large],
      ['r2'],
      [null],
    ]);
    expect([pool.dispatcher.running, pool.dispatcher.waiting]).toEqual([0, 0]);
    expect(pool.at(0).worker.idle).toBe(true);
  });

  it('that overtook the word that they are pending are delivered once, and stay off the books', () => {
    const pool = taught(1);
    const sent = pool.send(CHEAP);
    const given = first(pool.at(0).batches());
    pool.at(0).answer(given);
    pool.at(0).pendingOverLane(given);
    expect(sent.invocation.settled).toBe(1);
    expect([pool.dispatcher.running, pool.dispatcher.waiting]).toEqual([0, 0]);
  });

  it('tell when a worker has nothing left to do', () => {
    const pool = taught(1);
    pool.idled.length = 0;
    pool.burst(CHEAP, names(2));
    const [one, two] = pool.at(0).batches().flat() as [Given, Given];
    pool.at(0).answer(one);
    expect(pool.idled).toEqual([]);
    pool.at(0).pending(two);
    expect(pool.idled).toEqual([]);
    pool.at(0).answer(two);
    expect(pool.idled).toEqual([pool.at(0).worker]);
  });
});

describe('closing', () => {
  it('fails what waits and what runs, each once', async () => {
    const pool = taught(1, { nMax: 1, queueSize: 10, concurrency: 64 });
    const sent = pool.burst(SLOW, names(3));
    const given = first(pool.at(0).batches());
    const late = new OffloopError('OFFLOOP_STOPPED', 'late');
    pool.dispatcher.failQueued(late);
    pool.dispatcher.failStarted(pool.at(0).worker, late);
    pool.at(0).answer(given);
    expect(sent.map((one) => one.invocation.failures)).toEqual([[late], [late], [late]]);
    expect(sent.map((one) => one.invocation.answers)).toEqual([[], [], []]);
    await pool.dispatcher.whenDrained();
  });
});

describe('the books of a worker', () => {
  /** A worker on no lane, which has given away so many already. */
  function workerAt(seq: number): Worker {
    const lane = { postMessage: () => undefined } as unknown as MessagePort;
    const worker = new Worker('counting', lane);
    (worker as unknown as { nextSeq: number }).nextSeq = seq;
    Atomics.store(worker.board, BOARD_CLAIM, seq);
    return worker;
  }
  const mount = new FakePool(0).mount(CHEAP);
  const tickets = (n: number): Ticket[] =>
    Array.from({ length: n }, (_, i) => new Ticket(mount, new FakeInvocation(`t${i}`), 0));
  const claim = (worker: Worker, seq: number): boolean =>
    Atomics.compareExchange(worker.board, BOARD_CLAIM, seq, (seq + 1) | 0) === seq;

  it.each([2 ** 31 - 3, -3])('hold when the number of the next request wraps around at %i', (start) => {
    const worker = workerAt(start);
    const given = tickets(6);
    worker.give(given, 0);
    for (let i = 0; i < 2; i++) {
      const seq = (start + i) | 0;
      expect(worker.find(seq)).toBe(given[i]);
      expect(claim(worker, seq)).toBe(true);
    }
    expect(worker.takeBack()).toEqual(given.slice(2));
    for (let i = 2; i < 6; i++) expect(claim(worker, (start + i) | 0)).toBe(false);
    expect(worker.outstanding()).toEqual(given.slice(0, 2));
    const again = tickets(2);
    worker.give(again, 0);
    expect(claim(worker, (start + 6) | 0)).toBe(true);
    expect(worker.takeBack()).toEqual(again.slice(1));
    expect(worker.given).toBe(3);
  });

  it('list what is out in the order it was given, across the wrap too', () => {
    const worker = workerAt(2 ** 31 - 100);
    const given = tickets(200);
    worker.give(given, 0);
    expect(worker.outstanding()).toEqual(given);
  });

  it('list what is out in order when the oldest does not lie first', () => {
    const worker = workerAt(0);
    // More than any table starts with, so that new ones come to lie before old ones.
    const given = tickets(3000);
    worker.give(given.slice(0, 600), 0);
    for (const ticket of given.slice(0, 500)) worker.drop(ticket);
    worker.give(given.slice(600), 0);
    expect(worker.outstanding()).toEqual(given.slice(500));
  });

  it('never list a request that is no longer out', () => {
    const worker = workerAt(0);
    const given = tickets(3000);
    worker.give(given, 0);
    const gone = given.filter((_, i) => i % 3 === 0);
    for (const ticket of gone) {
      const { seq } = ticket;
      worker.drop(ticket);
      expect(worker.find(seq)).toBeUndefined();
    }
    expect(worker.outstanding()).toEqual(given.filter((_, i) => i % 3 !== 0));
    expect(worker.given).toBe(2000);
    for (const ticket of worker.outstanding()) expect(worker.find(ticket.seq)).toBe(ticket);
  });

  it('do not grow with every request behind a promise that never settles', () => {
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc') as () => void;
    const worker = workerAt(0);
    const [hanging] = tickets(1) as [Ticket];
    worker.give([hanging], 0);
    worker.markPending(hanging);
    const ticket = new Ticket(mount, new FakeInvocation('t'), 0);
    gc();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 1_000_000; i++) {
      worker.give([ticket], 0);
      worker.drop(ticket);
    }
    gc();
    const grown = process.memoryUsage().heapUsed - before;
    expect(worker.outstanding()).toEqual([hanging]);
    expect(grown).toBeLessThan(4 * 1024 * 1024);
  });
});
