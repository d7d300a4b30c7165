import { checkAnswer } from '../lib/answer.js';
import { withClient } from '../lib/client-process.js';
import { judged } from '../lib/figures.js';
import { settledMemory } from '../lib/memory.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const CHANNELS = 10_000;
const SMOKE_CHANNELS = 100;
/** Opened and closed before the start, so that their code is compiled. Few: what they leave free is used again. */
const WARM_UP = 50;
const WARM_UP_SECONDS = 2;
/**
 * Where V8 puts what is new, in MB. By default it grows up to 32 MB a thread and shrinks again as it likes, which is
 * several kB a channel, for reasons that have nothing to do with their number.
 */
const NEW_SPACE_MB = 1;

const entries = [
  { name: 'raw-uws', file: 'raw-uws-echo' },
  { name: 'offloop-inline', file: 'offloop-channels', options: { handler: 'idle', dispatch: false } },
  { name: 'offloop-worker', file: 'offloop-channels', options: { handler: 'idle', nMin: 1, nMax: 1 } },
  {
    name: 'offloop-defined',
    file: 'offloop-channels',
    options: { handler: 'idle-defined', nMin: 1, nMax: 1 },
  },
];
const BARE = 'raw-uws';

const channelsOf = ({ connections, smoke }) => (smoke ? SMOKE_CHANNELS : (connections ?? CHANNELS));

/** @type {import('../run.js').Scenario} */
export default {
  name: 'channels',
  title: '10,000 WebSockets that do nothing: memory of the server for each, over what the bare engine needs',
  needsWrk: false,
  defaults: { rounds: 3 },
  openFiles: channelsOf,
  entries,

  async run({ entries, settings }) {
    const { rounds, smoke } = settings;
    const channels = channelsOf(settings);
    const servers = await measureRounds(entries, {
      rounds,
      env: () => ({ NODE_OPTIONS: `--max-semi-space-size=${NEW_SPACE_MB}` }),
      measure: (server) => measure(server, channels, smoke ? 0.2 : WARM_UP_SECONDS),
      describe,
    });
    return {
      load: { rounds, channels, newSpaceMb: NEW_SPACE_MB },
      servers,
      figures: entries.flatMap(({ name }) => figure(servers, name, !smoke) ?? []),
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, figures, load }) => [
    table(
      [
        'server',
        'MB empty',
        'kB a channel',
        'min',
        'max',
        'first half',
        'second half',
        'heap, I/O thread',
        'heap, worker',
        'opened in ms',
      ],
      servers.flatMap((server) => {
        const done = finished(server);
        if (done.length === 0) return [];
        const of = (get) => spread(done.map(get));
        const each = of(({ bytes }) => bytes.rss);
        return [
          [
            server.name,
            number(of(({ empty }) => empty.rss).median / 1e6, 1),
            number(each.median / 1000, 2),
            number(each.min / 1000, 2),
            number(each.max / 1000, 2),
            number(of(({ bytes }) => bytes.firstHalf).median / 1000, 2),
            number(of(({ bytes }) => bytes.secondHalf).median / 1000, 2),
            number(of(({ bytes }) => bytes.mainHeap).median / 1000, 2),
            number(of(({ bytes }) => bytes.workerHeap).median / 1000, 2),
            number(of(({ openedInMs }) => openedInMs).median),
          ],
        ];
      }),
    ),
    ...failures(servers),
    figuresTable(figures),
    `kB: 1000 bytes of the resident set, garbage collected, for each of ${number(load.channels)}; the kernel's part of a socket is not in it.`,
  ],
};

async function measure(server, channels, seconds) {
  const { url } = server;
  await checkAnswer(url, { body: 'Hello, World!' });
  // So that what comes once has come: compiled code, grown buffers.
  await runLoad({ url, seconds, kinds: [{ name: 'hello', path: '/', inFlight: 32 }] });
  return await withClient(async (client) => {
    const connect = (count) => client.ask('connect', { url, count });
    await connect(WARM_UP);
    const [answer] = await client.ask('exchange', { text: 'hello' });
    if (answer !== 'hello') throw new Error(`wrong answer: ${answer}`);
    await client.ask('close');
    const empty = await settledMemory(server);
    const first = await connect(channels / 2);
    const half = await settledMemory(server);
    const second = await connect(channels / 2);
    const full = await settledMemory(server);
    const [last] = await client.ask('exchange', { numbers: [channels - 1], text: 'still there' });
    const workers = ({ workers }) =>
      workers.reduce((sum, { heapUsed, external }) => sum + heapUsed + external, 0);
    return {
      ok: last === 'still there',
      empty,
      half,
      full,
      openedInMs: first.ms + second.ms,
      bytes: {
        rss: (full.rss - empty.rss) / channels,
        firstHalf: (half.rss - empty.rss) / (channels / 2),
        secondHalf: (full.rss - half.rss) / (channels / 2),
        mainHeap:
          (full.main.heapUsed + full.main.external - empty.main.heapUsed - empty.main.external) / channels,
        workerHeap: (workers(full) - workers(empty)) / channels,
      },
    };
  });
}

function figure(servers, name, judge) {
  if (name === BARE) return null;
  const [server, bare] = [name, BARE].map((wanted) => servers.find((other) => other.name === wanted));
  if (server === undefined || bare === undefined) return null;
  const over = finished(server).flatMap(({ round, bytes }) => {
    const other = finished(bare).find((sample) => sample.round === round);
    return other === undefined ? [] : [(bytes.rss - other.bytes.rss) / 1000];
  });
  const wanted = {
    figure: `${name}: memory of an idle channel, over the bare engine's`,
    unit: 'kB',
    atMost: 1.5,
  };
  return judged(wanted, over, judge && server.ok && bare.ok);
}

function describe({ bytes, empty }) {
  return (
    `${number(empty.rss / 1e6, 1)} MB empty, ${number(bytes.rss / 1000, 2)} kB a channel ` +
    `(heaps: ${number(bytes.mainHeap / 1000, 2)} and ${number(bytes.workerHeap / 1000, 2)})`
  );
}
