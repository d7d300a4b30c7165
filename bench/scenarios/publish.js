import { withClient } from '../lib/client-process.js';
import { judged, perRound } from '../lib/figures.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const SUBSCRIBERS = 10_000;
const SMOKE_SUBSCRIBERS = 100;
const BYTES = 64;
/** Messages that one callback publishes, one behind the other. */
const bursts = [1, 10];

const entries = [
  { name: 'raw-uws', file: 'raw-uws-publish' },
  { name: 'offloop-inline', file: 'offloop-channels', options: { handler: 'publish', dispatch: false } },
  { name: 'offloop-worker', file: 'offloop-channels', options: { handler: 'publish', nMin: 1, nMax: 1 } },
  { name: 'ws', file: 'ws-publish' },
];
const NATIVE = 'raw-uws';
const WORKER = 'offloop-worker';

const subscribersOf = ({ connections, smoke }) => (smoke ? SMOKE_SUBSCRIBERS : (connections ?? SUBSCRIBERS));

/** @type {import('../run.js').Scenario} */
export default {
  name: 'publish',
  title:
    'A worker publishes 64 bytes to 10,000 subscribers: until all have them, against the engine doing so itself',
  needsWrk: false,
  openFiles: subscribersOf,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, smoke } = settings;
    const subscribers = subscribersOf(settings);
    const seconds = smoke ? 0.2 : duration / bursts.length;
    const measured = await measureRounds(entries, {
      rounds,
      env: () => ({ BENCH_BYTES: String(BYTES) }),
      measure: (server, { name }) => measure(server, { subscribers, seconds, counts: name === WORKER }),
      describe,
    });
    const servers = measured.map((server) => ({ ...server, bursts: summary(server) }));
    return {
      load: { rounds, duration, subscribers, bytes: BYTES, bursts },
      servers,
      figures: figures(servers, !smoke),
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, figures, load }) => [
    ...bursts.map((times) =>
      table(
        [
          `${times} at once`,
          'p50 ms',
          'min',
          'max',
          'p99 ms',
          'CPU ms',
          'I/O thread ms',
          'posts: to the worker',
          'operations',
          'hints',
        ],
        servers.flatMap(({ name, bursts }) => (bursts ? [row(name, bursts[times])] : [])),
      ),
    ),
    ...failures(servers),
    figuresTable(figures),
    `Until all ${number(load.subscribers)} subscribers have it, on a client that shares the cores. "Operations" are the messages` +
      ' with what channels ask for; a hint says that a callback has returned. Each is one whatever the number of subscribers.',
  ],
};

async function measure(server, { subscribers, seconds, counts }) {
  return await withClient(async (client) => {
    const { url } = server;
    // The first one asks for it.
    await client.ask('connect', { url, path: '/trigger', count: 1 });
    const opened = await client.ask('connect', { url, path: '/', count: subscribers });
    const results = {};
    for (const times of bursts) {
      const plan = { trigger: 0, times, bytes: BYTES };
      await client.ask('publish', { ...plan, seconds: seconds / 4 });
      const before = await state(server, counts);
      const { rounds, ...result } = await client.ask('publish', { ...plan, seconds });
      const after = await state(server, counts);
      const each = (what) =>
        before[what] === null || after[what] === null ? null : (after[what] - before[what]) / rounds;
      results[times] = {
        rounds,
        ...result,
        cpuSeconds: each('cpu'),
        ioSeconds: each('io'),
        posts: counts
          ? { toWorkers: each('toWorkers'), operations: each('operations'), hints: each('hints') }
          : null,
      };
    }
    const wrong = Object.values(results).reduce((sum, result) => sum + result.wrong, 0);
    return { ok: wrong === 0, wrong, openedInMs: opened.ms, bursts: results };
  });
}

async function state(server, counts) {
  const posts = counts ? await server.ask('lanePosts') : {};
  return { cpu: server.cpuSeconds(), io: server.mainThreadCpuSeconds(), ...posts };
}

function summary(server) {
  const done = finished(server);
  if (done.length === 0) return null;
  return Object.fromEntries(
    bursts.map((times) => {
      const of = (number) => spread(done.map(({ bursts }) => number(bursts[times])));
      const posts = done[0].bursts[times].posts;
      return [
        times,
        {
          p50Ms: of(({ latencyMs }) => latencyMs.p50),
          p99Ms: of(({ latencyMs }) => latencyMs.p99),
          cpuSeconds: of(({ cpuSeconds }) => cpuSeconds),
          ioSeconds: of(({ ioSeconds }) => ioSeconds),
          posts:
            posts &&
            Object.fromEntries(Object.keys(posts).map((kind) => [kind, of(({ posts }) => posts[kind])])),
        },
      ];
    }),
  );
}

function figures(servers, judge) {
  const [worker, native] = [WORKER, NATIVE].map((name) => servers.find((server) => server.name === name));
  const both = judge && worker?.ok === true && native?.ok === true;
  const done = worker ? finished(worker) : [];
  return bursts
    .flatMap((times) => {
      const figure = (what, limits, values, mayJudge) =>
        judged({ figure: `${times} at once: ${what}`, ...limits }, values, mayJudge);
      return [
        figure(
          "time until all have it, worker / the engine's own publish",
          { unit: 'x', atMost: 1.2 },
          perRound(worker, native, ({ bursts }) => bursts[times].latencyMs.p50),
          both,
        ),
        figure(
          'messages between threads that carry what is published',
          { atMost: 1, worst: true },
          done.map(({ bursts }) => bursts[times].posts.operations),
          judge && worker?.ok === true,
        ),
      ];
    })
    .filter(Boolean);
}

function row(server, { p50Ms, p99Ms, cpuSeconds, ioSeconds, posts }) {
  return [
    server,
    number(p50Ms.median, 1),
    number(p50Ms.min, 1),
    number(p50Ms.max, 1),
    number(p99Ms.median, 1),
    number(cpuSeconds.median && cpuSeconds.median * 1000, 2),
    number(ioSeconds.median && ioSeconds.median * 1000, 2),
    number(posts?.toWorkers.max, 2),
    number(posts?.operations.max, 2),
    number(posts?.hints.max, 2),
  ];
}

function describe({ wrong, bursts }) {
  const each = Object.entries(bursts).map(
    ([times, { latencyMs, cpuSeconds }]) =>
      `${times} at once: ${number(latencyMs.p50, 1)} ms, CPU ${number(cpuSeconds && cpuSeconds * 1000, 2)} ms`,
  );
  return `${each.join('; ')}${wrong > 0 ? `, ${wrong} WRONG` : ''}`;
}
