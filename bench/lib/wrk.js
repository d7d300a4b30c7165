import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { output } from './program.js';

const script = fileURLToPath(new URL('wrk.lua', import.meta.url));

export function hasWrk() {
  return spawnSync('wrk', ['-v']).error === undefined;
}

/**
 * Keep-alive, no pipelining, one thread: every connection sends its next request when the last is answered.
 * `errors.status` counts answers of 400 and above.
 * @param {string} url
 * @param {{ duration: number, connections: number, post?: { type: string, body: string } }} load duration in whole
 *   seconds; `post`: what is sent with each request, a GET without
 */
export async function wrk(url, { duration, connections, post }) {
  const args = ['-t1', `-c${connections}`, `-d${duration}s`, '--timeout', '10s', '-s', script, url];
  if (post) args.push('--', post.type, post.body);
  const text = await output('wrk', args);
  const { requests, microseconds, errors, latency } = JSON.parse(text.trim().split('\n').at(-1));
  return {
    requests,
    requestsPerSecond: requests / (microseconds / 1e6),
    latencyMs: { p50: latency.p50 / 1000, p99: latency.p99 / 1000, max: latency.max / 1000 },
    errors,
    errorCount: Object.values(errors).reduce((sum, count) => sum + count, 0),
  };
}
