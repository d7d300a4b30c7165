import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Deadlines, type Due } from '../src/deadlines.js';
import { until } from './support/server.js';

/** Something with a deadline. */
class Item implements Due {
  dueAt = 0;
  dueLine: Due['dueLine'] = undefined;
  duePrev: Due['duePrev'] = undefined;
  dueNext: Due['dueNext'] = undefined;
  constructor(readonly name: string) {}
}

interface Lines {
  readonly deadlines: Deadlines<Item>;
  /** The names of those that have expired, in order. */
  readonly expired: string[];
  /** Give something new a deadline in `ms` from `age` ms ago. */
  add(name: string, ms: number, age?: number): Item;
}
function lines(onExpired?: (item: Item, all: Lines) => void): Lines {
  const expired: string[] = [];
  const deadlines = new Deadlines<Item>((item) => {
    expired.push(item.name);
    onExpired?.(item, all);
  });
  const add = (name: string, ms: number, age = 0): Item => {
    const item = new Item(name);
    deadlines.set(item, ms, performance.now() - age);
    return item;
  };
  const all: Lines = { deadlines, expired, add };
  return all;
}

const pass = (ms: number): void => void vi.advanceTimersByTime(ms);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
});
afterEach(() => {
  // The clock was spied on while it was a fake one.
  vi.restoreAllMocks();
  vi.useRealTimers();
});

describe('a deadline', () => {
  it('expires when its time has passed, not before, and only once', () => {
    const { add, expired } = lines();
    add('a', 100);
    pass(99);
    expect(expired).toEqual([]);
    pass(2);
    expect(expired).toEqual(['a']);
    pass(10_000);
    expect(expired).toEqual(['a']);
  });

  it('is cleared by the time it is told', () => {
    const seen: Due['dueLine'][] = [];
    const { add } = lines((item) => seen.push(item.dueLine));
    add('a', 10);
    pass(20);
    expect(seen).toEqual([undefined]);
  });

  it('that is cleared never expires, and clearing it again changes nothing', () => {
    const { deadlines, add, expired } = lines();
    const a = add('a', 10);
    add('b', 10);
    deadlines.clear(a);
    deadlines.clear(a);
    deadlines.clear(new Item('never set'));
    pass(20);
    expect(expired).toEqual(['b']);
  });

  it.each([
    ['later', 50, 200],
    ['earlier', 200, 50],
    ['of the same length', 100, 100],
  ])('that is set again takes the place of the one before: %s', (_, before, after) => {
    const { deadlines, add, expired } = lines();
    const a = add('a', before);
    pass(10);
    deadlines.set(a, after, performance.now());
    pass(after - 1);
    expect(expired).toEqual([]);
    pass(2);
    expect(expired).toEqual(['a']);
    pass(1000);
    expect(expired).toEqual(['a']);
  });

  it('of no length at all expires at the next opportunity, not in the call that sets it', () => {
    const { add, expired } = lines();
    add('a', 0);
    expect(expired).toEqual([]);
    pass(2);
    expect(expired).toEqual(['a']);
  });

  it('that began long ago expires when it is due, not when one that begins now would', () => {
    const { add, expired } = lines();
    pass(1000);
    add('old', 100, 90);
    pass(9);
    expect(expired).toEqual([]);
    pass(3);
    expect(expired).toEqual(['old']);
  });

  it('that has passed by the time it is set expires at the next opportunity', () => {
    const { add, expired } = lines();
    pass(1000);
    add('overdue', 100, 500);
    expect(expired).toEqual([]);
    pass(2);
    expect(expired).toEqual(['overdue']);
  });

  it('may be as far away as any option allows, whatever the clock says', () => {
    const spy = vi.spyOn(globalThis, 'setTimeout');
    const { deadlines } = lines();
    // The sum of two such numbers is rounded; Node fires at once, with a warning, beyond 2^31 - 1.
    for (const now of [0, 0.3, 1000 / 3, 777.777, 5e6 + 0.123, 1e9 / 7])
      new Deadlines<Item>(() => undefined).set(new Item('far'), 2 ** 31 - 1, now);
    deadlines.set(new Item('far'), 2 ** 31 - 1, performance.now());
    expect(Math.max(...spy.mock.calls.map(([, delay]) => Number(delay)))).toBeLessThanOrEqual(2 ** 31 - 1);
  });
});

describe('deadlines of one length', () => {
  it('expire in the order they were set', () => {
    const { add, expired } = lines();
    for (const name of ['a', 'b', 'c']) {
      add(name, 100);
      pass(10);
    }
    pass(75);
    expect(expired).toEqual(['a']);
    pass(10);
    expect(expired).toEqual(['a', 'b']);
    pass(10);
    expect(expired).toEqual(['a', 'b', 'c']);
  });

  it('expire in the order they are due when older ones come late', () => {
    const { add, expired } = lines();
    pass(1000);
    add('0 old', 100, 0);
    add('30 old', 100, 30);
    add('10 old', 100, 10);
    add('90 old', 100, 90);
    add('20 old', 100, 20);
    pass(200);
    expect(expired).toEqual(['90 old', '30 old', '20 old', '10 old', '0 old']);
  });

  it('lose the first, the last and the one in the middle without losing any other', () => {
    const { deadlines, add, expired } = lines();
    const items = ['a', 'b', 'c', 'd', 'e'].map((name) => add(name, 50));
    for (const at of [0, 2, 4]) deadlines.clear(items[at] as Item);
    add('f', 50);
    pass(60);
    expect(expired).toEqual(['b', 'd', 'f']);
  });

  it('that all passed while the thread was held up all expire at once', () => {
    const { add, expired } = lines();
    for (let i = 0; i < 5; i++) add(`${i}`, 10 + i);
    const later = performance.now() + 500;
    vi.spyOn(performance, 'now').mockReturnValue(later);
    vi.advanceTimersToNextTimer();
    expect(expired).toHaveLength(5);
  });
});

