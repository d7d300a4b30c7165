import { setTimeout as sleep } from 'node:timers/promises';
import { checkAnswer } from '../lib/answer.js';
import { bars } from '../lib/charts.js';
import { cpuWork } from '../lib/cpu-work.js';
import { judged, perRound } from '../lib/figures.js';
import { watchMemory } from '../lib/memory.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { median } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';
import { wrk } from '../lib/wrk.js';

const WORK_MS = 10;
const TIMES_CAPACITY = 3;
/** Requests in flight that keep two workers busy and never fill the queue. */
const IN_FLIGHT = 8;
const CAPACITY_SECONDS = 5;
const CONNECTIONS = 256;
const COST_SECONDS = 3;

const two = { handler: 'cpu', nMin: 2, nMax: 2 };
const flooded = [
  { name: 'offloop-queue-100', file: 'offloop-watched', options: { ...two, queueSize: 100 }, flood: true },
  // The default queue: more than a thousand connections wait all the time.
  { name: 'offloop-queue-1024', file: 'offloop-watched', options: two, flood: true },
];
const one = { nMin: 1, nMax: 1 };
const costs = [
  { name: 'refused', file: 'offloop-watched', options: { handler: 'block', ...one, queueSize: 0 } },
  { name: 'served-hello', file: 'offloop-watched', options: { handler: 'hello', ...one } },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'overload',
  title:
    'Three times the capacity, 10 ms of CPU a request: does it still do all it can, and refuse the rest at once?',
  needsWrk: true,
  defaults: { duration: 30, rounds: 3 },
  entries: [...flooded, ...costs],

  async run({ entries, settings }) {
    const { rounds, duration, warmup, connections = CONNECTIONS, smoke } = settings;
    const { iterations, body, env } = await cpuWork(smoke ? 10 * WORK_MS : WORK_MS);
    const measured = await measureRounds(entries, {
      rounds,
      env: () => env,
      measure: (server, { name, flood }, round) =>
        flood
          ? measureFlood(server, { body, duration, warmup, connections, round })
          : measureCost(server, name, Math.min(COST_SECONDS, duration)),
      describe,
    });
    const servers = measured.map((server) => ({ ...server, ...summary(server) }));
    return {
      load: { rounds, duration, connections, timesCapacity: TIMES_CAPACITY },
      iterations,
      servers,
      figures: [
        ...servers.filter(isFlooded).flatMap((server) => floodFigures(server, !smoke)),
        ...costFigures(servers, !smoke),
      ],
      ok: servers.every(({ ok }) => ok),
    };
  },

  chart: ({ servers }) =>
    bars({
      title: 'Three times the capacity: what is answered, and what is refused',
      unit: 'requests/s',
      rows: servers
        .filter((server) => isFlooded(server) && server.capacity)
        .flatMap(({ name, capacity, offered, goodput, refusedPerSecond }) =>
          Object.entries({ capacity, offered, answered: goodput, refused: refusedPerSecond }).map(
            ([part, value]) => ({ name, part, value }),
          ),
        ),
    }),

  report: ({ servers, figures, load }) => [
    table(
      [
        'server',
        'capacity/s',
        'offered/s',
        'goodput/s',
        'refused/s',
        '503 p50 ms',
        'p99',
        'max',
        'sent late p99',
        'MB at 1/3',
        'at the end',
        'log lines',
        'other answers',
      ],
      servers
        .filter((server) => isFlooded(server) && server.capacity)
        .map((server) => [
          server.name,
          number(server.capacity, 1),
          number(server.offered, 1),
          number(server.goodput, 1),
          number(server.refusedPerSecond, 1),
          number(server.refusedMs.p50, 2),
          number(server.refusedMs.p99, 2),
          number(server.refusedMs.max, 1),
          number(server.sentLateP99Ms, 2),
          number(server.atThirdMb, 1),
          number(server.atEndMb, 1),
          number(server.logLines),
          number(server.others),
        ]),
    ),
    table(
      ['what wrk gets', 'answers/s', 'I/O thread us/answer'],
      servers
        .filter((server) => !isFlooded(server) && server.answersPerSecond)
        .map((server) => [
          server.name,
          number(server.answersPerSecond),
          number(server.ioSecondsPerAnswer && server.ioSecondsPerAnswer * 1e6, 2),
        ]),
    ),
    ...failures(servers),
    figuresTable(figures),
    `Capacity: the mean of ${IN_FLIGHT} requests in flight before and after. ${load.duration} s of overload each.`,
  ],
};

const isFlooded = ({ name }) => flooded.some((entry) => entry.name === name);

