#!/usr/bin/env node
// What the pieces of the way of a request cost, each alone: node --import tsx bench/micro/run.js, or npm run bench:micro
import { parseArgs } from 'node:util';
import { log } from '../lib/log.js';
import { machineFacts } from '../lib/machine.js';
import { asProgram, NeedsError, needPeers } from '../lib/needs.js';
import { busyText, machineText, reportOf } from '../lib/report.js';
import { keep, readable } from '../lib/results.js';
import { micro } from './report.js';

const usage = `usage: npm run bench:micro -- [part of a name ...] [options]

options:
  --json     print one JSON document instead of a table
  --record   keep the run in bench/results, and write the figures of docs/benchmarks.md anew
  --smoke    hardly measure: does everything still run?
  --help`;

/** How often a piece is called between two looks at the clock: a look costs as much as some of the pieces do. */
const CALLS = 200;
const BATCHES = [1, 20, 100];

await asProgram(main);

async function main() {
  const { values, positionals } = parse();
  if (values.help) {
    console.log(usage);
    return 0;
  }
  const smoke = values.smoke ?? false;
  if (values.record && (smoke || positionals.length > 0))
    throw new NeedsError('--record is for whole runs, without --smoke and names');
  needPeers();

  const machine = await machineFacts(smoke);
  const begin = performance.now();
  const measured = await measure(
    smoke,
    (name) => positionals.length === 0 || positionals.some((part) => name.includes(part)),
  );
  const result = { ...measured, seconds: (performance.now() - begin) / 1000 };
  if (values.record) {
    keep(micro, { command: 'npm run bench:micro -- --record', machine, result });
    const { writePages } = await import('../lib/page.js');
    for (const name of await writePages()) log(`wrote ${name}`);
  }
  const text = [machineText(machine), busyText(machine), reportOf(micro, result)]
    .filter(Boolean)
    .join('\n\n');
  process.stdout.write(
    values.json ? `${JSON.stringify({ machine, smoke, result }, readable, 2)}\n` : `${text}\n`,
  );
  return 0;
}

function parse() {
  const flag = { type: /** @type {const} */ ('boolean') };
  try {
    return parseArgs({
      allowPositionals: true,
      options: { json: flag, record: flag, smoke: flag, help: flag },
    });
  } catch (error) {
    throw new NeedsError(`${error.message}\n\n${usage}`);
  }
}

async function measure(smoke, isWanted) {
  const { Bench } = await import('tinybench');
  const { otherThread } = await import('./round-trip.js');
  const { pieces } = await import('./pieces.js');
  const { routes } = await import('./router.js');
  const bench = new Bench({
    time: smoke ? 1 : 500,
    iterations: smoke ? 1 : 64,
    warmupTime: smoke ? 0 : 100,
    warmupIterations: smoke ? 1 : 16,
    throws: true,
  });
  /** What each task measures, and how many of what is counted a call of it does. */
  const tasks = new Map();
  const add = ({ group, name, of }, each, task, async = false) => {
    if (!isWanted(`${group}: ${name}`)) return;
    const key = `${name}, ${of}`;
    tasks.set(key, { group, name, of, each });
    bench.add(key, task, { async });
  };

  let sink = 0;
  for (const { run, each = 1, ...piece } of [...pieces(), ...routes(smoke ? 100 : 100_000)])
    add(piece, each * CALLS, () => {
      // What it returns is looked at, or it might be compiled to nothing.
      for (let i = 0; i < CALLS; i++) if (run() === bench) sink++;
    });
  const { trip, end } = await otherThread();
  for (const size of BATCHES)
    add({ group: 'both', name: `a batch of ${size} to another thread and back` }, 1, () => trip(size), true);
  try {
    await bench.run();
  } finally {
    await end();
  }
  if (sink > 0) throw new Error('nothing returns the bench');
  const rows = bench.tasks.map(({ name: key, result }) => {
    const { each, ...piece } = tasks.get(key);
    const { p50, p99, samplesCount } = result.latency;
    const ns = (ms) => (ms * 1e6) / each;
    return { ...piece, ns: { p50: ns(p50), p99: ns(p99) }, samples: samplesCount };
  });
  return { load: { rounds: 1, calls: CALLS }, rows };
}
