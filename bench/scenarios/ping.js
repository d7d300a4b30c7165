import { setTimeout as sleep } from 'node:timers/promises';
import { checkAnswer } from '../lib/answer.js';
import { cpuWork } from '../lib/cpu-work.js';
import { log } from '../lib/log.js';
import { runProgram } from '../lib/program.js';
import { ServerProcess } from '../lib/server-process.js';
import { startSlowLoad } from '../lib/slow-load.js';
import { median, shuffled, spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const PINGS_PER_SECOND = 200;
const SLOW_IN_FLIGHT = 8;
const options = { handler: 'cpu', ping: true };

const entries = [
  { name: 'offloop', file: 'offloop-dispatched', options },
  { name: 'fastify-piscina', file: 'fastify-piscina', options },
  { name: 'node-http', file: 'node-http', options },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'ping',
  title: 'An inline ping while every worker is busy with 100 ms of CPU a request',
  needsWrk: false,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, smoke } = settings;
    const { iterations, body, env } = await cpuWork(100);
    const load = { rounds, duration, pingsPerSecond: PINGS_PER_SECOND, slowInFlight: SLOW_IN_FLIGHT };
    const samples = new Map(entries.map(({ name }) => [name, []]));
    for (let round = 1; round <= rounds; round++) {
      for (const entry of shuffled(entries)) {
        const sample = await measureOnce(entry, duration, body, env);
        samples.get(entry.name).push({ round, ...sample });
        log(`  round ${round}/${rounds}  ${entry.name.padEnd(20)} ${describe(sample)}`);
      }
    }
    const servers = entries.map(({ name }) => summary(name, samples.get(name)));
    // A peer that loses pings is a finding, not a broken run.
    const ok = servers.every(({ name, ok, failures }) => (name === 'offloop' ? ok : failures.length === 0));
    return { load, iterations, servers, figures: figuresOf(servers, smoke), ok };
  },

  report: ({ servers, figures }) => [
    table(
      [
        'server',
        'workers',
        'p50 ms',
        'p99 ms',
        'p99 min',
        'p99 max',
        'max ms',
        'failed accepts',
        'other failures',
        'sent late p99',
        'p99 from send',
      ],
      servers.flatMap((server) => (server.idle ? [row(server, 'idle'), row(server, 'busy')] : [])),
    ),
    ...failures(servers),
    figuresTable(figures),
    '"sent late" is what the client itself adds while it waits for a core; "from send" leaves that out.',
  ],
};

async function measureOnce({ file, options }, duration, body, env) {
  let server;
  try {
    server = await ServerProcess.start(file, options, env);
    await checkAnswer(server.url, { body });
    const pings = (seconds) =>
      runProgram('./ping-load.js', [`${server.url}/ping`, PINGS_PER_SECOND, seconds].map(String));
    await pings(1);
    const idle = await pings(duration);
    const slow = startSlowLoad(server.url, SLOW_IN_FLIGHT);
    await sleep(500);
    const busy = await pings(duration);
    const load = await slow.stop();
    if (load.completed === 0) throw new Error('no slow request was answered: the workers were not busy');
    return { ok: busy.failedAccepts + busy.failedKept + load.errors === 0, idle, busy, slow: load };
  } catch (error) {
    return { ok: false, failure: error.message };
  } finally {
    await server?.stop();
  }
}

function summary(name, samples) {
  const done = samples.filter((sample) => sample.failure === undefined);
  const phase = (key) =>
    done.length === 0
      ? null
      : {
          p50Ms: spread(done.map((sample) => sample[key].latencyMs.p50)),
          p99Ms: spread(done.map((sample) => sample[key].latencyMs.p99)),
          maxMs: spread(done.map((sample) => sample[key].latencyMs.max)),
          sentLateP99Ms: spread(done.map((sample) => sample[key].sentLateMs.p99)),
          fromSentP99Ms: spread(done.map((sample) => sample[key].fromSentMs.p99)),
          failedAccepts: done.reduce((sum, sample) => sum + sample[key].failedAccepts, 0),
          failedKept: done.reduce((sum, sample) => sum + sample[key].failedKept, 0),
        };
  return {
    name,
    ok: samples.every((sample) => sample.ok),
    idle: phase('idle'),
    busy: phase('busy'),
    slowPerSecond: done.length === 0 ? null : median(done.map(({ slow }) => slow.perSecond)),
    failures: samples.flatMap((sample) => sample.failure ?? []),
    samples,
  };
}

function figuresOf(servers, smoke) {
  const offloop = servers.find(({ name }) => name === 'offloop');
  if (!offloop?.busy) return [];
  const { p99Ms, failedAccepts } = offloop.busy;
  return [
    {
      figure: 'p99 of an inline ping while every worker is busy',
      value: p99Ms.median,
      unit: 'ms',
      target: '<= 5',
      reached: smoke || offloop.failures.length > 0 ? null : p99Ms.median <= 5,
    },
    {
      figure: 'failed accepts meanwhile',
      value: failedAccepts,
      unit: '',
      target: '0',
      reached: smoke || offloop.failures.length > 0 ? null : failedAccepts === 0,
    },
  ];
}

function row(server, phase) {
  const { p50Ms, p99Ms, maxMs, failedAccepts, failedKept, sentLateP99Ms, fromSentP99Ms } = server[phase];
  return [
    server.name,
    phase,
    number(p50Ms.median, 2),
    number(p99Ms.median, 2),
    number(p99Ms.min, 2),
    number(p99Ms.max, 2),
    number(maxMs.max, 1),
    number(failedAccepts),
    number(failedKept),
    number(sentLateP99Ms.median, 2),
    number(fromSentP99Ms.median, 2),
  ];
}

function describe(sample) {
  if (sample.failure !== undefined) return `FAILED: ${sample.failure}`;
  const { idle, busy, slow } = sample;
  return (
    `p99 idle ${number(idle.latencyMs.p99, 2)} ms, busy ${number(busy.latencyMs.p99, 2)} ms` +
    ` (${number(slow.perSecond, 1)} slow requests/s)${sample.ok ? '' : `, WITH ERRORS ${JSON.stringify(busy.failures)}`}`
  );
}
