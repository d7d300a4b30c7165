import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Distribution, Histogram, WINDOW } from '../src/pool/histogram.js';
import { FakePool } from './support/pool-fakes.js';

const MAX = 2 ** 31 - 1;

function of(values: readonly number[]): Histogram {
  const histogram = new Histogram();
  for (const value of values) histogram.record(value);
  return histogram;
}

const told = (...histograms: Histogram[]): Distribution => Histogram.merge(histograms);

/** The value that so many of the samples do not exceed, from all of them. */
function exactly(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.ceil(sorted.length * share) - 1] as number;
}

/** Numbers from 0 to 1, the same in each run. */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const random = dice(7);
const many = (n: number, value: () => number): number[] => Array.from({ length: n }, value);

describe('a histogram', () => {
  it('has nothing to say as long as it is empty', () => {
    expect(told(new Histogram())).toEqual({ count: 0, p50: null, p90: null, p99: null, max: null });
    expect(told()).toEqual({ count: 0, p50: null, p90: null, p99: null, max: null });
  });

  it('says of a single sample what it is', () => {
    for (const value of [0, 1, 15, 16, 17, 255, 256, 1000, 123_456, 2 ** 30, MAX]) {
      expect(told(of([value]))).toEqual({ count: 1, p50: value, p90: value, p99: value, max: value });
    }
  });

  it('is exact below 16', () => {
    const values = many(1000, () => Math.floor(random() * 16));
    const { p50, p90, p99 } = told(of(values));
    expect([p50, p90, p99]).toEqual([0.5, 0.9, 0.99].map((share) => exactly(values, share)));
  });

  it('knows every value from 0 to 5000 to an eighth, and none too low', () => {
    for (let value = 0; value <= 5000; value++) {
      // A larger one behind it, so that the most there was does not help.
      const { p50 } = told(of([value, MAX])) as { p50: number };
      expect(p50).toBeGreaterThanOrEqual(value);
      expect(p50).toBeLessThanOrEqual(value * 1.125);
    }
  });

  it('knows the values on both sides of each power of two to an eighth', () => {
    for (let power = 4; power <= 30; power++) {
      for (const value of [2 ** power - 1, 2 ** power, 2 ** power + 1]) {
        const { p50 } = told(of([value, MAX])) as { p50: number };
        expect(p50).toBeGreaterThanOrEqual(value);
        expect(p50).toBeLessThanOrEqual(value * 1.125);
      }
    }
  });

  it.each([
    ['even', () => random() * 1e6],
    ['close together', () => 5000 + random() * 10],
    ['of all sizes', () => 2 ** (random() * 30)],
    ['mostly small', () => (random() < 0.95 ? 20 + random() * 30 : 50_000 + random() * 1e5)],
    ['of two kinds', () => (random() < 0.5 ? 10 : 1e6)],
    ['all the same', () => 777],
  ])('is within an eighth of the samples themselves when they are %s', (_, value) => {
    for (const n of [1, 2, 3, 10, 99, 100, 101, 5000]) {
      const values = many(n, () => Math.floor(value()));
      const all = told(of(values));
      expect(all.count).toBe(n);
      expect(all.max).toBe(Math.max(...values));
      for (const [share, found] of [
        [0.5, all.p50],
        [0.9, all.p90],
        [0.99, all.p99],
      ] as [number, number][]) {
        expect(found).toBeGreaterThanOrEqual(exactly(values, share));
        expect(found).toBeLessThanOrEqual(exactly(values, share) * 1.125);
      }
    }
  });

  it('never has its percentiles out of order, or above the most there was', () => {
    for (let round = 0; round < 200; round++) {
      const values = many(1 + Math.floor(random() * 50), () => 2 ** (random() * 31));
      const { p50, p90, p99, max } = told(of(values)) as Record<'p50' | 'p90' | 'p99' | 'max', number>;
      expect(p50).toBeLessThanOrEqual(p90);
      expect(p90).toBeLessThanOrEqual(p99);
      expect(p99).toBeLessThanOrEqual(max);
      expect(max).toBe(Math.floor(Math.max(...values)));
    }
  });

  it('takes whatever it is given', () => {
    expect(told(of([-5, -0.001, 0, Number.NaN]))).toMatchObject({ count: 4, p99: 0, max: 0 });
    expect(told(of([0.4, 3.99]))).toMatchObject({ count: 2, p50: 0, max: 3 });
    expect(told(of([MAX, 2 ** 31, 2 ** 40, Number.POSITIVE_INFINITY]))).toMatchObject({
      count: 4,
      p50: MAX,
      max: MAX,
    });
  });

  it('counts beyond what fits into one bucket of a day', () => {
    const histogram = new Histogram();
    for (let i = 0; i < 1_000_000; i++) histogram.record(100);
    histogram.record(200);
    expect(told(histogram)).toMatchObject({ count: 1_000_001, max: 200 });
    expect(told(histogram).p99).toBeLessThan(113);
  });
});

