import { checkAnswer } from './answer.js';
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
    measure: (server) => measure(server, load),
    describe,
  });
  return servers.map(summary);
}

async function measure(server, { duration, warmup, connections, path = '', body, type, post }) {
  const url = server.url + path;
  await checkAnswer(url, { body, type, post });
  if (warmup > 0) await wrk(url, { duration: warmup, connections, post });
  const before = server.cpuSeconds();
  const result = await wrk(url, { duration, connections, post });
  const after = server.cpuSeconds();
  const cpu = before === null || after === null ? null : (after - before) / result.requests;
  return { ok: result.errorCount === 0, ...result, cpuSecondsPerRequest: cpu };
}

function summary({ samples, failures, ...server }) {
  const done = finished({ samples });
  const has = done.length > 0;
  const cpu = done.map((sample) => sample.cpuSecondsPerRequest).filter((value) => value !== null);
  return {
    ...server,
    requestsPerSecond: has ? spread(done.map((sample) => sample.requestsPerSecond)) : null,
    latencyMs: has
      ? {
          p50: spread(done.map(({ latencyMs }) => latencyMs.p50)),
          p99: spread(done.map(({ latencyMs }) => latencyMs.p99)),
        }
      : null,
    cpuSecondsPerRequest: cpu.length > 0 ? spread(cpu) : null,
    errorCount: done.reduce((sum, sample) => sum + sample.errorCount, 0),
    failures,
    samples,
  };
}

function describe(sample) {
  const rate = `${Math.round(sample.requestsPerSecond).toLocaleString('en')} requests/s`;
  return sample.ok ? rate : `${rate}, WITH ERRORS ${JSON.stringify(sample.errors)}`;
}
