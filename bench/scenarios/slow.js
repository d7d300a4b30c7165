import { checkAnswer } from '../lib/answer.js';
import { withClient } from '../lib/client-process.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { median } from '../lib/stats.js';
import { failures, number, table } from '../lib/table.js';

const EACH = { head: 100, body: 50, largeBody: 50, reader: 50 };
const SMOKE_EACH = { head: 5, body: 5, largeBody: 5, reader: 5 };
const PER_SECOND = 500;
const READY = 'ready';

const entries = [
  { name: 'offloop', file: 'offloop-dispatched', options: { handler: 'bodies', nMin: 2, nMax: 2 } },
  { name: 'node-http', file: 'node-bodies' },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'slow',
  title: 'Slow clients, 250 of them: heads and bodies byte by byte, and slow readers. Who else notices?',
  needsWrk: false,
  defaults: { rounds: 3, duration: 8 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, smoke } = settings;
    const each = smoke ? SMOKE_EACH : EACH;
    const servers = await measureRounds(entries, {
      rounds,
      measure: (server, _entry, round) =>
        measure(server, { each, seconds: smoke ? 0.2 : duration, warmup: smoke ? 0 : 1, round }),
      describe: ({ alone, beside, lost }) =>
        `p99 ${number(alone.p99, 2)} ms alone, ${number(beside.p99, 2)} ms beside them${lost > 0 ? `, ${lost} LOST` : ''}`,
    });
    return {
      load: { rounds, duration, perSecond: PER_SECOND, each },
      servers,
      figures: [],
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, load }) => [
    table(
      [
        'server',
        'alone p50 ms',
        'p99',
        'beside p50 ms',
        'p99',
        'p99.9',
        'max',
        'p99 beside / alone',
        'MB more',
        'lost',
      ],
      servers
        .filter((server) => finished(server).length > 0)
        .map((server) => {
          const done = finished(server);
          const of = (get) => median(done.map(get));
          return [
            server.name,
            number(
              of(({ alone }) => alone.p50),
              2,
            ),
            number(
              of(({ alone }) => alone.p99),
              2,
            ),
            number(
              of(({ beside }) => beside.p50),
              2,
            ),
            number(
              of(({ beside }) => beside.p99),
              2,
            ),
            number(
              of(({ beside }) => beside.p999),
              2,
            ),
            number(
              of(({ beside }) => beside.max),
              1,
            ),
            number(
              of(({ alone, beside }) => beside.p99 / alone.p99),
              2,
            ),
            number(
              of(({ grownMb }) => grownMb),
              1,
            ),
            number(done.reduce((sum, { lost }) => sum + lost, 0)),
          ];
        }),
    ),
    ...failures(servers),
    ...servers.flatMap((server) => closings(server)),
    `Others ask ${load.perSecond} times a second, evenly, each timed from when it was due.`,
  ],
};

async function measure(server, { each, seconds, warmup, round }) {
  const { url } = server;
  await checkAnswer(url, { body: READY });
  const others = (seconds) =>
    runLoad({
      url,
      seconds,
      seed: round,
      kinds: [{ name: 'other', path: '/', body: READY, perSecond: PER_SECOND }],
    });
  if (warmup > 0) await others(warmup);
  return await withClient(async (client) => {
    const alone = await others(seconds);
    const idle = server.memory();
    server.resetPeak();
    await client.ask('start', { url, each });
    const beside = await others(seconds);
    const closed = await client.ask('stop');
    await checkAnswer(url, { body: READY });
    const lost = [alone, beside].reduce((sum, { kinds }) => sum + kinds.other.sent - kinds.other.ok, 0);
    return {
      ok: lost === 0,
      alone: alone.kinds.other.latencyMs,
      beside: beside.kinds.other.latencyMs,
      others: [alone.kinds.other, beside.kinds.other],
      grownMb: idle === null ? null : server.memory().peak - idle.now,
      closed,
      lost,
    };
  }, './slow-clients.js');
}

/** Whom a server shows the door. */
function closings(server) {
  const done = finished(server);
  const kinds = [...new Set(done.flatMap(({ closed }) => Object.keys(closed)))];
  if (kinds.length === 0) return [];
  const times = kinds.map((kind) => `${kind} ${number(median(done.map(({ closed }) => closed[kind] ?? 0)))}`);
  return [`${server.name} closed slow ones: ${times.join(', ')}.`];
}
