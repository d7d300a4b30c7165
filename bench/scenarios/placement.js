import { latencies } from '../lib/charts.js';
import { calibrate, cpuWork } from '../lib/cpu-work.js';
import { judged, perRound } from '../lib/figures.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { median } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const cheap = { name: 'cheap', path: '/?0.005', perSecond: 3000 };
const slow = { name: 'slow', path: '/slow/?20', perSecond: 20 };
/** What nobody has seen coming: the cheap mount takes its time. */
const surprise = { name: 'surprise', path: '/?50', perSecond: 2 };

const pool = { handler: 'burn', nMin: 2, nMax: 2 };
const entry = (name, inline, kinds) => ({
  name,
  file: 'offloop-placement',
  options: { ...pool, inline },
  kinds,
});
const entries = [
  entry('all-dispatched', [], [cheap, slow]),
  entry('all-inline', ['/', '/slow'], [cheap, slow]),
  entry('cheap-inline', ['/'], [cheap, slow]),
  entry('all-dispatched-surprised', [], [cheap, slow, surprise]),
  entry('cheap-inline-surprised', ['/'], [cheap, slow, surprise]),
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'placement',
  title:
    'Cheap and slow handlers, dispatched or inline: what would moving them by itself win, and what does it risk?',
  needsWrk: false,
  defaults: { duration: 8, rounds: 3, smoke: 2 },
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
      measure: (server, { kinds }) =>
        measure(server, { kinds: smoke ? kinds.map(seldom) : kinds, duration, warmup }),
      describe: ({ kinds, cpuMicros }) =>
        `cheap p99 ${number(kinds.cheap.latencyMs.p99, 2)} ms, ${number(cpuMicros, 1)} us of the server's CPU a request`,
    });
    const servers = measured.map((server) => ({ ...server, ...summary(server) }));
    return {
      load: { rounds, duration, kinds: [cheap, slow, surprise] },
      servers,
      figures: figures(servers, !smoke),
      ok: servers.every(({ ok }) => ok),
    };
  },

  chart: ({ servers }) =>
    latencies({
      title: 'How long the cheap requests take',
      rows: servers.map(({ name, cheap }) => ({ name, latency: cheap })),
    }),

  report: ({ servers, figures }) => [
    table(
      ['server', 'cheap p50 ms', 'p99', 'p99.9', 'max', 'slow p50 ms', 'p99', 'CPU us/request', 'errors'],
      servers.map((server) => [
        server.name,
        number(server.cheap?.p50, 2),
        number(server.cheap?.p99, 2),
        number(server.cheap?.p999, 2),
        number(server.cheap?.max, 1),
        number(server.slow?.p50, 1),
        number(server.slow?.p99, 1),
        number(server.cpuMicros, 1),
        server.failures.length > 0 ? 'FAILED' : number(server.errorCount),
      ]),
    ),
    ...failures(servers),
    figuresTable(figures),
    'cheap-inline is what a server that moves handlers by itself could come to at best; surprised is the same when the cheap one has a slow moment twice a second.',
  ],
};

/** A tenth as often, but for what is seldom as it is. */
const seldom = (kind) => ({ ...kind, perSecond: Math.max(2, kind.perSecond / 10) });

async function measure(server, { kinds, duration, warmup }) {
  const load = { url: server.url, connections: 32, kinds };
  if (warmup > 0) await runLoad({ ...load, seconds: warmup });
  const before = server.cpuSeconds();
  const result = await runLoad({ ...load, seconds: duration });
  const cpu = server.cpuSeconds() - before;
  const errorCount = Object.values(result.kinds).reduce((sum, { sent, ok }) => sum + sent - ok, 0);
  return { ok: errorCount === 0, errorCount, cpuMicros: (cpu / result.requests) * 1e6, ...result };
}

function summary(server) {
  const done = finished(server);
  if (done.length === 0) return {};
  const of = (number) => median(done.map(number));
  const latency = (kind, p) => of(({ kinds }) => kinds[kind].latencyMs[p]);
  return {
    cheap: {
      p50: latency('cheap', 'p50'),
      p99: latency('cheap', 'p99'),
      p999: latency('cheap', 'p999'),
      max: latency('cheap', 'max'),
    },
    slow: { p50: latency('slow', 'p50'), p99: latency('slow', 'p99') },
    cpuMicros: of(({ cpuMicros }) => cpuMicros),
    errorCount: done.reduce((sum, { errorCount }) => sum + errorCount, 0),
  };
}

function figures(servers, judge) {
  const of = (name) => servers.find((server) => server.name === name);
  const p99 = ({ kinds }) => kinds.cheap.latencyMs.p99;
  const figure = (what, a, b, number, limits) =>
    judged(
      { figure: what, unit: 'x', ...limits },
      perRound(of(a), of(b), number),
      judge && of(a)?.ok === true,
    );
  return [
    figure('p99 of the cheap ones, cheap inline / all dispatched', 'cheap-inline', 'all-dispatched', p99, {
      atMost: 1,
    }),
    figure('the same with surprises', 'cheap-inline-surprised', 'all-dispatched-surprised', p99, {
      atMost: 1,
    }),
  ].filter(Boolean);
}
