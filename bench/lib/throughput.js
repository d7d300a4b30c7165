import { checkAnswer } from './answer.js';
import { log } from './log.js';
import { ServerProcess } from './server-process.js';
import { shuffled, spread } from './stats.js';
import { wrk } from './wrk.js';

/**
 * @typedef {{ name: string, file: string, options?: object }} Entry a server under its name in the results
 * @typedef {{ rounds: number, duration: number, warmup: number, connections: number }} Load
 */

/**
 * Rounds of one measurement a server, in another order every round and in a fresh process every time, so that
 * neither the neighbour nor the history of a server decides its figure.
 * @param {readonly Entry[]} entries
 * @param {Load & { body: string, env?: Record<string, string>, eachRound?: (round: number) => Promise<void> }} load
 */
export async function measureThroughput(entries, { rounds, body, env, eachRound, ...load }) {
  const samples = new Map(entries.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const entry of shuffled(entries)) {
      const sample = await measureOnce(entry, load, body, env);
      samples.get(entry.name).push({ round, ...sample });
      log(`  round ${round}/${rounds}  ${entry.name.padEnd(20)} ${describe(sample)}`);
    }
    await eachRound?.(round);
  }
  return entries.map(({ name, options }) => summary(name, options, samples.get(name)));
}

async function measureOnce({ file, options }, { duration, warmup, connections }, body, env) {
  let server;
  try {
    server = await ServerProcess.start(file, options, env);
    await checkAnswer(server.url, { body });
    if (warmup > 0) await wrk(server.url, { duration: warmup, connections });
    const before = server.cpuSeconds();
    const result = await wrk(server.url, { duration, connections });
    const after = server.cpuSeconds();
    if (!server.running) throw new Error('the server died under load');
    const cpu = before === null || after === null ? null : (after - before) / result.requests;
    return { ok: result.errorCount === 0, ...result, cpuSecondsPerRequest: cpu };
  } catch (error) {
    return { ok: false, failure: error.message };
  } finally {
    await server?.stop();
  }
}

function summary(name, options, samples) {
  const done = samples.filter((sample) => sample.failure === undefined);
  const has = done.length > 0;
  const cpu = done.map((sample) => sample.cpuSecondsPerRequest).filter((value) => value !== null);
  return {
    name,
    options,
    ok: samples.every((sample) => sample.ok),
    requestsPerSecond: has ? spread(done.map((sample) => sample.requestsPerSecond)) : null,
    latencyMs: has
      ? {
          p50: spread(done.map(({ latencyMs }) => latencyMs.p50)),
          p99: spread(done.map(({ latencyMs }) => latencyMs.p99)),
        }
      : null,
    cpuSecondsPerRequest: cpu.length > 0 ? spread(cpu) : null,
    errorCount: done.reduce((sum, sample) => sum + sample.errorCount, 0),
    failures: samples.flatMap((sample) => sample.failure ?? []),
    samples,
  };
}

function describe(sample) {
  if (sample.failure !== undefined) return `FAILED: ${sample.failure}`;
  const rate = `${Math.round(sample.requestsPerSecond).toLocaleString('en')} requests/s`;
  return sample.ok ? rate : `${rate}, WITH ERRORS ${JSON.stringify(sample.errors)}`;
}
