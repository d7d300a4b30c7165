#!/usr/bin/env node
// Is this faster than another revision? Both are built and measured in turns.
import { parseArgs } from 'node:util';
import { commitOf, twoBuilds } from './lib/builds.js';
import { compared, FEWEST_PAIRS, measuresOf, SIGNIFICANT } from './lib/compare.js';
import { workLightly } from './lib/cpu-work.js';
import { log } from './lib/log.js';
import { machineFacts } from './lib/machine.js';
import { asProgram, NeedsError, needPeers } from './lib/needs.js';
import { busyText, machineText } from './lib/report.js';
import { readable } from './lib/results.js';
import { number, table } from './lib/table.js';
import { wrkVersion } from './lib/wrk.js';
import { scenarios } from './scenarios/index.js';

const comparable = scenarios.filter((scenario) => scenario.comparable);

const usage = `usage: npm run bench:compare -- REVISION [scenario ...] [options]

Builds what is here, changes that are not committed included, and REVISION (a branch, a tag, a commit), and measures the servers of
offloop with both, in pairs, which of the two comes first by chance.

scenarios (hello without a name): ${comparable.map(({ name }) => name).join(', ')}

options:
  --rounds N         pairs of measurements (10; with fewer than ${FEWEST_PAIRS} no difference counts)
  --duration S       whole seconds of one measurement (3)
  --connections N    connections of the load generator (the scenario's own)
  --servers A,B      only these servers
  --json             print one JSON document instead of tables
  --smoke            one short round: does it still run?
  --help`;

await asProgram(main);

async function main() {
  const { values, positionals } = parse();
  const [revision, ...names] = positionals;
  if (values.help) {
    console.log(usage);
    return 0;
  }
  if (revision === undefined) throw new NeedsError(`which revision?\n\n${usage}`);
  const stranger = names.find((name) => !comparable.some((scenario) => scenario.name === name));
  if (stranger !== undefined)
    throw new NeedsError(
      `${stranger} cannot be compared; ${comparable.map(({ name }) => name).join(', ')} can`,
    );
  const chosen = comparable.filter(({ name }) => (names.length === 0 ? ['hello'] : names).includes(name));
  const settings = settingsFrom(values);
  const plan = chosen.map((scenario) => ({
    scenario,
    entries: entriesOf(scenario, values.servers?.split(',')),
  }));
  if (plan.some(({ entries }) => entries.length === 0))
    throw new NeedsError(
      `none of the servers of offloop in ${chosen.map(({ name }) => name).join(', ')} is called that`,
    );
  if (wrkVersion() === null) throw new NeedsError('wrk is not installed');
  const commit = commitOf(revision);
  needPeers();

  if (settings.smoke) workLightly();
  const machine = await machineFacts(settings.smoke);
  const { folder, here, there } = await twoBuilds(commit);
  const results = [];
  for (const { scenario, entries } of plan) {
    log(`${scenario.name}: ${scenario.title}`);
    const both = entries.flatMap((entry) => [
      { ...entry, name: `${entry.name}, here`, pair: entry.name, bench: here },
      { ...entry, name: `${entry.name}, there`, pair: entry.name, bench: there },
    ]);
    const result = await scenario.run({ entries: both, settings });
    results.push({ name: scenario.name, servers: entries.flatMap(({ name }) => comparisons(result, name)) });
  }
  const document = { machine, revision, commit, folder, settings, scenarios: results };
  process.stdout.write(values.json ? `${JSON.stringify(document, readable, 2)}\n` : report(document));
  // A server that failed or answered wrongly is no measurement.
  return results.every(({ servers }) => servers.every(({ rate }) => rate !== null)) ? 0 : 1;
}

function parse() {
  const text = { type: /** @type {const} */ ('string') };
  const flag = { type: /** @type {const} */ ('boolean') };
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        rounds: text,
        duration: text,
        connections: text,
        servers: text,
        json: flag,
        smoke: flag,
        help: flag,
      },
    });
  } catch (error) {
    throw new NeedsError(`${error.message}\n\n${usage}`);
  }
}

