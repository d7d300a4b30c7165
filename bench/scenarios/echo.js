import { bars, fromSpread } from '../lib/charts.js';
import { withClient } from '../lib/client-process.js';
import { judged, perRound } from '../lib/figures.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { median, spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const CONNECTIONS = 100;
const BYTES = 64;
const kinds = [1, 8].flatMap((inFlight) =>
  [false, true].map((binary) => ({
    name: `${inFlight}-${binary ? 'binary' : 'text'}`,
    inFlight,
    binary,
    bytes: BYTES,
  })),
);

const pool = (workers, handler = 'echo') => ({ handler, nMin: workers, nMax: workers });
const entries = [
  { name: 'raw-uws', file: 'raw-uws-echo' },
  { name: 'offloop-inline', file: 'offloop-inline', options: { handler: 'echo' } },
  { name: 'offloop-worker', file: 'offloop-dispatched', options: pool(1) },
  // The channels of two workers: one more thread, and smaller batches.
  { name: 'offloop-2-workers', file: 'offloop-dispatched', options: pool(2) },
  { name: 'offloop-defined', file: 'offloop-dispatched', options: pool(1, 'echo-defined') },
  { name: 'ws', file: 'ws-echo' },
];

const WORKER = 'offloop-worker';
/** Whom the worker is held against. The aim is for the bare engine, and for messages/s. */
const others = ['raw-uws', 'offloop-inline'];
const AIM = { to: 'raw-uws', atLeast: 0.5 };

/** @type {import('../run.js').Scenario} */
export default {
  name: 'echo',
  title: 'WebSocket echo of 64 bytes: what a message costs, and what a message through a worker costs',
  needsWrk: false,
  comparable: true,
  defaults: { duration: 3 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, connections = CONNECTIONS, smoke } = settings;
    const warmup = smoke ? 0.1 : 1;
    const measured = await measureRounds(entries, {
      rounds,
      measure: (server) => measure(server, { connections, seconds: smoke ? 0.2 : duration, warmup }),
      describe,
    });
    const servers = measured.map((server) => ({ ...server, kinds: summary(server) }));
    return {
      load: { rounds, duration, warmup, connections, kinds },
      servers,
      worker: kinds.map(({ name }) => ({
        kind: name,
        ...Object.fromEntries(others.map((to) => [to, against(servers, to, name)])),
      })),
      figures: kinds.flatMap(({ name }) => figure(servers, name, !smoke) ?? []),
      ok: servers.every(({ ok }) => ok),
    };
  },

  chart: ({ servers, load }) =>
    bars({
      title: 'WebSocket echo of 64 bytes, 100 connections',
      unit: 'messages/s',
      rows: load.kinds.flatMap(({ name: kind, inFlight, binary }) =>
        servers.flatMap(({ name, kinds }) =>
          kinds
            ? [
                {
                  group: `${inFlight} in flight, ${binary ? 'binary' : 'text'}`,
                  name,
                  ...fromSpread(kinds[kind].perSecond),
                },
              ]
            : [],
        ),
      ),
    }),

  report: ({ servers, figures, worker }) => [
    ...kinds.map(({ name, inFlight, binary }) =>
      table(
        [
          `${inFlight} in flight, ${binary ? 'binary' : 'text'}`,
          'messages/s',
          'min',
          'max',
          'p50 ms',
          'p99 ms',
          'CPU us/message',
          'I/O thread',
          'threads busy',
        ],
        servers.flatMap(({ name: server, kinds }) => (kinds ? [row(server, kinds[name])] : [])),
      ),
    ),
    table(
      [`${WORKER} / another`, ...others.flatMap((to) => [`messages/s, / ${to}`, 'CPU a message'])],
      worker.map(({ kind, ...of }) => [
        kind,
        ...others.flatMap((to) => [number(of[to].perSecond, 2), number(of[to].cpu, 2)]),
      ]),
    ),
    ...failures(servers),
    figuresTable(figures),
    '"threads busy": how many cores the server used. The client has the rest of two and is itself busy nearly all the time' +
      ' against the bare engine, so there the ratio of the CPU time says more than that of the messages.',
  ],
};