describe('a histogram that is rotated', () => {
  it('still speaks of the window before', () => {
    const histogram = of([100, 100, 9000]);
    histogram.rotate();
    expect(told(histogram)).toMatchObject({ count: 3, max: 9000 });
    histogram.record(5);
    expect(told(histogram)).toMatchObject({ count: 4, max: 9000 });
  });

  it('forgets the window before the last, the most there was included', () => {
    const histogram = of([9000]);
    histogram.rotate();
    histogram.record(5);
    histogram.rotate();
    expect(told(histogram)).toEqual({ count: 1, p50: 5, p90: 5, p99: 5, max: 5 });
    histogram.rotate();
    expect(told(histogram)).toEqual({ count: 0, p50: null, p90: null, p99: null, max: null });
  });

  it('mixes nothing up over many windows', () => {
    const histogram = new Histogram();
    for (let window = 1; window <= 50; window++) {
      for (let i = 0; i < window; i++) histogram.record(window);
      const { count, max } = told(histogram);
      expect({ count, max }).toEqual({ count: window === 1 ? 1 : 2 * window - 1, max: window });
      histogram.rotate();
    }
  });
});

describe('several histograms merged', () => {
  it('say what one would that had all their samples', () => {
    const values = many(3000, () => Math.floor(2 ** (random() * 25)));
    const parts = [0, 1, 2].map((part) => of(values.filter((_, i) => i % 3 === part)));
    parts[1]?.rotate();
    expect(told(...parts)).toEqual(told(of(values)));
  });

  it('are not changed by it', () => {
    const [a, b] = [of([1, 2, 3]), of([1000])];
    const before = told(a);
    told(a, b, new Histogram());
    expect(told(a)).toEqual(before);
    expect(told(b).count).toBe(1);
  });

  it('count for nothing while they are empty', () => {
    expect(told(new Histogram(), of([42]), new Histogram())).toEqual(told(of([42])));
  });
});

describe('the distributions of a pool', () => {
  beforeEach(() => {
    vi.useFakeTimers({
      toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate', 'performance'],
    });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it('speak of the last one to two windows while there is work', () => {
    const pool = new FakePool(1);
    for (let i = 0; i < 10; i++) pool.learn(0, 500);
    const { dispatcher } = pool;
    expect(dispatcher.runTime()).toMatchObject({ count: 10, max: 500 });
    vi.advanceTimersByTime(WINDOW + 1000);
    dispatcher.rotate();
    pool.learn(0, 70);
    expect(dispatcher.runTime()).toMatchObject({ count: 11, max: 500 });
    vi.advanceTimersByTime(WINDOW + 1000);
    dispatcher.rotate();
    pool.learn(0, 80);
    expect(dispatcher.runTime()).toMatchObject({ count: 2, max: 80 });
    expect(pool.mount(0).stats.runTimeMicros).toEqual(dispatcher.runTime());
    expect(Histogram.merge([pool.at(0).worker.runTime])).toEqual(dispatcher.runTime());
  });

  it('forget what is long ago when nobody has looked since', () => {
    const pool = new FakePool(1);
    for (let i = 0; i < 10; i++) pool.learn(0, 500);
    vi.advanceTimersByTime(60 * WINDOW);
    pool.dispatcher.rotate();
    expect(pool.dispatcher.runTime()).toEqual({ count: 0, p50: null, p90: null, p99: null, max: null });
    expect(pool.dispatcher.queueWait().count).toBe(0);
    expect(pool.mount(0).stats.runTimeMicros.count).toBe(0);
  });
});
