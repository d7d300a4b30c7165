import { spread } from './stats.js';

/**
 * A figure the project has set itself, and whether this run reached it. `reached` is null when it was not judged: a
 * smoke run, or errors in a measurement it rests on.
 * @typedef {{ figure: string, value: number, unit: string, target: string, reached: boolean | null }} Figure
 */

/**
 * A figure from its value in each round: their median, or the worst where one bad round is one too many.
 * @param {{ figure: string, unit?: string, atLeast?: number, atMost?: number, worst?: boolean }} wanted
 * @param {readonly number[]} perRound
 * @param {boolean} judge
 * @returns {(Figure & object) | null} null when there is nothing to judge
 */
export function judged({ figure, unit = '', atLeast, atMost, worst = false }, perRound, judge) {
  if (perRound.length === 0) return null;
  const { median, min, max } = spread(perRound);
  const value = !worst ? median : atMost === undefined ? min : max;
  const reached = atMost === undefined ? value >= atLeast : value <= atMost;
  return {
    figure,
    value,
    unit,
    min,
    max,
    perRound,
    target: atMost === undefined ? `>= ${atLeast}` : `<= ${atMost}`,
    reached: judge ? reached : null,
  };
}

/**
 * A number of two servers, one divided by the other: within each round first, then the median over the rounds. What
 * slows the whole machine for a while slows both and leaves the ratio alone.
 * @param {any} a results of measureRounds
 * @param {any} b
 * @param {(sample: any) => number} number
 */
export function perRound(a, b, number) {
  return (a?.samples ?? []).flatMap((sample) => {
    const other = b?.samples.find(({ round }) => round === sample.round);
    const both = other !== undefined && sample.failure === undefined && other.failure === undefined;
    return both ? [number(sample) / number(other)] : [];
  });
}

/**
 * The ratio of two servers' throughput.
 * @param {readonly any[]} servers results of measureThroughput
 * @param {{ figure: string, of: string, to: string, atLeast: number }} wanted
 * @param {boolean} judge
 * @returns {(Figure & object) | null} null when one of the two was not measured
 */
export function ratio(servers, { of, to, ...wanted }, judge) {
  const a = servers.find(({ name }) => name === of);
  const b = servers.find(({ name }) => name === to);
  const ratios = perRound(a, b, ({ requestsPerSecond }) => requestsPerSecond);
  if (ratios.length === 0) return null;
  return {
    ...judged({ ...wanted, unit: 'x' }, ratios, judge && a.ok && b.ok),
    of,
    to,
    ratioOfMedians: a.requestsPerSecond.median / b.requestsPerSecond.median,
  };
}
