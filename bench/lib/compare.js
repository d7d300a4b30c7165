// Two builds against each other, from samples that were taken in pairs.
import { median, seeded } from './stats.js';

/** A difference that chance makes at most so often is more than noise. */
export const SIGNIFICANT = 0.05;
/** With fewer pairs no difference is that rare. */
export const FEWEST_PAIRS = 6;
/** Up to so many pairs every way of exchanging them is looked at; with more, a share of them. */
const EXACT_PAIRS = 14;
const DRAWS = 2 ** EXACT_PAIRS;

/**
 * What can be held against another build's in one sample: answers a second, and CPU seconds for each. A sample of several kinds of load
 * has them for each kind.
 * @param {any} sample
 * @returns {readonly { kind: string, rate: number, cpu: number | null }[]}
 */
export function measuresOf(sample) {
  if (sample.failure !== undefined || sample.ok === false) return [];
  if (sample.requestsPerSecond !== undefined)
    return [{ kind: '', rate: sample.requestsPerSecond, cpu: sample.cpuSecondsPerRequest }];
  return Object.entries({ ...sample, ...sample.kinds }).flatMap(([kind, of]) =>
    typeof of?.perSecond === 'number'
      ? [
          {
            kind,
            rate: of.perSecond,
            cpu: of.cpuSecondsPerRequest ?? of.cpuSecondsPerMessage ?? of.cpuSeconds ?? null,
          },
        ]
      : [],
  );
}

/**
 * One number of both builds, from pairs of it: the median of the ratios, the least and the most, and how often chance alone would bring
 * about as much.
 *
 * The test exchanges the two of each pair at random (a sign-flip permutation test, of the mean of the logarithms of the ratios): were the
 * builds the same, it would not matter which is which.
 * @param {readonly (readonly [ours: number, theirs: number])[]} pairs
 */
export function compared(pairs) {
  const ratios = pairs.map(([ours, theirs]) => ours / theirs);
  const p = chance(ratios.map(Math.log));
  return {
    pairs: ratios.length,
    median: median(ratios),
    min: Math.min(...ratios),
    max: Math.max(...ratios),
    p,
    differs: ratios.length >= FEWEST_PAIRS && p <= SIGNIFICANT,
  };
}

/** Two-sided p of a mean that is not 0. @param {readonly number[]} values */
function chance(values) {
  const n = values.length;
  const exact = n <= EXACT_PAIRS;
  const random = seeded(n);
  const count = exact ? 2 ** n : DRAWS;
  const sum = Math.abs(values.reduce((total, value) => total + value, 0));
  // Of a share of the ways, the way it was is one.
  let asFar = exact ? 0 : 1;
  for (let i = 0; i < count; i++) {
    let other = 0;
    for (let k = 0; k < n; k++) {
      const flip = exact ? (i >> k) & 1 : random() < 0.5;
      other += flip ? values[k] : -values[k];
    }
    // Not less but for rounding: the way it was is one of them.
    if (Math.abs(other) >= sum * (1 - 1e-9)) asFar++;
  }
  return asFar / (exact ? count : count + 1);
}