async function measureFlood(server, { body, duration, warmup, connections, round }) {
  await checkAnswer(server.url, { body });
  const kind = { name: 'work', path: '/', body };
  const capacityNow = async (seconds = Math.min(CAPACITY_SECONDS, duration)) => {
    const { kinds } = await runLoad({
      url: server.url,
      seconds,
      kinds: [{ ...kind, inFlight: IN_FLIGHT }],
    });
    return kinds.work.statuses[200].perSecond;
  };

  if (warmup > 0) await capacityNow(warmup);
  const before = await capacityNow();
  const offered = before * TIMES_CAPACITY;
  const [{ kinds, ...all }, memory] = await Promise.all([
    runLoad({
      url: server.url,
      seconds: duration,
      connections,
      // The last place in the queue may wait for long.
      giveUpMs: 60_000,
      seed: round,
      kinds: [{ ...kind, perSecond: offered, atRandom: true }],
    }),
    watchMemory(server, duration),
  ]);
  const after = await capacityNow();
  const log = await server.ask('log');

  const { sent, statuses, failures } = kinds.work;
  const others = sent - (statuses[200]?.count ?? 0) - (statuses[503]?.count ?? 0);
  return {
    ok: others === 0,
    // The speed of the machine drifts; before and after are about as far from the overload.
    capacity: (before + after) / 2,
    capacities: { before, after },
    offered,
    goodput: statuses[200]?.perSecond ?? 0,
    refused: statuses[503],
    others,
    failures,
    memory,
    log,
    stats: await server.ask('stats'),
    ...all,
  };
}

/** What an answer costs the thread that has the sockets. */
async function measureCost(server, name, seconds) {
  if (name === 'refused') await block(server);
  await wrk(server.url, { duration: 1, connections: 64 });
  const before = server.mainThreadCpuSeconds();
  const { requests, requestsPerSecond, errors } = await wrk(server.url, {
    duration: seconds,
    connections: 64,
  });
  const after = server.mainThreadCpuSeconds();
  const { status, ...lost } = errors;
  const wanted = name === 'refused' ? requests : 0;
  return {
    ok: status === wanted && Object.values(lost).every((count) => count === 0),
    answersPerSecond: requestsPerSecond,
    ioSecondsPerAnswer: before === null || after === null ? null : (after - before) / requests,
    errors,
  };
}

/** Occupies the only worker until the server is stopped. */
async function block(server) {
  fetch(`${server.url}/?600000`).catch(() => {});
  while ((await server.ask('stats')).pool.running === 0) await sleep(10);
}

function summary(server) {
  const done = finished(server);
  if (done.length === 0) return {};
  const of = (number) => median(done.map(number));
  if (!isFlooded(server)) {
    return {
      answersPerSecond: of(({ answersPerSecond }) => answersPerSecond),
      ioSecondsPerAnswer: of(({ ioSecondsPerAnswer }) => ioSecondsPerAnswer),
    };
  }
  return {
    capacity: of(({ capacity }) => capacity),
    offered: of(({ offered }) => offered),
    goodput: of(({ goodput }) => goodput),
    refusedPerSecond: of(({ refused }) => refused?.perSecond ?? 0),
    refusedMs: {
      p50: of(({ refused }) => refused?.latencyMs.p50),
      p99: of(({ refused }) => refused?.latencyMs.p99),
      max: of(({ refused }) => refused?.latencyMs.max),
    },
    sentLateP99Ms: of(({ sentLateMs }) => sentLateMs.p99),
    atThirdMb: of(({ memory }) => memory.atThirdMb),
    atEndMb: of(({ memory }) => memory.atEndMb),
    logLines: Math.max(...done.map(({ log }) => log.count)),
    others: done.reduce((sum, { others }) => sum + others, 0),
  };
}

function floodFigures(server, judge) {
  const done = finished(server);
  const refusing = done.filter(({ refused }) => refused !== undefined);
  const figure = (what, limits, values, mayJudge = judge && server.ok) =>
    judged({ figure: `${server.name}: ${what}`, ...limits }, values, mayJudge);
  return [
    figure(
      'goodput / capacity',
      { unit: 'x', atLeast: 0.95 },
      done.map(({ goodput, capacity }) => goodput / capacity),
    ),
    figure(
      'p99 of a 503',
      { unit: 'ms', atMost: 10 },
      refusing.map(({ refused }) => refused.latencyMs.p99),
    ),
    figure(
      'memory at the end / at a third',
      { unit: 'x', atMost: 1.1 },
      done.map(({ memory }) => memory.growth),
    ),
    // This one is about the errors that keep the others from being judged.
    figure(
      'answers other than 200 and 503',
      { atMost: 0, worst: true },
      done.map(({ others }) => others),
      judge,
    ),
    figure(
      'lines in the log',
      { atMost: 4, worst: true },
      done.map(({ log }) => log.count),
    ),
  ].filter(Boolean);
}

function costFigures(servers, judge) {
  const [refused, served] = costs.map((entry) => servers.find(({ name }) => name === entry.name));
  const ratios = perRound(refused, served, ({ ioSecondsPerAnswer }) => ioSecondsPerAnswer);
  const wanted = { figure: 'I/O thread: a refusal / a served hello', unit: 'x', atMost: 1 };
  const known = ratios.filter((value) => Number.isFinite(value));
  return [judged(wanted, known, judge && refused?.ok === true && served?.ok === true)].filter(Boolean);
}

function describe(sample) {
  if (sample.ioSecondsPerAnswer !== undefined)
    return `${number(sample.answersPerSecond)} answers/s, I/O thread ${number(sample.ioSecondsPerAnswer * 1e6, 2)} us each`;
  const { goodput, capacity, refused, memory, others } = sample;
  return (
    `goodput ${number(goodput, 1)} of ${number(capacity, 1)}/s, 503 p99 ${number(refused?.latencyMs.p99, 2)} ms, ` +
    `${number(memory.atThirdMb, 1)} to ${number(memory.atEndMb, 1)} MB${others > 0 ? `, ${others} OTHER ANSWERS` : ''}`
  );
}
