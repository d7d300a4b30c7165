import { log } from './log.js';
import { ServerProcess } from './server-process.js';
import { shuffled } from './stats.js';

/**
 * @typedef {object} Entry a server under its name in the results
 * @property {string} name
 * @property {string} file
 * @property {object} [options]
 * @property {string} [pair] entries of the same pair are measured right after one another
 * @property {URL} [bench] the folder of a bench that is not this one, beside another build
 */

let width = 1;

/**
 * How many servers are measured at the same time from now on. More than one only where the figures do not matter.
 * @param {number} count
 */
export function measureAtOnce(count) {
  width = count;
}

/**
 * Rounds of one measurement a server, in another order every round and in a fresh process every time, so that
 * neither the neighbour nor the history of a server decides its figure.
 * @template {Entry} E
 * @param {readonly E[]} entries
 * @param {object} plan
 * @param {number} plan.rounds
 * @param {(round: number) => unknown} [plan.eachRound] what comes behind the measurements of a round
 * @param {(round: number) => unknown} [plan.beforeRound]
 * @param {(entry: E) => Record<string, string>} [plan.env] of the servers
 * @param {(server: ServerProcess, entry: E, round: number) => Promise<{ ok: boolean }>} plan.measure
 * @param {(sample: any) => string} plan.describe one line of progress
 */
export async function measureRounds(entries, { rounds, eachRound, beforeRound, env, measure, describe }) {
  const samples = new Map(entries.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    await beforeRound?.(round);
    const left = inOrder(entries);
    const lane = async () => {
      for (let entry = left.shift(); entry !== undefined; entry = left.shift()) {
        const { name } = entry;
        const sample = await measureOnce(entry, env?.(entry), (server) => measure(server, entry, round));
        samples.get(name).push({ round, ...sample });
        const text = sample.failure === undefined ? describe(sample) : `FAILED: ${sample.failure}`;
        log(`  round ${round}/${rounds}  ${name.padEnd(20)} ${text}`);
      }
    };
    await Promise.all(Array.from({ length: width }, lane));
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

/** At random, pairs together. @template {Entry} E @param {readonly E[]} entries */
function inOrder(entries) {
  const pairs = new Map();
  for (const entry of entries) {
    const pair = entry.pair ?? entry.name;
    pairs.set(pair, [...(pairs.get(pair) ?? []), entry]);
  }
  return shuffled([...pairs.values()]).flatMap(shuffled);
}

/** The measurements of a server that came to an end. */
export function finished({ samples }) {
  return samples.filter(({ failure }) => failure === undefined);
}

async function measureOnce({ file, options, bench }, env, measure) {
  let server;
  try {
    server = await ServerProcess.start(file, options, env, bench);
    const sample = await measure(server);
    if (!server.running) throw new Error('the server died under load');
    return sample;
  } catch (error) {
    return { ok: false, failure: error.message };
  } finally {
    await server?.stop();
  }
}
