import { checkAnswer } from '../lib/answer.js';
import { latencies } from '../lib/charts.js';
import { calibrate, cpuWork } from '../lib/cpu-work.js';
import { judged, perRound } from '../lib/figures.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { median } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const WORKERS = 2;
const LOAD = 0.7;
const kinds = [
  { name: 'cheap', ms: 0.05, share: 0.95 },
  { name: 'slow', ms: 50, share: 0.05 },
];
const msPerRequest = kinds.reduce((sum, { ms, share }) => sum + ms * share, 0);
const perSecond = (LOAD * WORKERS * 1000) / msPerRequest;

/** Who tells cheap from slow: the one handler by itself, or offloop by their mounts. */
const layouts = {
  'one-handler': {},
  'two-mounts': { mounts: { '/slow': 'slow' } },
};

const entries = Object.entries(layouts).flatMap(([layout, mounts]) => [
  entry(layout, 'batches', mounts),
  entry(layout, 'alone', { ...mounts, batchMicros: 0 }),
]);

function entry(layout, batching, options) {
  const pool = { nMin: WORKERS, nMax: WORKERS };
  return {
    name: `${layout}-${batching}`,
    file: 'offloop-dispatched',
    options: { handler: 'burn', ...pool, ...options },
  };
}

/** @type {import('../run.js').Scenario} */
export default {
  name: 'mixed',
  title: '95 % cheap and 5 % slow requests at 70 % of the capacity: does a cheap one wait in a batch?',
  needsWrk: false,
  defaults: { duration: 12 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, warmup, smoke } = settings;
    let work;
    const measured = await measureRounds(entries, {
      rounds,
      beforeRound: async () => {
        await calibrate();
        work = await cpuWork(1);
      },
      env: () => work.env,
      measure: (server, _entry, round) => measure(server, { duration, warmup, round }),
      describe,
    });
    const servers = measured.map((server) => ({ ...server, ...summary(server) }));
    const load = { rounds, duration, workers: WORKERS, share: LOAD, perSecond, kinds };
    return {
      load,
      servers,
      figures: Object.keys(layouts).flatMap((layout) => figures(layout, servers, !smoke)),
      ok: servers.every(({ ok }) => ok),
    };
  },

  chart: ({ servers }) =>
    latencies({
      title: 'How long the cheap requests take beside slow ones',
      rows: servers.map(({ name, cheap }) => ({ name, latency: cheap })),
    }),

  report: ({ servers, figures, load }) => [
    table(
      [
        'server',
        'answers/s',
        'cheap p50 ms',
        'p99',
        'p99.9',
        'slow p50 ms',
        'p99',
        'sent late p99',
        'errors',
      ],
      servers.map((server) => [
        server.name,
        number(server.answersPerSecond, 1),
        number(server.cheap?.p50, 2),
        number(server.cheap?.p99, 2),
        number(server.cheap?.p999, 2),
        number(server.slow?.p50, 1),
        number(server.slow?.p99, 1),
        number(server.sentLateP99Ms, 2),
        server.failures.length > 0 ? 'FAILED' : number(server.errorCount),
      ]),
    ),
    ...failures(servers),
    figuresTable(figures),
    `Offered: ${number(load.perSecond)} requests/s at random moments, the same for all servers of a round.` +
      ' "alone" is batchMicros: 0. A server that keeps up answers what is offered, so its rate says no more than that; 0.98' +
      ' is not lower, since the last answer decides how long a run was.',
  ],
};

async function measure(server, { duration, warmup, round }) {
  const asked = await Promise.all(
    kinds.map(async ({ name, ms, share }) => ({
      name,
      path: `/${name}?${ms}`,
      body: (await cpuWork(ms)).body,
      perSecond: perSecond * share,
      atRandom: true,
    })),
  );
  for (const { path, body } of asked) await checkAnswer(server.url + path, { body });
  const load = { url: server.url, connections: 64, kinds: asked };
  if (warmup > 0) await runLoad({ ...load, seconds: warmup, seed: 1000 });
  const result = await runLoad({ ...load, seconds: duration, seed: round });
  const answered = Object.values(result.kinds).reduce((sum, { ok }) => sum + ok, 0);
  return {
    ok: answered === result.requests,
    answersPerSecond: answered / result.seconds,
    errorCount: result.requests - answered,
    ...result,
  };
}

function summary({ samples }) {
  const done = finished({ samples });
  if (done.length === 0) return {};
  const of = (number) => median(done.map(number));
  const latency = (kind) =>
    Object.fromEntries(['p50', 'p99', 'p999'].map((p) => [p, of(({ kinds }) => kinds[kind].latencyMs[p])]));
  return {
    answersPerSecond: of(({ answersPerSecond }) => answersPerSecond),
    cheap: latency('cheap'),
    slow: latency('slow'),
    sentLateP99Ms: of(({ sentLateMs }) => sentLateMs.p99),
    errorCount: done.reduce((sum, { errorCount }) => sum + errorCount, 0),
  };
}

function figures(layout, servers, judge) {
  const [batches, alone] = ['batches', 'alone'].map((batching) =>
    servers.find(({ name }) => name === `${layout}-${batching}`),
  );
  const both = judge && batches?.ok === true && alone?.ok === true;
  return [
    judged(
      { figure: `${layout}: p99 of cheap, default / batches of one`, unit: 'x', atMost: 1.1 },
      perRound(batches, alone, ({ kinds }) => kinds.cheap.latencyMs.p99),
      both,
    ),
    judged(
      { figure: `${layout}: answers/s, default / batches of one`, unit: 'x', atLeast: 0.98 },
      perRound(batches, alone, ({ answersPerSecond }) => answersPerSecond),
      both,
    ),
  ].filter(Boolean);
}

function describe({ kinds, answersPerSecond, ok }) {
  return (
    `${number(answersPerSecond, 1)} answers/s, cheap p99 ${number(kinds.cheap.latencyMs.p99, 2)} ms` +
    `${ok ? '' : `, WITH ERRORS ${JSON.stringify(Object.values(kinds).map(({ failures }) => failures))}`}`
  );
}
