#!/usr/bin/env node
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { workLightly } from './lib/cpu-work.js';
import { log } from './lib/log.js';
import { machineFacts } from './lib/machine.js';
import { asProgram, NeedsError, needBuild, needFreshBuild, needOpenFiles, needPeers } from './lib/needs.js';
import { busyText, machineText, reportOf } from './lib/report.js';
import { keep, readable } from './lib/results.js';
import { measureAtOnce } from './lib/rounds.js';
import { wrkVersion } from './lib/wrk.js';
import { scenarios } from './scenarios/index.js';

/**
 * @typedef {{ rounds: number, duration: number, warmup: number, connections?: number, smoke: boolean }} Settings
 * @typedef {object} Scenario
 * @property {string} name
 * @property {string} title
 * @property {boolean} needsWrk
 * @property {boolean} [comparable] whether bench/compare.js can make something of its result: see lib/compare.js
 * @property {{ rounds?: number, duration?: number, smoke?: number }} [defaults] where it wants others than the usual;
 *   `smoke`: seconds of a measurement in a smoke run
 * @property {(settings: Settings) => number} [openFiles] how many connections each of its processes has
 * @property {readonly { name: string, file: string, options?: object }[]} entries the servers it knows
 * @property {(run: { entries: readonly any[], settings: Settings }) => Promise<any>} run
 * @property {(result: any) => readonly string[]} report the paragraphs of the readable report
 * @property {(result: any) => object} [chart] what is drawn of a recorded run, see lib/charts.js. Of a scenario that measures
 *   throughput there is one without that
 */

/** Servers that a smoke run measures at the same time. */
const SMOKE_AT_ONCE = 2;

const usual = { rounds: 5, duration: 4, smoke: 0.3 };

/** What the help says of a default: the usual value, and who has another. */
function each(setting) {
  const others = scenarios.filter(({ defaults }) => defaults?.[setting] !== undefined);
  return [usual[setting], ...others.map(({ name, defaults }) => `${name} ${defaults[setting]}`)].join(', ');
}

const usage = `usage: npm run bench -- [scenario ...] [options]

scenarios (all without a name):
${scenarios.map(({ name, title }) => `  ${name.padEnd(10)}${title}`).join('\n')}

options:
  --json             print one JSON document instead of tables
  --out FILE         write the JSON document to a file as well
  --rounds N         rounds; the figure is their median (${each('rounds')})
  --duration S       whole seconds of one measurement (${each('duration')})
  --connections N    connections of the load generator (grid 1 to 1024, hello, iocpu, file, json and hono 64, cpu, costs,
                     sizes and streaming 16, churn 32, wait and overload 256, echo and readers 100, sse 1000, publish,
                     channels, connections and storm 10000)
  --servers A,B      only these servers
  --record           keep the run in bench/results, and write the figures of docs/benchmarks.md anew
  --smoke            one short round, nothing judged: does everything still run?
  --help`;

await asProgram(main);

async function main() {
  const { values, positionals } = parse();
  if (values.help) {
    console.log(usage);
    return 0;
  }
  const smoke = values.smoke ?? false;
  if (values.record && (smoke || values.servers !== undefined))
    throw new NeedsError('--record is for whole runs, without --smoke and --servers');
  const plan = planFrom(positionals, values);
  provide(plan, values.record);

  if (smoke) {
    measureAtOnce(SMOKE_AT_ONCE);
    workLightly();
  }

  const machine = await machineFacts(smoke);
  const results = [];
  for (const { scenario, entries, settings } of plan) {
    log(`${scenario.name}: ${scenario.title}`);
    const { name, title } = scenario;
    const begin = performance.now();
    const result = await scenario.run({ entries, settings });
    results.push({ name, title, seconds: (performance.now() - begin) / 1000, ...result });
  }

  const document = { machine, smoke, scenarios: results };
  const json = `${JSON.stringify(document, readable, 2)}\n`;
  if (values.out) writeFileSync(values.out, json);
  if (values.record) await record(plan, document, values);
  process.stdout.write(values.json ? json : report(document, plan));
  return results.every(({ ok }) => ok) ? 0 : 1;
}

