import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { output } from './program.js';

const script = fileURLToPath(new URL('wrk.lua', import.meta.url));

/** What wrk calls itself, '4.1.0'; null without one. */
export function wrkVersion() {
  const { error, stdout, stderr } = spawnSync('wrk', ['-v'], { encoding: 'utf8' });
  return error === undefined ? (/\d+\.\d+[\d.]*/.exec(stdout + stderr)?.[0] ?? 'unknown') : null;
}

/**
 * What is sent with each request. No argument of a program may be longer than 128 KiB, so a long body is one that is repeated.
 * @typedef {{ type: string, body: string, times?: number }} Post
 */

/**
 * Keep-alive, no pipelining, one thread: every connection sends its next request when the last is answered.
 * `errors.status` counts answers of 400 and above.
 * @param {string} url
 * @param {{ duration: number, connections: number, post?: Post }} load duration in
 *   seconds, whole ones but for a smoke run; `post`: what is sent with each request, a GET without
 */
export async function wrk(url, { duration, connections, post }) {
  const load = { seconds: Math.ceil(duration), connections, post };
  if (!Number.isInteger(duration)) {
    // It counts whole seconds, and says what it has so far when it is interrupted. Unless that was too early.
    const result = await measure(url, { ...load, interruptAfter: duration }).catch(() => undefined);
    if (result !== undefined && result.requests > 0) return result;
  }
  return await measure(url, load);
}

async function measure(url, { seconds, connections, post, interruptAfter }) {
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', script, url];
  if (post) args.push('--', post.type, post.body, String(post.times ?? 1));
  const text = await output('wrk', args, {}, { interruptAfter });
  const { requests, microseconds, errors, latency } = JSON.parse(text.trim().split('\n').at(-1));
  return {
    requests,
    requestsPerSecond: requests / (microseconds / 1e6),
    latencyMs: Object.fromEntries(Object.entries(latency).map(([name, micros]) => [name, micros / 1000])),
    errors,
    errorCount: Object.values(errors).reduce((sum, count) => sum + count, 0),
  };
}
