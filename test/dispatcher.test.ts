import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { MessagePort } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { OffloopError, toErrorRecord } from '../src/errors.js';
import { Ticket } from '../src/pool/ticket.js';
import { Worker } from '../src/pool/worker.js';
import { BOARD_CLAIM, type BodyLine, type TimeLimits } from '../src/protocol.js';
import { FakeInvocation, FakePool, type Given, type Sent } from './support/pool-fakes.js';

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
function taught(
  n: number,
  limits?: ConstructorParameters<typeof FakePool>[1],
  times?: Partial<TimeLimits>,
): FakePool {
  const pool = new FakePool(n, limits, times);
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

describe('a request that is more than a batch is worth', () => {
  const BRIEF = 2;
  /** Two milliseconds is the most. */
  function brief(n: number, limits?: ConstructorParameters<typeof FakePool>[1]): FakePool {
    const pool = taught(n, limits);
    pool.learn(BRIEF, 1500);
    return pool;
  }
  const given = (pool: FakePool): string[][] => pool.workers.map((fake) => fake.names());

  it('goes to a worker that is free, and only when there is none to one that soon will be', () => {
    const pool = brief(2);
    pool.burst(BRIEF, names(3));
    expect(given(pool)).toEqual([['r1', 'r3'], ['r2']]);
    pool.send(BRIEF, 'r4');
    expect(given(pool)).toEqual([[], ['r4']]);
  });

  it('is one more than the worker is at; the others wait', () => {
    const pool = brief(1);
    pool.burst(BRIEF, names(4));
    expect(given(pool)).toEqual([['r1', 'r2']]);
    expect(pool.dispatcher.queued).toBe(2);
  });

  it('is followed by the next as soon as the worker begins with it', () => {
    const pool = brief(1);
    pool.burst(BRIEF, names(3));
    const [one] = pool.at(0).batches().flat() as [Given];
    pool.at(0).start(one);
    pool.at(0).answer(one, 1500);
    vi.advanceTimersToNextTimer();
    expect(given(pool)).toEqual([['r3']]);
  });

  it('waits for a thread that can be started, or is on its way', () => {
    const pool = brief(1, { nMax: 2 });
    pool.canGrow = true;
    pool.burst(BRIEF, names(2));
    expect(given(pool)).toEqual([['r1']]);
    expect(pool.grown).toBe(1);
  });

  it('waits for a free worker if its target takes longer than that on average', () => {
    const pool = brief(1);
    pool.burst(BRIEF, ['brief']);
    pool.send(SLOW, 'slow');
    expect(given(pool)).toEqual([['brief']]);
  });

  it('waits for a free worker if what the others are at does', () => {
    const pool = brief(1);
    pool.burst(SLOW, ['slow']);
    pool.send(BRIEF, 'brief');
    expect(given(pool)).toEqual([['slow']]);
  });

  it('waits for a free worker if its target has never been seen, or that of what the others are at', () => {
    const pool = brief(2);
    pool.burst(BRIEF, ['a']);
    pool.burst(3, ['unknown', 'unknown too']);
    expect(given(pool)).toEqual([['a'], ['unknown']]);
    expect(pool.dispatcher.queued).toBe(1);
  });

  it('waits for a free worker where all requests are to travel alone', () => {
    const pool = brief(1, { batchMicros: 0 });
    pool.burst(BRIEF, names(2));
    expect(given(pool)).toEqual([['r1']]);
  });

  it('takes cheap ones along, up to what a batch is worth', () => {
    const pool = brief(1);
    pool.burst(BRIEF, ['brief']);
    pool.burst(CHEAP, names(3));
    expect(
      pool
        .at(0)
        .batches()
        .map((batch) => batch.map(({ name }) => name)),
    ).toEqual([['brief'], names(3)]);
  });

  it('is taken back when the one before it takes longer than it should, and goes to whoever is free', () => {
    const pool = brief(2);
    pool.burst(BRIEF, names(3));
    const [stuck] = pool.at(0).batches().flat() as [Given];
    pool.at(0).start(stuck);
    expect(pool.at(1).finish(1500)).toEqual(['r2']);
    vi.advanceTimersByTime(5);
    expect(given(pool)).toEqual([[], ['r3']]);
    expect(pool.at(0).worker.given).toBe(1);
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

  it('is the one with the fewest bodies, channels and pending promises together', () => {
    const pool = taught(2);
    const taken = (): string[][] => {
      pool.send(CHEAP, 'r');
      return pool.workers.map((fake) => fake.finish());
    };
    expect(taken()).toEqual([['r'], []]);
    pool.at(0).worker.bodies.set('a', {} as BodyLine);
    expect(taken()).toEqual([[], ['r']]);
    pool.at(1).worker.channels = 2;
    expect(taken()).toEqual([['r'], []]);
    pool.at(0).worker.bodies.set('b', {} as BodyLine);
    pool.send(CHEAP, 'waits');
    pool.at(0).pending(first(pool.at(0).batches()));
    expect(taken()).toEqual([[], ['r']]);
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

  it('loses what it has not started a second time, when its last words had earned it some again', () => {
    const pool = taught(1);
    pool.burst(CHEAP, ['a', 'stuck', 'behind']);
    const [a, started] = pool.at(0).batches().flat() as [Given, Given];
    pool.at(0).start(a);
    pool.at(0).start(started);
    pass(5);
    expect(pool.dispatcher.queued).toBe(1);
    pool.at(0).answer(a); // said before it got stuck, and only now heard
    pass(1);
    expect(pool.at(0).names()).toEqual(['behind']);
    pass(10);
    expect([pool.at(0).worker.given, pool.dispatcher.queued]).toEqual([1, 1]);
    pool.addWorker();
    pool.dispatcher.pump();
    expect(pool.at(1).names()).toEqual(['behind']);
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

/** Time passes; workers are looked at on the way. */
const pass = (ms: number): void => void vi.advanceTimersByTime(ms);
const reasons = (sent: { invocation: FakeInvocation }): string[] =>
  sent.invocation.refusals.map((refusal) => refusal.reason);

describe('a request that waits for longer than queueTimeout', () => {
  /** One worker, busy with a slow request without limits, and a line whose requests may wait for 100 ms. */
  function busy(limits?: ConstructorParameters<typeof FakePool>[1]): { pool: FakePool; runs: Given } {
    const pool = taught(1, { nMax: 1, queueSize: 10, ...limits });
    pool.mount(2, { queueTimeout: 100 });
    pool.send(SLOW, 'busy');
    const runs = first(pool.at(0).batches());
    pool.at(0).start(runs);
    return { pool, runs };
  }

  it('is refused at that moment, with a time to come back, and never given to a worker', () => {
    const { pool, runs } = busy();
    const sent = pool.send(2, 'waits');
    pass(99);
    expect(sent.invocation.settled).toBe(0);
    pass(2);
    expect(reasons(sent)).toEqual(['queueTimeout']);
    expect(sent.invocation.refusals[0]?.retryAfter).toBeGreaterThanOrEqual(1);
    pool.at(0).answer(runs);
    pass(1000);
    expect(pool.at(0).names()).toEqual([]);
    expect(sent.invocation.settled).toBe(1);
  });

  it('is counted, in the pool and for its mount only', () => {
    const { pool } = busy();
    for (let i = 0; i < 3; i++) pool.send(2);
    pass(101);
    expect(pool.dispatcher.timedOut).toEqual({ queue: 3, handler: 0 });
    expect(pool.mount(2).stats).toMatchObject({ queued: 0, timedOut: { queue: 3, handler: 0 } });
    expect(pool.mount(SLOW).stats.timedOut).toEqual({ queue: 0, handler: 0 });
    expect(pool.dispatcher.refused).toBe(0);
  });

  it('leaves its place in the queue to somebody else', () => {
    const { pool } = busy({ queueSize: 2 });
    pool.send(2);
    pool.send(2);
    expect(pool.send(2).refused).toBe(true);
    pass(101);
    expect(pool.dispatcher.queued).toBe(0);
    expect([pool.send(2).refused, pool.send(2).refused, pool.send(2).refused]).toEqual([false, false, true]);
  });

  it('lets the pool drain', async () => {
    const { pool, runs } = busy();
    pool.send(2);
    const drained = pool.dispatcher.whenDrained();
    pool.at(0).answer(runs);
    pool.at(0).worker.state = 'retiring';
    pool.ready.length = 0;
    pass(101);
    await drained;
  });

  it('has nothing to do with one that a worker was given in time, however long that takes', () => {
    const { pool, runs } = busy();
    const sent = pool.send(2, 'in time');
    pass(90);
    pool.at(0).answer(runs);
    pass(1);
    const given = first(pool.at(0).batches());
    pool.at(0).start(given);
    pass(10_000);
    expect(sent.invocation.settled).toBe(0);
    pool.at(0).answer(given);
    expect(sent.invocation.answers).toHaveLength(1);
  });

  it('is not refused a second time when its client has left before', () => {
    const { pool } = busy();
    const sent = pool.send(2);
    pass(50);
    sent.cancel();
    pass(100);
    expect(sent.invocation.settled).toBe(0);
    expect(pool.dispatcher.timedOut.queue).toBe(0);
  });

  it('is not refused again when it had to make room for another', () => {
    const { pool } = busy({ queueSize: 4 });
    const crowd = Array.from({ length: 4 }, () => pool.send(2));
    pool.send(CHEAP, 'the one that comes in');
    pass(200);
    expect(crowd.map(reasons)).toEqual([
      ['queueTimeout'],
      ['queueTimeout'],
      ['queueTimeout'],
      ['overloaded'],
    ]);
    expect(pool.dispatcher.timedOut.queue).toBe(3);
  });

  it('is not refused when it has failed already, because the pool was closed', () => {
    const { pool } = busy();
    const sent = pool.send(2);
    pool.dispatcher.failQueued(new Error('closed'));
    pass(200);
    expect(sent.invocation.settled).toBe(1);
  });

  it('is refused when its time is up though a worker had it in between, and did not begin', () => {
    const pool = taught(1, { nMax: 1 }, { queueTimeout: 100 });
    pool.send(SLOW, 'busy');
    const busyOne = first(pool.at(0).batches());
    pool.at(0).start(busyOne);
    const sent = pool.burst(CHEAP, ['stuck', 'behind']);
    pass(90);
    pool.at(0).answer(busyOne);
    pass(1);
    const [stuck] = pool.at(0).batches().flat();
    pool.at(0).start(stuck as Given);
    pass(15); // time enough to take the other one back
    expect(sent.map(reasons)).toEqual([[], ['queueTimeout']]);
  });

  it('is refused at once when it comes back from a worker that died and its time is up by then', () => {
    const pool = taught(1, { nMax: 1 }, { queueTimeout: 100 });
    const sent = pool.send(CHEAP, 'never begun');
    pass(500);
    pool.ready.length = 0;
    pool.dispatcher.lost(pool.at(0).worker, new Error('gone'));
    pass(10);
    expect(reasons(sent)).toEqual(['queueTimeout']);
  });

  it('is given to a worker rather than refused, when one is free as it is taken back', () => {
    const pool = taught(2, {}, { queueTimeout: 100 });
    const sent = pool.burst(CHEAP, ['stuck', 'behind']);
    pool.at(0).start(first(pool.at(0).batches()));
    // The I/O thread itself was held up meanwhile.
    const now = vi.spyOn(performance, 'now');
    now.mockReturnValue(performance.now() + 500);
    for (let i = 0; i < 3; i++) vi.advanceTimersToNextTimer();
    now.mockRestore();
    expect(pool.at(1).finish()).toEqual(['behind']);
    expect(sent.map(reasons)).toEqual([[], []]);
  });
});

describe('a handler that runs for longer than handlerTimeout', () => {
  const LIMITS = { handlerTimeout: 1000, killAfter: 1000 };

  /** A worker that has begun with 'late'. */
  function running(
    workers = 1,
    limits: Partial<TimeLimits> = LIMITS,
  ): { pool: FakePool; late: Given; sent: Sent } {
    const pool = new FakePool(workers);
    pool.mount(2, limits);
    const sent = pool.send(2, 'late');
    const late = first(pool.at(0).batches());
    pool.at(0).start(late);
    return { pool, late, sent };
  }
  const timeouts = (pool: FakePool): number[] => {
    pool.at(0).batches();
    return pool.at(0).timeouts;
  };

  it('has its request refused at that moment, and its worker told once', () => {
    const { pool, late, sent } = running();
    pass(999);
    expect(sent.invocation.settled).toBe(0);
    pass(2);
    expect(reasons(sent)).toEqual(['handlerTimeout']);
    expect(sent.invocation.refusals[0]?.retryAfter).toBe(0);
    expect(timeouts(pool)).toEqual([late.seq]);
    pass(10_000);
    expect(timeouts(pool)).toEqual([late.seq]);
    expect(sent.invocation.settled).toBe(1);
  });

  it('is counted, in the pool and for its mount only', () => {
    const { pool } = running(2);
    pool.send(CHEAP);
    pool.at(1).finish();
    pass(1001);
    expect(pool.dispatcher.timedOut).toEqual({ queue: 0, handler: 1 });
    expect(pool.mount(2).stats.timedOut).toEqual({ queue: 0, handler: 1 });
    expect(pool.mount(CHEAP).stats.timedOut).toEqual({ queue: 0, handler: 0 });
  });

  it('has its answer dropped when it comes after all, and the books are in order then', () => {
    const { pool, late, sent } = running();
    pass(1001);
    pool.at(0).answer(late);
    expect(sent.invocation.answers).toEqual([]);
    expect(sent.invocation.settled).toBe(1);
    expect([pool.dispatcher.running, pool.dispatcher.waiting]).toEqual([0, 0]);
    expect(pool.at(0).worker.idle).toBe(true);
  });

  it('has its error dropped when it throws after all', () => {
    const { pool, late, sent } = running();
    pass(1001);
    pool.at(0).fail(late, toErrorRecord(new Error('too late')));
    expect(sent.invocation.failures).toEqual([]);
    expect(pool.dispatcher.running).toBe(0);
  });

  it('is answered when it was done in time and only the word of it was not there yet', () => {
    const { pool, late, sent } = running();
    // Otherwise it would have been looked for by now.
    const now = vi.spyOn(performance, 'now');
    now.mockReturnValue(performance.now() + 1001);
    pool.at(0).write(late);
    vi.advanceTimersToNextTimer();
    vi.advanceTimersToNextTimer();
    now.mockRestore();
    expect(sent.invocation.answers).toHaveLength(1);
    expect(sent.invocation.settled).toBe(1);
    expect(pool.dispatcher.timedOut.handler).toBe(0);
  });

  it('is the same when its promise is pending', () => {
    const { pool, late, sent } = running();
    pool.at(0).pending(late);
    pass(999);
    expect(sent.invocation.settled).toBe(0);
    pass(2);
    expect(reasons(sent)).toEqual(['handlerTimeout']);
    expect(timeouts(pool)).toEqual([late.seq]);
    pool.at(0).answer(late);
    expect(sent.invocation.settled).toBe(1);
    expect(pool.dispatcher.waiting).toBe(0);
  });

  it('leaves its client nothing to cancel', () => {
    const { pool, sent } = running();
    pass(1001);
    sent.cancel();
    pool.at(0).batches();
    expect(pool.at(0).cancels).toEqual([]);
  });

  it('has no such limit where there is none for its mount', () => {
    const { pool, sent } = running(1, { handlerTimeout: 0 });
    pass(100_000);
    expect(sent.invocation.settled).toBe(0);
    expect(pool.suspects).toEqual([]);
  });

  it('has the clock of its own mount, whoever shares its batch', () => {
    const pool = new FakePool(1);
    pool.mount(2, { handlerTimeout: 100 });
    pool.mount(3, { handlerTimeout: 5000 });
    for (const target of [2, 3]) pool.learn(target, 10);
    const sent = [pool.put(2), pool.put(3)];
    pool.dispatcher.pump();
    const batch = pool.at(0).batches().flat();
    expect(batch).toHaveLength(2);
    for (const given of batch) {
      pool.at(0).start(given);
      pool.at(0).pending(given);
    }
    pass(101);
    expect(sent.map((one) => reasons(one))).toEqual([['handlerTimeout'], []]);
    pass(5000);
    expect(sent.map((one) => reasons(one))).toEqual([['handlerTimeout'], ['handlerTimeout']]);
  });

  it('says nothing more when its worker dies', () => {
    const { pool, sent } = running();
    pool.ready.length = 0;
    pool.dispatcher.lost(pool.at(0).worker, new Error('gone'));
    pass(10_000);
    expect(sent.invocation.settled).toBe(1);
    expect(sent.invocation.failures).toHaveLength(1);
    expect(pool.stuckIn).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  describe('is found stuck', () => {
    it('when its worker shows no life for killAfter, with a replacement asked for a quarter of a second before', () => {
      const { pool } = running();
      pass(1000 + 745);
      expect(pool.suspects).toEqual([]);
      pass(10);
      expect(pool.suspects).toEqual([pool.at(0).worker]);
      pass(235);
      expect(pool.stuckIn).toEqual([]);
      pass(20);
      expect(pool.stuckIn).toEqual([{ worker: pool.at(0).worker, name: 'late' }]);
      expect(pool.clearedOf).toEqual([]);
    });

    it('with the replacement asked for at once when there is less time than that', () => {
      const { pool } = running(1, { handlerTimeout: 1000, killAfter: 60 });
      pass(1050);
      // A loop that turns has had no time yet to say so.
      expect([pool.suspects, pool.stuckIn]).toEqual([[], []]);
      pass(60);
      expect(pool.suspects).toHaveLength(1);
      expect(pool.stuckIn).toHaveLength(1);
    });

    it('when its client has long gone', () => {
      const { pool, sent } = running();
      pass(10);
      sent.cancel();
      pass(3000);
      expect(pool.stuckIn).toHaveLength(1);
      expect(sent.invocation.settled).toBe(0);
    });

    it('when its promise is pending and the loop does not turn', () => {
      const { pool, late } = running();
      pool.at(0).pending(late);
      pass(2010);
      expect(pool.stuckIn).toHaveLength(1);
    });

    it('once, however many are late in the same worker', () => {
      const { pool, late } = running();
      pool.at(0).pending(late);
      pool.send(2, 'too');
      pool.at(0).start(first(pool.at(0).batches()));
      pass(2010);
      expect(new Set(pool.stuckIn.map((one) => one.worker))).toEqual(new Set([pool.at(0).worker]));
    });
  });

  describe('is not found stuck', () => {
    it('when the loop of its worker turns', () => {
      const { pool, late } = running();
      pool.at(0).pending(late);
      pass(1001);
      pool.at(0).alive(late);
      pass(100_000);
      expect(pool.suspects).toEqual([]);
      expect(pool.stuckIn).toEqual([]);
    });

    it('when the loop turns at the last moment; the replacement is not needed then', () => {
      const { pool, late } = running();
      pool.at(0).pending(late);
      pass(1990);
      expect(pool.suspects).toHaveLength(1);
      pool.at(0).alive(late);
      expect(pool.clearedOf).toEqual([pool.at(0).worker]);
      pass(100_000);
      expect(pool.stuckIn).toEqual([]);
    });

    it('when it comes to an end before, whatever its worker does next', () => {
      const { pool, late } = running();
      pool.mount(3, { handlerTimeout: 0 });
      pass(1500);
      pool.at(0).answer(late);
      pool.send(3, 'next');
      pool.at(0).start(first(pool.at(0).batches()));
      pass(100_000);
      expect(pool.stuckIn).toEqual([]);
    });

    it('when it comes to an end at the last moment, and only the word of it was not there yet', () => {
      const { pool, late } = running();
      pass(1995);
      const now = vi.spyOn(performance, 'now');
      now.mockReturnValue(performance.now() + 20);
      pool.at(0).write(late);
      for (let i = 0; i < 3; i++) vi.advanceTimersToNextTimer();
      now.mockRestore();
      pass(5000);
      expect(pool.stuckIn).toEqual([]);
      expect(pool.dispatcher.running).toBe(0);
    });

    it('while another invocation has its thread that may take as long as it likes; later, if it is', () => {
      const { pool, late } = running();
      pool.mount(3, { handlerTimeout: 0 });
      pool.at(0).pending(late);
      pool.send(3, 'legitimate');
      const legitimate = first(pool.at(0).batches());
      pool.at(0).start(legitimate);
      pass(20_000);
      expect(pool.stuckIn).toEqual([]);
      // The other is done, and still the loop does not turn.
      pool.at(0).answer(legitimate);
      pass(1010);
      expect(pool.stuckIn).toEqual([{ worker: pool.at(0).worker, name: 'late' }]);
    });

    it('while another has its thread, though what was behind that one has been taken back', () => {
      const { pool, late } = running();
      pool.at(0).pending(late);
      for (const target of [3, 4]) {
        pool.mount(target, { handlerTimeout: 0 });
        pool.learn(target, 10);
      }
      pool.put(3, 'legitimate');
      pool.put(4, 'behind');
      pool.dispatcher.pump();
      const [legitimate, behind] = pool.at(0).batches().flat() as [Given, Given];
      pool.at(0).start(legitimate);
      pass(500);
      expect(pool.at(0).start(behind)).toBe(false);
      expect(pool.dispatcher.queued).toBe(1);
      pass(20_000);
      expect(pool.stuckIn).toEqual([]);
    });

    it('when another is: each is judged by itself', () => {
      const { pool } = running(2);
      pool.send(2, 'fine');
      const fine = first(pool.at(1).batches());
      pool.at(1).start(fine);
      pass(1001);
      pool.at(1).alive(fine);
      pass(2000);
      expect(pool.stuckIn.map((one) => one.name)).toEqual(['late']);
    });
  });
});

describe('a request that its worker has not begun with when its time is up', () => {
  const LIMITS = { handlerTimeout: 1000, killAfter: 1000 };

  it('is no victim of the one before it: it runs elsewhere, with a clock of its own', () => {
    const pool = new FakePool(2, {}, LIMITS);
    pool.learn(CHEAP, 10);
    pool.mount(SLOW, { handlerTimeout: 0 });
    pool.send(SLOW, 'other');
    const other = first(pool.at(0).batches());
    pool.at(0).start(other);
    const sent = pool.burst(CHEAP, ['late', 'behind']);
    pool.at(1).start(first(pool.at(1).batches()));
    pass(600);
    pool.at(0).answer(other);
    pass(1);
    const behind = first(pool.at(0).batches());
    pool.at(0).start(behind);
    pass(900);
    expect(sent.map(reasons)).toEqual([['handlerTimeout'], []]);
    pool.at(0).answer(behind);
    expect(sent.map((one) => one.invocation.answers.length)).toEqual([0, 1]);
  });

  it('runs on another worker, even when it was alone on the lane of a worker that does not turn', () => {
    const pool = new FakePool(2, {}, LIMITS);
    const sent = pool.send(CHEAP, 'alone');
    expect(pool.at(0).names()).toEqual(['alone']);
    let elsewhere: Given | undefined;
    for (let ms = 0; ms < 3000 && elsewhere === undefined; ms++) {
      pass(1);
      elsewhere = pool.at(1).batches()[0]?.[0];
    }
    expect(elsewhere?.name).toBe('alone');
    pool.at(1).start(elsewhere as Given);
    pool.at(1).answer(elsewhere as Given);
    expect(sent.invocation.answers).toHaveLength(1);
    pool.send(CHEAP, 'next');
    expect([pool.at(0).names(), pool.at(1).names()]).toEqual([[], ['next']]);
  });

  it('is not sent over and over to the only worker there is, which does not turn', () => {
    const pool = new FakePool(1, { nMax: 1 });
    pool.learn(CHEAP, 10);
    pool.burst(CHEAP, names(20));
    pass(1000);
    expect(pool.at(0).batches().length).toBeLessThan(5);
    expect(pool.at(0).worker.given + pool.dispatcher.queued).toBe(20);
  });

  it('has its limit when its worker begins with it in that very moment', () => {
    const pool = new FakePool(2, {}, LIMITS);
    const sent = pool.send(CHEAP, 'at last');
    const given = first(pool.at(0).batches());
    const { worker } = pool.at(0);
    const takeBack = vi.spyOn(worker, 'takeBack').mockImplementationOnce(() => {
      // It is a race between two threads, and the other one has won it.
      pool.at(0).start(given);
      return Worker.prototype.takeBack.call(worker);
    });
    pass(1010);
    expect(takeBack).toHaveBeenCalled();
    pass(1010);
    expect(reasons(sent)).toEqual(['handlerTimeout']);
  });

  it('is dropped when its client has left', () => {
    const pool = new FakePool(2, {}, LIMITS);
    const sent = pool.send(CHEAP, 'gone');
    pool.at(0).batches();
    sent.cancel();
    pass(5000);
    expect(pool.at(1).names()).toEqual([]);
    expect(pool.dispatcher.running).toBe(0);
    expect(sent.invocation.settled).toBe(0);
  });
});

describe('ten thousand requests with deadlines', () => {
  it('need a few timers, whether they wait, run or are done', () => {
    const pool = new FakePool(
      4,
      { queueSize: 20_000, concurrency: 20_000, batchMicros: 1_000_000 },
      { queueTimeout: 5000, handlerTimeout: 30_000 },
    );
    pool.learn(CHEAP, 1);
    const timers = vi.spyOn(globalThis, 'setTimeout');
    pool.burst(CHEAP, names(5000));
    for (let i = 0; i < 5000; i++) pool.put(CHEAP);
    expect([pool.dispatcher.running, pool.dispatcher.queued]).toEqual([5000, 5000]);
    expect(timers.mock.calls.length).toBeLessThan(10);
    expect(vi.getTimerCount()).toBeLessThan(5);
    pool.dispatcher.pump();
    for (const fake of pool.workers) fake.finish(1);
    expect([pool.dispatcher.running, pool.dispatcher.queued]).toEqual([0, 0]);
    expect(timers.mock.calls.length).toBeLessThan(10);
    timers.mockRestore();
    pass(60_000);
    expect(vi.getTimerCount()).toBe(0);
    expect(pool.dispatcher.timedOut).toEqual({ queue: 0, handler: 0 });
  });

  it('without deadlines need none for them', () => {
    const pool = new FakePool(1, { queueSize: 20_000 });
    const timers = vi.spyOn(globalThis, 'setTimeout');
    for (let i = 0; i < 10_000; i++) pool.put(CHEAP);
    expect(timers.mock.calls).toEqual([]);
    timers.mockRestore();
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