/** Each scenario for itself, with the command that does it again. */
async function record(plan, { machine, scenarios: results }, values) {
  const numbers = ['rounds', 'duration', 'connections'].flatMap((name) =>
    values[name] === undefined ? [] : [` --${name} ${values[name]}`],
  );
  for (const [i, { scenario }] of plan.entries()) {
    const command = `npm run bench -- ${scenario.name}${numbers.join('')} --record`;
    keep(scenario, { command, machine, result: results[i] });
  }
  const { writePages } = await import('./lib/page.js');
  for (const name of await writePages()) log(`wrote ${name}`);
}

function parse() {
  const positive = { type: /** @type {const} */ ('string') };
  const flag = { type: /** @type {const} */ ('boolean') };
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        json: flag,
        record: flag,
        smoke: flag,
        help: flag,
        rounds: positive,
        duration: positive,
        connections: positive,
        servers: { type: 'string' },
        out: { type: 'string' },
      },
    });
  } catch (error) {
    throw new NeedsError(`${error.message}\n\n${usage}`);
  }
}

/** @returns {Settings} */
function settingsFrom(values, defaults) {
  const wanted = (name, usual) => {
    if (values[name] === undefined) return usual;
    const value = Number(values[name]);
    if (!Number.isInteger(value) || value < 1)
      throw new NeedsError(`--${name} must be a whole number above 0`);
    return value;
  };
  const smoke = values.smoke ?? false;
  const own = { ...usual, ...defaults };
  const duration = wanted('duration', smoke ? own.smoke : own.duration);
  return {
    smoke,
    rounds: wanted('rounds', smoke ? 1 : own.rounds),
    duration,
    warmup: smoke ? 0 : Math.min(2, duration),
    connections: wanted('connections', smoke ? 8 : undefined),
  };
}

/** Which scenarios run, how, and with which of their servers. */
function planFrom(names, values) {
  const unknown = names.find((name) => !scenarios.some((scenario) => scenario.name === name));
  if (unknown !== undefined) throw new NeedsError(`there is no scenario ${unknown}\n\n${usage}`);
  const chosen = names.length === 0 ? scenarios : scenarios.filter(({ name }) => names.includes(name));

  const only = values.servers?.split(',');
  const known = new Set(chosen.flatMap(({ entries }) => entries.map(({ name }) => name)));
  const stranger = only?.find((name) => !known.has(name));
  if (stranger !== undefined)
    throw new NeedsError(`there is no server ${stranger}; there are ${[...known].join(', ')}`);

  return chosen
    .map((scenario) => ({
      scenario,
      settings: settingsFrom(values, scenario.defaults),
      entries: scenario.entries.filter(({ name }) => only?.includes(name) ?? true),
    }))
    .filter(({ entries }) => entries.length > 0);
}

function provide(plan, record) {
  if (plan.some(({ scenario }) => scenario.needsWrk) && wrkVersion() === null) {
    throw new NeedsError(
      'wrk is not installed: `apt-get install wrk` on Debian and Ubuntu, `brew install wrk` on macOS',
    );
  }
  for (const { scenario, settings } of plan)
    if (scenario.openFiles) needOpenFiles(scenario.name, scenario.openFiles(settings));
  const files = plan.flatMap(({ entries }) => entries.map(({ file }) => file));
  if (record) needFreshBuild();
  else if (files.some((file) => file.startsWith('offloop'))) needBuild();
  const handlers = plan.flatMap(({ entries }) => entries.map(({ options }) => options?.handler ?? ''));
  const others = files.some((file) => !/^(offloop|raw-uws|node-http|node-bodies)/.test(file));
  if (others || handlers.some((handler) => handler.startsWith('hono')) || record) needPeers();
}

function report({ machine, smoke, scenarios: results }, plan) {
  const head = [
    `${machineText(machine)}; ${machine.date}`,
    busyText(machine),
    smoke ? 'Smoke run: one short round, nothing judged.' : 'A figure is the median of its rounds.',
  ];
  const parts = results.map((result, i) =>
    [
      `## ${result.name}: ${result.title}\nRounds: ${result.load.rounds}`,
      reportOf(plan[i].scenario, result),
    ].join('\n\n'),
  );
  return `\n${[head.filter(Boolean).join('\n'), ...parts].join('\n\n')}\n`;
}
