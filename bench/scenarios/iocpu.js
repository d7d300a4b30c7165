import { checkAnswer } from '../lib/answer.js';
import { bars, fromSpread } from '../lib/charts.js';
import { closedLoops, errorsIn } from '../lib/closed-loops.js';
import { judged, perRound } from '../lib/figures.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const HELLO = 'Hello, World!';
const entries = [
  { name: 'raw-uws', file: 'raw-uws' },
  { name: 'offloop-inline', file: 'offloop-inline' },
  { name: 'offloop-1-worker', file: 'offloop-dispatched', options: { nMin: 1, nMax: 1 } },
  { name: 'offloop-2-workers', file: 'offloop-dispatched', options: { nMin: 2, nMax: 2 } },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'iocpu',
  title: 'Hello, World!: what does a request cost the thread that has the sockets, inline and dispatched?',
  needsWrk: true,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, connections = 64, smoke } = settings;
    const servers = await measureRounds(entries, {
      rounds,
      measure: (server) => measure(server, { ...settings, connections }),
      describe: ({ hello }) =>
        `${number(hello.ioSeconds * 1e6, 2)} us of the I/O thread, ${number(hello.cpuSeconds * 1e6, 2)} us in all`,
    });
    return {
      load: { rounds, duration, connections },
      servers,
      figures: figures(servers, !smoke),
      ok: servers.every(({ ok }) => ok),
    };
  },

  chart: ({ servers }) =>
    bars({
      title: 'What a request costs the thread that has the sockets',
      unit: 'us of CPU',
      rows: servers
        .filter((server) => finished(server).length > 0)
        .map((server) => ({
          name: server.name,
          ...fromSpread(spread(finished(server).map(({ hello }) => hello.ioSeconds * 1e6))),
        })),
    }),

  report: ({ servers, figures }) => [
    table(
      ['server', 'I/O thread us/request', 'min', 'max', 'all threads us', 'requests/s'],
      servers
        .filter((server) => finished(server).length > 0)
        .map((server) => {
          const of = (get) => spread(finished(server).map(({ hello }) => get(hello)));
          const io = of(({ ioSeconds }) => ioSeconds);
          return [
            server.name,
            number(io.median * 1e6, 2),
            number(io.min * 1e6, 2),
            number(io.max * 1e6, 2),
            number(of(({ cpuSeconds }) => cpuSeconds).median * 1e6, 2),
            number(of(({ perSecond }) => perSecond).median),
          ];
        }),
    ),
    ...failures(servers),
    figuresTable(figures),
    'Linux only. The garbage collector has threads of its own, which are among "all threads".',
  ],
};

async function measure(server, settings) {
  await checkAnswer(server.url, { body: HELLO });
  const results = await closedLoops(server, [{ name: 'hello', path: '/', body: HELLO }], settings);
  if (results.hello.ioSeconds === null)
    throw new Error('this system has no /proc to read the CPU time of a thread from');
  return { ok: errorsIn(results) === 0, ...results };
}

function figures(servers, judge) {
  const inline = servers.find(({ name }) => name === 'offloop-inline');
  const dispatched = servers.filter(({ options }) => options?.nMin !== undefined);
  return dispatched.flatMap(
    (server) =>
      judged(
        { figure: `CPU of the I/O thread: ${server.name} / inline`, unit: 'x', atMost: 1.6 },
        perRound(server, inline, ({ hello }) => hello.ioSeconds).filter(Number.isFinite),
        judge && server.ok && inline?.ok === true,
      ) ?? [],
  );
}
