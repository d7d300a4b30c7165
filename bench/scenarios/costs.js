import { checkAnswer } from '../lib/answer.js';
import { bars } from '../lib/charts.js';
import { closedLoops, errorsIn, inOrder } from '../lib/closed-loops.js';
import { calibrate, cpuWork } from '../lib/cpu-work.js';
import { judged, perRound } from '../lib/figures.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { median } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

/** Milliseconds of CPU a request. */
const COSTS = [0, 0.1, 1, 10, 100];
const JUDGED = 1;
const CONNECTIONS = 16;
const CHEAP_PER_SECOND = 200;

const handler = 'burn';
/** The cheap ones have a mount of their own where there are mounts. */
const mounts = { '/cheap': 'slow' };
const entries = [
  { name: 'offloop', file: 'offloop-dispatched', options: { handler, mounts, nMin: 2, nMax: 2 } },
  { name: 'node-http', file: 'node-http', options: { handler } },
  { name: 'node-cluster', file: 'node-cluster', options: { handler, processes: 2 } },
  { name: 'fastify-piscina', file: 'fastify-piscina', options: { handler } },
  { name: 'fastify-poolifier', file: 'fastify-poolifier', options: { handler } },
];
const rivals = {
  'node-http': { what: 'one process of node:http', atLeast: 1.8 },
  'node-cluster': { what: 'two processes of node:http', atLeast: 1 },
};

/** @type {import('../run.js').Scenario} */
export default {
  name: 'costs',
  title: '0 to 100 ms of CPU a request: when do threads pay, and what becomes of cheap requests beside them?',
  needsWrk: true,
  defaults: { rounds: 3, duration: 3 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, connections = CONNECTIONS, smoke } = settings;
    let work;
    const measured = await measureRounds(entries, {
      rounds,
      beforeRound: async () => {
        await calibrate();
        work = await cpuWork(1);
      },
      env: () => work.env,
      measure: (server, _entry, round) => measure(server, { ...settings, connections }, round),
      describe,
    });
    const servers = measured.map((server) => ({ ...server, ...summary(server) }));
    return {
      load: { rounds, duration, connections, cheapPerSecond: CHEAP_PER_SECOND, costs: COSTS },
      servers,
      figures: figures(servers, !smoke),
      ok: inOrder(servers),
    };
  },

  chart: ({ servers }) =>
    bars({
      title: 'What is answered by how much CPU a request takes',
      unit: 'answers/s',
      rows: COSTS.flatMap((ms) =>
        servers.flatMap(({ name, perSecond }) =>
          perSecond ? [{ group: `${ms} ms`, name, value: perSecond[ms] }] : [],
        ),
      ),
    }),

  report: ({ servers, figures, load }) => [
    table(
      ['answers/s', ...COSTS.map((ms) => `${ms} ms`)],
      servers.map(({ name, perSecond }) => [
        name,
        ...COSTS.map((ms) => number(perSecond?.[ms], ms < 10 ? 0 : 1)),
      ]),
    ),
    table(
      [
        `cheap ones beside ${JUDGED} ms`,
        'p50 ms',
        'p99',
        'p99.9',
        'max',
        'sent late p99',
        'the others/s',
        'not answered',
      ],
      servers
        .filter(({ cheap }) => cheap)
        .map(({ name, cheap, lost }) => [
          name,
          number(cheap.p50, 2),
          number(cheap.p99, 2),
          number(cheap.p999, 2),
          number(cheap.max, 1),
          number(cheap.sentLate, 2),
          number(cheap.others),
          number(lost),
        ]),
    ),
    ...failures(servers),
    figuresTable(figures),
    `${load.connections} connections. Beside them ${load.cheapPerSecond} requests/s without any work, at random moments, each timed from when it was due.`,
  ],
};

async function measure(server, settings, round) {
  const { url } = server;
  const loops = await Promise.all(
    COSTS.map(async (ms) => ({ name: String(ms), path: `/?${ms}`, body: (await cpuWork(ms)).body })),
  );
  const cheap = { name: 'cheap', path: '/cheap?0', body: (await cpuWork(0)).body };
  for (const { path, body } of [...loops, cheap]) await checkAnswer(url + path, { body });
  const costs = await closedLoops(server, loops, { ...settings, warmup: Math.min(1, settings.warmup) });

  const { connections, duration, smoke } = settings;
  const { kinds, sentLateMs } = await runLoad({
    url,
    seconds: smoke ? 0.2 : duration,
    connections: connections + 8,
    seed: round,
    kinds: [
      { ...loops.find(({ name }) => name === String(JUDGED)), inFlight: connections },
      { ...cheap, perSecond: CHEAP_PER_SECOND, atRandom: true },
    ],
  });
  const all = Object.values(kinds);
  if (all.some(({ failures }) => failures['wrong answer'] > 0)) throw new Error('wrong answers');
  const lost = all.reduce((sum, { sent, ok }) => sum + sent - ok, 0);
  const { latencyMs } = kinds.cheap;
  const others = kinds[JUDGED].statuses[200]?.perSecond ?? 0;
  return {
    ok: errorsIn(costs) + lost === 0,
    costs,
    cheap: { ...latencyMs, sentLate: sentLateMs.p99, others },
    lost,
  };
}

function summary(server) {
  const done = finished(server);
  if (done.length === 0) return {};
  const of = (number) => median(done.map(number));
  return {
    perSecond: Object.fromEntries(COSTS.map((ms) => [ms, of(({ costs }) => costs[ms].perSecond)])),
    lost: done.reduce((sum, { lost }) => sum + lost, 0),
    cheap: Object.fromEntries(Object.keys(done[0].cheap).map((key) => [key, of(({ cheap }) => cheap[key])])),
  };
}

function figures(servers, judge) {
  const find = (wanted) => servers.find(({ name }) => name === wanted);
  const offloop = find('offloop');
  return Object.entries(rivals).flatMap(([name, { what, atLeast }]) => {
    const rival = find(name);
    const both = judge && offloop?.ok === true && rival?.failures.length === 0;
    return [
      judged(
        { figure: `${JUDGED} ms of CPU: answers/s, two workers / ${what}`, unit: 'x', atLeast },
        perRound(offloop, rival, ({ costs }) => costs[JUDGED].perSecond),
        both,
      ),
      judged(
        { figure: `p99.9 of cheap ones beside that, two workers / ${what}`, unit: 'x', atMost: 1 },
        perRound(offloop, rival, ({ cheap }) => cheap.p999),
        both,
      ),
    ].filter(Boolean);
  });
}

function describe({ ok, costs, cheap, lost }) {
  const rates = COSTS.map((ms) => number(costs[ms].perSecond)).join(', ');
  return `${rates}/s; cheap p99.9 ${number(cheap.p999, 2)} ms${ok ? '' : `, WITH ${errorsIn(costs)} AND ${lost} ERRORS`}`;
}