describe('deadlines of several lengths', () => {
  it('each expire at their own time, in whatever order they were set', () => {
    const { add, expired } = lines();
    for (const ms of [500, 20, 300, 100, 40]) add(`${ms}`, ms);
    for (const [ms, gone] of [
      [20, ['20']],
      [40, ['20', '40']],
      [100, ['20', '40', '100']],
      [300, ['20', '40', '100', '300']],
      [500, ['20', '40', '100', '300', '500']],
    ] as const) {
      pass(ms - performance.now() - 1);
      expect(expired).toEqual(gone.slice(0, -1));
      pass(2);
      expect(expired).toEqual(gone);
    }
  });

  it('do not wait for a long one that was set first', () => {
    const { add, expired } = lines();
    add('long', 60_000);
    pass(50_000);
    add('short', 10);
    pass(12);
    expect(expired).toEqual(['short']);
    pass(10_000);
    expect(expired).toEqual(['short', 'long']);
  });
});

describe('what is told of a deadline', () => {
  it('may set the next one', () => {
    const all: Lines = lines((item) => {
      if (all.expired.length < 4) all.deadlines.set(item, 10, performance.now());
    });
    all.add('a', 10);
    pass(25);
    expect(all.expired).toHaveLength(2);
    pass(100);
    expect(all.expired).toHaveLength(4);
  });

  it('may set one of no length again and again, and the thread goes on in between', async () => {
    vi.useRealTimers();
    let turns = 0;
    const all: Lines = lines((item) => {
      // The first ten, each in a turn of its own.
      if (all.expired.length < 10) all.deadlines.set(item, 0, performance.now());
    });
    const turn = (): void => {
      turns++;
      if (all.expired.length < 10) setImmediate(turn);
    };
    turn();
    all.add('a', 0);
    await until(() => all.expired.length === 10, 'it has expired ten times');
    expect(turns).toBeGreaterThanOrEqual(10);
  });

  it('may clear others that are due at the same moment', () => {
    const items: Item[] = [];
    const all: Lines = lines(() => {
      for (const item of items) all.deadlines.clear(item);
    });
    for (const [name, ms] of [
      ['a', 10],
      ['b', 10],
      ['c', 9],
      ['d', 8],
    ] as const)
      items.push(all.add(name, ms));
    const later = performance.now() + 500;
    vi.spyOn(performance, 'now').mockReturnValue(later);
    vi.advanceTimersToNextTimer();
    pass(1000);
    expect(all.expired).toHaveLength(1);
  });
});

describe('however many deadlines there are', () => {
  it('one timer serves them all', () => {
    const { add } = lines();
    for (let i = 0; i < 10_000; i++) add(`${i}`, [30_000, 5000, 1000][i % 3] as number);
    expect(vi.getTimerCount()).toBe(1);
  });

  it('few timers are ever made', () => {
    const spy = vi.spyOn(globalThis, 'setTimeout');
    const { deadlines, add, expired } = lines();
    // As a server does it: each gets one, and nearly all are cleared in time.
    for (let turn = 0; turn < 100; turn++) {
      const items = Array.from({ length: 100 }, (_, i) => add(`${turn}.${i}`, i % 2 === 0 ? 30_000 : 5000));
      pass(1);
      for (const item of items) deadlines.clear(item);
    }
    pass(60_000);
    expect(expired).toEqual([]);
    expect(spy.mock.calls.length).toBeLessThan(10);
  });

  it('none is left behind when all are cleared and the one timer has run', () => {
    const { deadlines, add } = lines();
    const items = Array.from({ length: 100 }, (_, i) => add(`${i}`, 100 + (i % 7)));
    for (const item of items) deadlines.clear(item);
    pass(200);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('they keep no program alive', () => {
    vi.useRealTimers();
    const spy = vi.spyOn(globalThis, 'setTimeout');
    const { deadlines, add } = lines();
    const item = add('a', 60_000);
    expect(spy.mock.results.map(({ value }) => (value as NodeJS.Timeout).hasRef())).toEqual([false]);
    deadlines.clear(item);
  });

  it.each([1, 2, 3, 4, 5])('those expire that should, and when they should: random sequence %i', (seed) => {
    let state = seed * 2654435761;
    const random = (below: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    /** What is due when, kept in the simplest way there is. */
    const due = new Map<Item, number>();
    const { deadlines } = lines((item) => {
      const at = due.get(item);
      expect(at, `${item.name} expires and is due`).toBeDefined();
      expect(performance.now()).toBeGreaterThanOrEqual(at as number);
      due.delete(item);
    });
    const items = Array.from({ length: 50 }, (_, i) => new Item(`${i}`));
    pass(500);
    for (let step = 0; step < 2000; step++) {
      const item = items[random(items.length)] as Item;
      const what = random(10);
      if (what < 6) {
        const ms = [0, 5, 20, 100, 400][random(5)] as number;
        const from = performance.now() - (random(4) === 0 ? random(300) : 0);
        deadlines.set(item, ms, from);
        due.set(item, from + ms);
      } else if (what < 8) {
        deadlines.clear(item);
        due.delete(item);
      } else {
        pass(2 + random(30));
        for (const at of due.values()) expect(at).toBeGreaterThan(performance.now() - 2);
      }
    }
    pass(1000);
    expect(due.size).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});
