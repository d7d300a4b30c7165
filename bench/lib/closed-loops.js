import { checkAnswer } from './answer.js';
import { runLoad } from './program.js';
import { wrk } from './wrk.js';

/** Long enough to see that everything is answered, and rightly. */
const SMOKE_SECONDS = 0.2;

/**
 * @typedef {object} Loop
 * @property {string} name
 * @property {string} path
 * @property {string} body what is to be answered
 * @property {import('./wrk.js').Post} [post]
 * @property {boolean} [chunked] no length need be known beforehand
 *
 * @typedef {{ requests: number, perSecond: number, p50: number, p99: number, errors: number, cpuSeconds: number | null,
 *   ioSeconds: number | null }} Looped `p50`, `p99`: ms; the CPU seconds of a request, of the server and of its main thread
 */

/**
 * Several kinds of requests to one server, each for itself: so many connections, and the next request leaves when the last is
 * answered. Before and after each of them one answer is compared. In a smoke run they come all at once, from a client that compares every answer.
 * @param {import('./server-process.js').ServerProcess} server
 * @param {readonly Loop[]} loops
 * @param {{ duration: number, warmup: number, connections: number, smoke: boolean }} settings
 * @returns {Promise<Record<string, Looped>>}
 */
export async function closedLoops(server, loops, { duration, warmup, connections, smoke }) {
  if (smoke) return await allAtOnce(server, loops);
  const results = {};
  for (const { name, path, post, ...expected } of loops) {
    const url = server.url + path;
    // When this is answered, nothing is left in any queue of what clients have asked for that are gone.
    const settled = () => checkAnswer(url, { ...expected, post });
    await settled();
    if (warmup > 0) {
      await wrk(url, { duration: warmup, connections, post });
      await settled();
    }
    const before = clocks(server);
    const { requests, requestsPerSecond, latencyMs, errorCount } = await wrk(url, {
      duration,
      connections,
      post,
    });
    results[name] = {
      requests,
      perSecond: requestsPerSecond,
      p50: latencyMs.p50,
      p99: latencyMs.p99,
      errors: errorCount,
      ...perRequest(before, clocks(server), requests),
    };
    await settled();
  }
  return results;
}

async function allAtOnce(server, loops) {
  const before = clocks(server);
  const { requests, seconds, kinds } = await runLoad({
    url: server.url,
    seconds: SMOKE_SECONDS,
    kinds: loops.map((loop) => ({ ...loop, inFlight: 1 })),
  });
  const cpu = perRequest(before, clocks(server), requests);
  return Object.fromEntries(
    Object.entries(kinds).map(([name, { sent, ok, latencyMs }]) => [
      name,
      {
        requests: sent,
        perSecond: sent / seconds,
        p50: latencyMs.p50,
        p99: latencyMs.p99,
        errors: sent - ok,
        ...cpu,
      },
    ]),
  );
}

/** @param {import('./server-process.js').ServerProcess} server */
export function clocks(server) {
  return { all: server.cpuSeconds(), io: server.mainThreadCpuSeconds() };
}

function perRequest(before, after, requests) {
  const each = (clock) =>
    before[clock] === null || after[clock] === null ? null : (after[clock] - before[clock]) / requests;
  return { cpuSeconds: each('all'), ioSeconds: each('io') };
}

/** @param {Record<string, Looped>} results */
export const errorsIn = (results) => Object.values(results).reduce((sum, { errors }) => sum + errors, 0);

/**
 * Whether a run is in order. That a peer cannot keep up, and lets somebody wait for too long, is a finding.
 * @param {readonly { name: string, ok: boolean, failures: readonly string[] }[]} servers
 */
export const inOrder = (servers) =>
  servers.every(({ name, ok, failures }) => (name.startsWith('offloop') ? ok : failures.length === 0));
