import { setTimeout as sleep } from 'node:timers/promises';
import { checkAnswer } from '../lib/answer.js';
import { MiB } from '../lib/bodies.js';
import { withClient } from '../lib/client-process.js';
import { judged } from '../lib/figures.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const READERS = 100;
const BODY = 100 * MiB;
/** Bytes a second that each of them reads: 100 MiB would take seven minutes. */
const PER_SECOND = 256 * 1024;
/** Bytes of one body that may be on their way: a window of 256 KiB, and a chunk of 64. */
const WINDOW = 320 * 1024;
/** What a process takes for itself once it has work: compiled code, garbage that has not been collected. */
const ALLOWANCE_MB = 24;

const entries = [
  { name: 'node-http', file: 'node-bodies' },
  { name: 'offloop', file: 'offloop-dispatched', options: { handler: 'bodies', nMin: 1, nMax: 1 } },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'readers',
  title: 'a hundred clients that read 100 MiB slowly: is what waits for them bounded?',
  needsWrk: false,
  defaults: { duration: 10, rounds: 3 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, connections: readers = READERS, smoke } = settings;
    const servers = await measureRounds(entries, {
      rounds,
      measure: (server) => measure(server, readers, duration),
      describe: ({ grownMb, slowest, fastest }) =>
        `${number(grownMb, 1)} MB more, readers have ${number(slowest / MiB, 2)} to ${number(fastest / MiB, 2)} MiB`,
    });
    return {
      load: { rounds, duration, readers, bytes: BODY, perSecond: PER_SECOND },
      servers,
      figures: figures(servers, { readers, duration }, !smoke),
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, figures, load }) => [
    table(
      [
        'server',
        'MB idle',
        'MB more',
        'min',
        'max',
        'kB a reader',
        'least read, MiB',
        'most',
        'another request, ms',
      ],
      servers
        .filter((server) => finished(server).length > 0)
        .map((server) => {
          const of = (get) => spread(finished(server).map(get));
          const grown = of(({ grownMb }) => grownMb);
          return [
            server.name,
            number(of(({ idleMb }) => idleMb).median, 1),
            number(grown.median, 1),
            number(grown.min, 1),
            number(grown.max, 1),
            number((grown.median * MiB) / load.readers / 1000),
            number(of(({ slowest }) => slowest).min / MiB, 2),
            number(of(({ fastest }) => fastest).max / MiB, 2),
            number(of(({ beside }) => beside).max, 1),
          ];
        }),
    ),
    ...failures(servers),
    figuresTable(figures),
    `${load.readers} readers of ${load.perSecond / 1024} KiB/s each, for ${load.duration} s. What the kernel holds for their sockets is not in it.`,
  ],
};

async function measure(server, count, seconds) {
  const { url } = server;
  const hello = () => checkAnswer(url, { body: 'ready' });
  await hello();
  return await withClient(async (client) => {
    const idle = server.memory();
    server.resetPeak();
    await client.ask('readSlowly', { url, path: `/generated?${BODY}`, count, perSecond: PER_SECOND });
    const slowest = [];
    for (let second = 1; second <= seconds; second++) {
      await sleep(1000);
      const start = performance.now();
      await hello();
      slowest.push(performance.now() - start);
    }
    const { bytes, problems } = await client.ask('slowReaders');
    const { peak } = server.memory() ?? {};
    if (problems.length > 0) throw new Error(`${problems.length} readers lost their answer: ${problems[0]}`);
    await client.ask('letGo');
    await hello();
    return {
      ok: true,
      idleMb: idle?.now,
      grownMb: peak - idle?.now,
      beside: Math.max(...slowest),
      slowest: Math.min(...bytes),
      fastest: Math.max(...bytes),
    };
  }, './body-load.js');
}

function figures(servers, { readers, duration }, judge) {
  const server = servers.find(({ name }) => name === 'offloop');
  if (server === undefined) return [];
  const done = finished(server);
  const most = ALLOWANCE_MB + Math.ceil((readers * WINDOW) / MiB);
  return [
    judged(
      {
        figure: `memory over idle, ${readers} windows and ${ALLOWANCE_MB} MB`,
        unit: 'MB',
        atMost: most,
        worst: true,
      },
      done.flatMap(({ grownMb }) => (Number.isFinite(grownMb) ? [grownMb] : [])),
      judge && server.ok,
    ),
    judged(
      { figure: 'what the slowest reader got / what it wanted', unit: 'x', atLeast: 0.9, worst: true },
      done.map(({ slowest }) => slowest / (PER_SECOND * duration)),
      judge && server.ok,
    ),
  ].filter(Boolean);
}