function settingsFrom(values) {
  const whole = (name, usual) => {
    if (values[name] === undefined) return usual;
    if (!/^[1-9]\d*$/.test(values[name])) throw new NeedsError(`--${name} must be a whole number above 0`);
    return Number(values[name]);
  };
  const smoke = values.smoke ?? false;
  return {
    smoke,
    rounds: whole('rounds', smoke ? 1 : 10),
    duration: whole('duration', smoke ? 0.3 : 3),
    warmup: smoke ? 0 : 1,
    connections: whole('connections', smoke ? 8 : undefined),
  };
}

function entriesOf(scenario, only) {
  return scenario.entries.filter(
    ({ name, file }) => file.startsWith('offloop') && (only?.includes(name) ?? true),
  );
}

/** What one server of a scenario came to with both builds; several lines if the scenario has several kinds of load. */
function comparisons(result, name) {
  const groups = Array.isArray(result.servers) ? { '': result.servers } : result.servers;
  return Object.entries(groups).flatMap(([group, servers]) => {
    const samples = (build) => servers.find((server) => server.name === `${name}, ${build}`).samples;
    const there = new Map(samples('there').map((sample) => [sample.round, measuresOf(sample)]));
    /** @type {Map<string, { rate: [number, number], cpu: [number, number] | null }[]>} */
    const pairs = new Map();
    for (const sample of samples('here')) {
      for (const { kind, rate, cpu } of measuresOf(sample)) {
        const other = there.get(sample.round)?.find((measure) => measure.kind === kind);
        if (other === undefined) continue;
        const both = cpu === null || other.cpu === null ? null : [cpu, other.cpu];
        pairs.set(kind, [...(pairs.get(kind) ?? []), { rate: [rate, other.rate], cpu: both }]);
      }
    }
    if (pairs.size === 0) return [{ name, kind: group, rate: null, cpu: null, lost: result.load.rounds }];
    return [...pairs].map(([kind, each]) => {
      const cpu = each.flatMap(({ cpu: both }) => (both === null ? [] : [both]));
      return {
        name,
        kind: [group, kind].filter(Boolean).join(' '),
        rate: compared(each.map(({ rate }) => rate)),
        cpu: cpu.length > 0 ? compared(cpu) : null,
        lost: result.load.rounds - each.length,
      };
    });
  });
}

function report({ machine, revision, commit, settings, scenarios: results }) {
  const row = (server, kind, what, is, better, worse) => [
    [server, kind].filter(Boolean).join(', '),
    what,
    number(is?.median, 3),
    number(is?.min, 3),
    number(is?.max, 3),
    number(is?.p, 3),
    !is?.differs ? 'within the noise' : is.median > 1 ? better : worse,
  ];
  const parts = results.map(({ name, servers }) => {
    const rows = servers.flatMap(({ name: server, kind, rate, cpu, lost }) => [
      row(server, kind, 'answers/s', rate, 'MORE', 'FEWER'),
      ...(cpu ? [row(server, kind, 'CPU an answer', cpu, 'DEARER', 'CHEAPER')] : []),
      ...(lost > 0 ? [[server, `${lost} rounds with errors`, '', '', '', '', '']] : []),
    ]);
    return `## ${name}\n\n${table([`here / ${revision}`, '', 'median', 'min', 'max', 'p', ''], rows)}`;
  });
  return `\n${[
    `${machineText(machine)}; ${machine.date}`,
    busyText(machine),
    `Here against ${revision} (${commit.slice(0, 10)}), ${settings.rounds} pairs of ${settings.duration} s.`,
    ...parts,
    `A ratio is taken within each pair. p: how often chance alone would bring about as much, if the builds were the same; ` +
      `below ${SIGNIFICANT} a difference counts. Of twenty comparisons of the same with itself one comes out so.`,
  ]
    .filter(Boolean)
    .join('\n\n')}\n`;
}
