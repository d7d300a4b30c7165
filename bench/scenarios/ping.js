import { setTimeout as sleep } from 'node:timers/promises';
import { checkAnswer } from '../lib/answer.js';
import { latencies } from '../lib/charts.js';
import { cpuWork } from '../lib/cpu-work.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { startSlowLoad } from '../lib/slow-load.js';
import { median, spread } from '../lib/stats.js';
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
    const measured = await measureRounds(entries, {
      rounds,
      env: () => env,
      measure: (server) => measure(server, duration, body),
      describe,
    });
    const servers = measured.map(summary);
    // A peer that loses pings is a finding, not a broken run.
    const ok = servers.every(({ name, ok, failures }) => (name === 'offloop' ? ok : failures.length === 0));
    return { load, iterations, servers, figures: figuresOf(servers, smoke), ok };
  },

  chart: ({ servers }) =>
    latencies({
      title: 'An inline ping while the workers are idle, and while all are busy',
      shown: { p50: 'p50', p99: 'p99' },
      rows: servers.flatMap((server) =>
        ['idle', 'busy'].map((phase) => ({
          name: `${server.name}, ${phase}`,
          latency: server[phase] && { p50: server[phase].p50Ms.median, p99: server[phase].p99Ms.median },
        })),
      ),
    }),

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

async function measure(server, duration, body) {
  await checkAnswer(server.url, { body });
  await pings(server.url, 1);
  const idle = await pings(server.url, duration);
  const slow = startSlowLoad(server.url, SLOW_IN_FLIGHT);
  await sleep(500);
  const busy = await pings(server.url, duration);
  const load = await slow.stop();
  if (load.completed === 0) throw new Error('no slow request was answered: the workers were not busy');
  return { ok: busy.failedAccepts + busy.failedKept + load.errors === 0, idle, busy, slow: load };
}

/** Every other ping on a connection of its own, the rest on kept ones. */
async function pings(url, seconds) {
  const kind = { path: '/ping', body: 'pong', perSecond: PINGS_PER_SECOND / 2 };
  const { kinds, ...all } = await runLoad({
    url,
    seconds,
    giveUpMs: 2000,
    kinds: [
      { name: 'fresh', ...kind, fresh: true },
      { name: 'kept', ...kind },
    ],
  });
  const { fresh, kept } = kinds;
  return { ...all, kinds, failedAccepts: fresh.sent - fresh.ok, failedKept: kept.sent - kept.ok };
}

function summary({ samples, failures, ...server }) {
  const done = finished({ samples });
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
    ...server,
    idle: phase('idle'),
    busy: phase('busy'),
    slowPerSecond: done.length === 0 ? null : median(done.map(({ slow }) => slow.perSecond)),
    failures,
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

function describe({ ok, idle, busy, slow }) {
  return (
    `p99 idle ${number(idle.latencyMs.p99, 2)} ms, busy ${number(busy.latencyMs.p99, 2)} ms` +
    ` (${number(slow.perSecond, 1)} slow requests/s)${ok ? '' : `, WITH ERRORS ${JSON.stringify(busy.kinds)}`}`
  );
}
