/** How long things took lately: percentiles from buckets, at a few nanoseconds a sample. I/O thread. */

/** Microseconds of recent samples. `count` is how many there were; the rest is null while there is none. */
export interface Distribution {
  count: number;
  p50: number | null;
  p90: number | null;
  p99: number | null;
  max: number | null;
}

/** Ms a window lasts: a distribution speaks of the last one to two. */
export const WINDOW = 60_000;

/** Values below are counted exactly; above, each power of two has eight buckets, so a percentile is at most an eighth too high. */
const EXACT = 16;
const BUCKETS = EXACT + (31 - 4) * 8;

const bucketOf = (value: number): number => {
  if (value < EXACT) return value;
  const exponent = 31 - Math.clz32(value);
  return EXACT + (exponent - 4) * 8 + ((value >> (exponent - 3)) & 7);
};

/** The largest value that falls into a bucket. */
const topOf = (bucket: number): number => {
  if (bucket < EXACT) return bucket;
  const exponent = ((bucket - EXACT) >> 3) + 4;
  const eighth = (bucket - EXACT) & 7;
  return 2 ** exponent + (eighth + 1) * 2 ** (exponent - 3) - 1;
};

export class Histogram {
  private counts = new Uint32Array(BUCKETS);
  private before = new Uint32Array(BUCKETS);
  private max = 0;
  private maxBefore = 0;

  record(micros: number): void {
    const value = micros > 0 ? Math.min(micros, 2 ** 31 - 1) | 0 : 0;
    const bucket = bucketOf(value);
    this.counts[bucket] = (this.counts[bucket] as number) + 1;
    if (value > this.max) this.max = value;
  }

  /** A new window begins: forget the one before the last. */
  rotate(): void {
    [this.counts, this.before] = [this.before.fill(0), this.counts];
    this.maxBefore = this.max;
    this.max = 0;
  }

  /** The distribution over all of these together. */
  static merge(histograms: Iterable<Histogram>): Distribution {
    const counts = new Float64Array(BUCKETS);
    let max = 0;
    let count = 0;
    for (const histogram of histograms) {
      max = Math.max(max, histogram.max, histogram.maxBefore);
      for (let i = 0; i < BUCKETS; i++) {
        const n = (histogram.counts[i] as number) + (histogram.before[i] as number);
        counts[i] = (counts[i] as number) + n;
        count += n;
      }
    }
    if (count === 0) return { count, p50: null, p90: null, p99: null, max: null };
    const at = (share: number): number => {
      let left = Math.ceil(count * share);
      for (let i = 0; i < BUCKETS; i++) {
        left -= counts[i] as number;
        if (left <= 0) return Math.min(topOf(i), max);
      }
      return max;
    };
    return { count, p50: at(0.5), p90: at(0.9), p99: at(0.99), max };
  }
}
