import { checkAnswer } from '../lib/answer.js';
import { bars, fromSpread } from '../lib/charts.js';
import { withClient } from '../lib/client-process.js';
import { judged } from '../lib/figures.js';
import { settledMemory } from '../lib/memory.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const HELLO = 'Hello, World!';
const CONNECTIONS = 10_000;
const SMOKE_CONNECTIONS = 100;
/** Opened and closed before the start, so that their code is compiled. Few: what they leave free is used again. */
const WARM_UP = 50;
const WARM_UP_SECONDS = 2;
/** Where V8 puts what is new, in MB: see the scenario `channels`. */
const NEW_SPACE_MB = 1;

const BARE = 'raw-uws';
const entries = [
  { name: BARE, file: 'raw-uws-echo' },
  { name: 'offloop-inline', file: 'offloop-channels', options: { handler: 'idle', dispatch: false } },
  { name: 'offloop-worker', file: 'offloop-channels', options: { handler: 'idle', nMin: 1, nMax: 1 } },
  { name: 'node-http', file: 'node-watched' },
];

const connectionsOf = ({ connections, smoke }) => (smoke ? SMOKE_CONNECTIONS : (connections ?? CONNECTIONS));

/** @type {import('../run.js').Scenario} */
export default {
  name: 'connections',
  title:
    '10,000 connections that did one request and are kept: memory of the server for each, over what the bare engine needs',
  needsWrk: false,
  defaults: { rounds: 3 },
  openFiles: connectionsOf,
  entries,

  async run({ entries, settings }) {
    const { rounds, smoke } = settings;
    const connections = connectionsOf(settings);
    const servers = await measureRounds(entries, {
      rounds,
      env: () => ({ NODE_OPTIONS: `--max-semi-space-size=${NEW_SPACE_MB}` }),
      measure: (server) => measure(server, connections, smoke ? 0.2 : WARM_UP_SECONDS),
      describe: ({ empty, bytes }) =>
        `${number(empty.rss / 1e6, 1)} MB empty, ${number(bytes.rss / 1000, 2)} kB a connection (heaps: ${number(bytes.heap / 1000, 2)})`,
    });
    return {
      load: { rounds, connections, newSpaceMb: NEW_SPACE_MB },
      servers,
      figures: servers
        .filter(({ name }) => name.startsWith('offloop'))
        .flatMap((server) => figure(servers, server, !smoke) ?? []),
      ok: servers.every(({ ok }) => ok),
    };
  },

  chart: ({ servers }) =>
    bars({
      title: 'Memory of a connection that did one request and is kept',
      unit: 'kB',
      rows: servers
        .filter((server) => finished(server).length > 0)
        .map((server) => ({
          name: server.name,
          ...fromSpread(spread(finished(server).map(({ bytes }) => bytes.rss / 1000))),
        })),
    }),

  report: ({ servers, figures, load }) => [
    table(
      ['server', 'MB empty', 'kB a connection', 'min', 'max', 'heaps', 'opened in ms'],
      servers
        .filter((server) => finished(server).length > 0)
        .map((server) => {
          const of = (get) => spread(finished(server).map(get));
          const each = of(({ bytes }) => bytes.rss);
          return [
            server.name,
            number(of(({ empty }) => empty.rss).median / 1e6, 1),
            number(each.median / 1000, 2),
            number(each.min / 1000, 2),
            number(each.max / 1000, 2),
            number(of(({ bytes }) => bytes.heap).median / 1000, 2),
            number(of(({ openedInMs }) => openedInMs).median),
          ];
        }),
    ),
    ...failures(servers),
    figuresTable(figures),
    `kB: 1000 bytes of the resident set, garbage collected, for each of ${number(load.connections)}; the kernel's part of a socket is not in it.`,
  ],
};

async function measure(server, connections, seconds) {
  const { url } = server;
  await checkAnswer(url, { body: HELLO });
  await runLoad({ url, seconds, kinds: [{ name: 'hello', path: '/', body: HELLO, inFlight: 32 }] });
  return await withClient(async (client) => {
    const open = (count) => client.ask('open', { url, count, body: HELLO });
    await open(WARM_UP);
    await client.ask('close');
    const empty = await settledMemory(server);
    const start = performance.now();
    const { ms } = await open(connections);
    const full = await settledMemory(server);
    // The engine closes what has been idle for 10 s: the measurement must have been faster than that.
    const problem = await client.ask('problem');
    if (problem !== null) throw new Error(`${problem}, within ${number(performance.now() - start)} ms`);
    const heap = ({ main, workers }) =>
      [main, ...workers].reduce((sum, { heapUsed, external }) => sum + heapUsed + external, 0);
    return {
      ok: true,
      empty,
      full,
      openedInMs: ms,
      bytes: { rss: (full.rss - empty.rss) / connections, heap: (heap(full) - heap(empty)) / connections },
    };
  }, './http-connections.js');
}

function figure(servers, server, judge) {
  const bare = servers.find(({ name }) => name === BARE);
  if (bare === undefined) return null;
  const over = finished(server).flatMap(({ round, bytes }) => {
    const other = finished(bare).find((sample) => sample.round === round);
    return other === undefined ? [] : [(bytes.rss - other.bytes.rss) / 1000];
  });
  const wanted = {
    figure: `${server.name}: memory of an idle connection, over the bare engine's`,
    unit: 'kB',
    atMost: 1.5,
  };
  return judged(wanted, over, judge && server.ok && bare.ok);
}
