import { log } from './log.js';
import { ServerProcess } from './server-process.js';
import { shuffled } from './stats.js';

/**
 * @typedef {{ name: string, file: string, options?: object }} Entry a server under its name in the results
 */

/**
 * Rounds of one measurement a server, in another order every round and in a fresh process every time, so that
 * neither the neighbour nor the history of a server decides its figure.
 * @template {Entry} E
 * @param {readonly E[]} entries
 * @param {object} plan
 * @param {number} plan.rounds
 * @param {(round: number) => unknown} [plan.eachRound] what comes behind the measurements of a round
 * @param {(round: number) => unknown} [plan.beforeRound]
 * @param {() => Record<string, string>} [plan.env] of the servers
 * @param {(server: ServerProcess, entry: E, round: number) => Promise<{ ok: boolean }>} plan.measure
 * @param {(sample: any) => string} plan.describe one line of progress
 */
export async function measureRounds(entries, { rounds, eachRound, beforeRound, env, measure, describe }) {
  const samples = new Map(entries.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    await beforeRound?.(round);
    for (const entry of shuffled(entries)) {
      const sample = await measureOnce(entry, env?.(), (server) => measure(server, entry, round));
      samples.get(entry.name).push({ round, ...sample });
      const text = sample.failure === undefined ? describe(sample) : `FAILED: ${sample.failure}`;
      log(`  round ${round}/${rounds}  ${entry.name.padEnd(20)} ${text}`);
    }
    await eachRound?.(round);
  }
  return entries.map(({ name, options }) => {
    const all = samples.get(name);
    return {
      name,
      options,
      ok: all.every(({ ok }) => ok),
      failures: all.flatMap(({ failure }) => failure ?? []),
      samples: all,
    };
  });
}

/** The measurements of a server that came to an end. */
export function finished({ samples }) {
  return samples.filter(({ failure }) => failure === undefined);
}

async function measureOnce({ file, options }, env, measure) {
  let server;
  try {
    server = await ServerProcess.start(file, options, env);
    const sample = await measure(server);
    if (!server.running) throw new Error('the server died under load');
    return sample;
  } catch (error) {
    return { ok: false, failure: error.message };
  } finally {
    await server?.stop();
  }
}
