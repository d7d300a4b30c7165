// Runs that are kept: bench/results/SCENARIO.json, of which the figures in docs/benchmarks.md are made.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { reportOf } from './report.js';

const folder = new URL('../results/', import.meta.url);
const root = new URL('../../', import.meta.url).href;
const fileOf = (name) => new URL(`${name}.json`, folder);

/** Lists that are longer are left out when nothing of the report depends on them. */
const LONGEST_LIST = 100;

/**
 * @typedef {{ command: string, machine: any, result: any }} Kept one recorded run
 */

/** Six digits are more than any of the numbers deserves. */
export function readable(_key, value) {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value;
}

/**
 * Keep a run, in place of the one before.
 * @param {import('../run.js').Scenario} scenario
 * @param {Kept} run
 */
export function keep(scenario, run) {
  const whole = JSON.stringify(run, readable, 1);
  const short = JSON.stringify(
    run,
    (key, value) => (Array.isArray(value) && value.length > LONGEST_LIST ? undefined : readable(key, value)),
    1,
  );
  mkdirSync(folder, { recursive: true });
  const kept = saysTheSame(scenario, short, whole) ? short : whole;
  // Stacks in a log need not say where on this machine the project lies.
  writeFileSync(fileOf(scenario.name), `${kept.replaceAll(root, '')}\n`);
}

function saysTheSame(scenario, short, whole) {
  try {
    return reportOf(scenario, JSON.parse(short).result) === reportOf(scenario, JSON.parse(whole).result);
  } catch {
    return false;
  }
}

/**
 * @param {string} name of a scenario
 * @returns {Kept | undefined}
 */
export function kept(name) {
  return existsSync(fileOf(name)) ? JSON.parse(readFileSync(fileOf(name), 'utf8')) : undefined;
}

/** Names of what is kept. */
export function allKept() {
  if (!existsSync(folder)) return [];
  return readdirSync(folder).flatMap((file) => (file.endsWith('.json') ? [file.slice(0, -5)] : []));
}
