// What offloop's own numbers say of a measurement. Other servers have none.
import { spread } from './stats.js';

/**
 * The pool's numbers now, for {@link poolFigures}; null where the server has no pool, or nobody to ask.
 * @param {import('./server-process.js').ServerProcess} server
 */
export async function poolNow(server) {
  return server.answers('stats') ? (await server.ask('stats')).pool : null;
}

/**
 * What the pool did between two looks. The wait in the queue is of the last minute or two, warm-up included, and at most an eighth too
 * high; `batchSize`: how many requests went to a thread at once, on average.
 */
export function poolFigures(before, after) {
  if (before === null || after === null) return null;
  const { p50, p99 } = after.queueWaitMicros;
  // Builds from before there was such a count can be measured, too.
  const batches = after.batches - before.batches;
  return {
    queueWaitMs: { p50: p50 === null ? null : p50 / 1000, p99: p99 === null ? null : p99 / 1000 },
    batchSize: batches > 0 ? (after.accepted - before.accepted) / batches : null,
    refused: after.refused - before.refused,
  };
}

/** @param {readonly any[]} samples of one server, with what {@link poolFigures} made */
export function poolSummary(samples) {
  const pools = samples.flatMap(({ pool }) => pool ?? []);
  if (pools.length === 0) return null;
  const of = (number) => {
    const values = pools.map(number).filter((value) => value !== null);
    return values.length === 0 ? null : spread(values);
  };
  return {
    queueWaitMs: {
      p50: of(({ queueWaitMs }) => queueWaitMs.p50),
      p99: of(({ queueWaitMs }) => queueWaitMs.p99),
    },
    batchSize: of(({ batchSize }) => batchSize),
    refused: pools.reduce((sum, { refused }) => sum + refused, 0),
  };
}
