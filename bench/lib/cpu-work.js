import { runProgram } from './program.js';
import { burn } from './work.js';

/** Rounds of `burn` that a smoke run takes for a millisecond: any machine does them in less. */
const LIGHT = 20_000;

let calibrated;
let light = false;

/** From now on nothing is calibrated, and a millisecond of work is a fraction of one. */
export function workLightly() {
  light = true;
}

/** How fast is the machine now? Its speed drifts, and a load that is a share of the capacity must go with it. */
export async function calibrate() {
  calibrated = light ? LIGHT : (await runProgram('./calibrate.js')).iterationsPerMs;
}

/**
 * Work worth `ms` milliseconds of one core of this machine, and the answer it must lead to.
 * @param {number} ms
 */
export async function cpuWork(ms) {
  if (calibrated === undefined) await calibrate();
  const iterations = Math.round(calibrated * ms);
  return { iterations, body: String(burn(iterations)), env: { BENCH_ITERATIONS: String(iterations) } };
}
