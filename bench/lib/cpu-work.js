import { runProgram } from './program.js';
import { burn } from './work.js';

let calibrated;

/**
 * Work worth `ms` milliseconds of one core of this machine, and the answer it must lead to.
 * @param {number} ms
 */
export async function cpuWork(ms) {
  calibrated ??= (await runProgram('./calibrate.js')).iterationsPerMs;
  const iterations = calibrated * ms;
  return { iterations, body: String(burn(iterations)), env: { BENCH_ITERATIONS: String(iterations) } };
}
