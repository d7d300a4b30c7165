import { median, spread } from './stats.js';

/**
 * A figure the project has set itself, and whether this run reached it. `reached` is null when it was not judged: a
 * smoke run, or errors in a measurement it rests on.
 * @typedef {{ figure: string, value: number, unit: string, target: string, reached: boolean | null }} Figure
 */

/**
 * The ratio of two servers' throughput: within each round first, then the median over the rounds. What slows the
 * whole machine for a while slows both and leaves the ratio alone.
 * @param {readonly any[]} servers results of measureThroughput
 * @param {{ figure: string, of: string, to: string, atLeast: number }} wanted
 * @param {boolean} judge
 * @returns {(Figure & object) | null} null when one of the two was not measured
 */
export function ratio(servers, { figure, of, to, atLeast }, judge) {
  const a = servers.find(({ name }) => name === of);
  const b = servers.find(({ name }) => name === to);
  if (!a?.requestsPerSecond || !b?.requestsPerSecond) return null;
  const perRound = a.samples.flatMap((sample) => {
    const other = b.samples.find(({ round }) => round === sample.round);
    const both = sample.failure === undefined && other.failure === undefined;
    return both ? [sample.requestsPerSecond / other.requestsPerSecond] : [];
  });
  if (perRound.length === 0) return null;
  const value = median(perRound);
  return {
    figure,
    of,
    to,
    value,
    unit: 'x',
    ...spreadOnly(perRound),
    perRound,
    ratioOfMedians: a.requestsPerSecond.median / b.requestsPerSecond.median,
    target: `>= ${atLeast}`,
    reached: judge && a.ok && b.ok ? value >= atLeast : null,
  };
}

function spreadOnly(values) {
  const { min, max } = spread(values);
  return { min, max };
}
