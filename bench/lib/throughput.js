import { checkAnswer } from './answer.js';
import { poolFigures, poolNow, poolSummary } from './pool-figures.js';
import { finished, measureRounds } from './rounds.js';
import { spread } from './stats.js';
import { wrk } from './wrk.js';

/**
 * @typedef {{ rounds: number, duration: number, warmup: number, connections: number }} Load
 */

/**
 * Requests a second of each server.
 * @param {readonly import('./rounds.js').Entry[]} entries
 * @param {Load & { body: string, type?: string, path?: string, post?: { type: string, body: string },
 *   env?: Record<string, string>, eachRound?: (round: number) => Promise<void> }} load `body` and its `type` are what is to be
 *   answered, `post` what is sent
 */
export async function measureThroughput(entries, { rounds, env, eachRound, ...load }) {
  const servers = await measureRounds(entries, {
    rounds,
    eachRound,
    env: () => env,
    measure: (server) => throughputOf(server, load),
    describe,
  });
  return servers.map(summary);
}

/**
 * One measurement of a server that is running.
 * @param {import('./server-process.js').ServerProcess} server
 * @param {{ duration: number, warmup: number, connections: number, path?: string, body: string, type?: string, post?: object }} load
 */
export async function throughputOf(server, { duration, warmup, connections, path = '', body, type, post }) {
  const url = server.url + path;
  await checkAnswer(url, { body, type, post });
  if (warmup > 0) await wrk(url, { duration: warmup, connections, post });
  const poolBefore = await poolNow(server);
  const before = server.cpuSeconds();
  const result = await wrk(url, { duration, connections, post });
  const after = server.cpuSeconds();
  const cpu = before === null || after === null ? null : (after - before) / result.requests;
  return {
    ok: result.errorCount === 0,
    ...result,
    cpuSecondsPerRequest: cpu,
    peakMb: server.memory()?.peak ?? null,
    pool: poolFigures(poolBefore, await poolNow(server)),
  };
}

function summary({ samples, failures, ...server }) {
  const done = finished({ samples });
  const has = done.length > 0;
  const known = (number) => {
    const values = done.map(number).filter((value) => value !== null);
    return values.length > 0 ? spread(values) : null;
  };
  const latency = (p) => spread(done.map(({ latencyMs }) => latencyMs[p]));
  return {
    ...server,
    requestsPerSecond: has ? spread(done.map((sample) => sample.requestsPerSecond)) : null,
    latencyMs: has
      ? { p50: latency('p50'), p99: latency('p99'), p999: latency('p999'), max: latency('max') }
      : null,
    cpuSecondsPerRequest: known(({ cpuSecondsPerRequest }) => cpuSecondsPerRequest),
    peakMb: known(({ peakMb }) => peakMb),
    pool: poolSummary(done),
    errorCount: done.reduce((sum, sample) => sum + sample.errorCount, 0),
    failures,
    samples,
  };
}

function describe(sample) {
  const rate = `${Math.round(sample.requestsPerSecond).toLocaleString('en')} requests/s`;
  return sample.ok ? rate : `${rate}, WITH ERRORS ${JSON.stringify(sample.errors)}`;
}