async function measure(server, { connections, seconds, warmup }) {
  return await withClient(async (client) => {
    await client.ask('connect', { url: server.url, count: connections });
    await checkEcho(client);
    const results = {};
    for (const kind of kinds) {
      await client.ask('echo', { ...kind, seconds: warmup });
      const before = times(server);
      const result = await client.ask('echo', { ...kind, seconds });
      const after = times(server);
      const cpu = after.all === null ? null : after.all - before.all;
      results[kind.name] = {
        ...result,
        cpuSecondsPerMessage: cpu && cpu / result.messages,
        ioSecondsPerMessage: cpu && (after.main - before.main) / result.messages,
        coresUsed: cpu && (cpu * result.perSecond) / result.messages,
      };
    }
    return { ok: Object.values(results).every(({ wrong }) => wrong === 0), kinds: results };
  });
}

const times = (server) => ({ all: server.cpuSeconds(), main: server.mainThreadCpuSeconds() });

/** A server that sends back something else is not fast. */
async function checkEcho(client) {
  const binary = Buffer.from(Uint8Array.from({ length: 5000 }, (_, i) => i * 7)).toString('hex');
  for (const [asked, wanted] of [
    [{ text: 'Grüße, 世界' }, 'Grüße, 世界'],
    [{ text: 'x'.repeat(70_000) }, 'x'.repeat(70_000)],
    [{ text: '' }, ''],
    [{ binary }, binary],
  ]) {
    const wrong = (await client.ask('exchange', asked)).find((answer) => answer !== wanted);
    if (wrong !== undefined)
      throw new Error(
        `wrong answer: ${JSON.stringify(wrong.slice(0, 80))} to ${JSON.stringify(wanted.slice(0, 80))}`,
      );
  }
}

function summary(server) {
  const done = finished(server);
  if (done.length === 0) return null;
  return Object.fromEntries(
    kinds.map(({ name }) => {
      const of = (number) => spread(done.map(({ kinds }) => number(kinds[name])));
      return [
        name,
        {
          perSecond: of(({ perSecond }) => perSecond),
          p50Ms: of(({ latencyMs }) => latencyMs.p50),
          p99Ms: of(({ latencyMs }) => latencyMs.p99),
          cpuSecondsPerMessage: of(({ cpuSecondsPerMessage }) => cpuSecondsPerMessage),
          ioSecondsPerMessage: of(({ ioSecondsPerMessage }) => ioSecondsPerMessage),
          coresUsed: of(({ coresUsed }) => coresUsed),
        },
      ];
    }),
  );
}

/** Medians of the ratios of the rounds. */
function against(servers, to, kind) {
  const [worker, other] = [WORKER, to].map((name) => servers.find((server) => server.name === name));
  const ratio = (number) => median(perRound(worker, other, ({ kinds }) => number(kinds[kind])));
  return {
    perSecond: ratio(({ perSecond }) => perSecond),
    cpu: ratio(({ cpuSecondsPerMessage }) => cpuSecondsPerMessage),
  };
}

function figure(servers, kind, judge) {
  const { to, ...limits } = AIM;
  const [worker, other] = [WORKER, to].map((name) => servers.find((server) => server.name === name));
  return judged(
    { figure: `${kind}: messages/s through a worker / ${to}`, unit: 'x', ...limits },
    perRound(worker, other, ({ kinds }) => kinds[kind].perSecond),
    judge && worker?.ok === true && other?.ok === true,
  );
}

function row(server, { perSecond, p50Ms, p99Ms, cpuSecondsPerMessage, ioSecondsPerMessage, coresUsed }) {
  return [
    server,
    number(perSecond.median),
    number(perSecond.min),
    number(perSecond.max),
    number(p50Ms.median, 2),
    number(p99Ms.median, 2),
    number(cpuSecondsPerMessage.median && cpuSecondsPerMessage.median * 1e6, 2),
    number(ioSecondsPerMessage.median && ioSecondsPerMessage.median * 1e6, 2),
    number(coresUsed.median, 2),
  ];
}

function describe({ ok, kinds }) {
  const each = Object.entries(kinds).map(([name, { perSecond }]) => `${name} ${number(perSecond)}`);
  return `messages/s: ${each.join(', ')}${ok ? '' : ', WITH WRONG ANSWERS'}`;
}
