import { withClient } from '../lib/client-process.js';
import { clocks } from '../lib/closed-loops.js';
import { perRound } from '../lib/figures.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { median, spread } from '../lib/stats.js';
import { failures, number, table } from '../lib/table.js';

const SUBSCRIBERS = 1000;
const SMOKE_SUBSCRIBERS = 50;
/** Events that follow one request. */
const bursts = [1, 10];

const PEER = 'node-http';
const entries = [
  { name: 'offloop-worker', file: 'offloop-dispatched', options: { handler: 'sse', nMin: 1, nMax: 1 } },
  { name: 'offloop-inline', file: 'offloop-inline', options: { handler: 'sse' } },
  { name: PEER, file: 'node-sse' },
];

const subscribersOf = ({ connections, smoke }) => (smoke ? SMOKE_SUBSCRIBERS : (connections ?? SUBSCRIBERS));

/** @type {import('../run.js').Scenario} */
export default {
  name: 'sse',
  title: 'An event of 64 bytes to 1000 event streams: until all have it',
  needsWrk: false,
  defaults: { rounds: 3 },
  openFiles: subscribersOf,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, smoke } = settings;
    const subscribers = subscribersOf(settings);
    const seconds = smoke ? 0.1 : duration / bursts.length;
    const servers = await measureRounds(entries, {
      rounds,
      measure: (server) => measure(server, { subscribers, seconds }),
      describe: ({ bursts, wrong }) =>
        Object.entries(bursts)
          .map(([times, { latencyMs }]) => `${times} at once: ${number(latencyMs.p50, 1)} ms`)
          .join(', ') + (wrong > 0 ? `, ${wrong} WRONG` : ''),
    });
    return {
      load: { rounds, duration, subscribers, bursts },
      servers,
      figures: [],
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, load }) => [
    ...bursts.map((times) => {
      const peer = servers.find(({ name }) => name === PEER);
      return table(
        [`${times} at once`, 'p50 ms', 'min', 'max', 'p99 ms', 'CPU ms', 'I/O thread ms', `p50 / ${PEER}`],
        servers
          .filter((server) => finished(server).length > 0)
          .map((server) => {
            const of = (get) => spread(finished(server).map(({ bursts }) => get(bursts[times])));
            const p50 = of(({ latencyMs }) => latencyMs.p50);
            return [
              server.name,
              number(p50.median, 1),
              number(p50.min, 1),
              number(p50.max, 1),
              number(of(({ latencyMs }) => latencyMs.p99).median, 1),
              number(of(({ cpuMs }) => cpuMs).median, 2),
              number(of(({ ioMs }) => ioMs).median, 2),
              number(median(perRound(server, peer, ({ bursts }) => bursts[times].latencyMs.p50)), 2),
            ];
          }),
      );
    }),
    ...failures(servers),
    `${number(load.subscribers)} subscribers, on a client that shares the cores. The next comes when all have got the last.`,
  ],
};

async function measure(server, { subscribers, seconds }) {
  return await withClient(async (client) => {
    const { url } = server;
    const opened = await client.ask('subscribe', { url, count: subscribers });
    const results = {};
    for (const times of bursts) {
      await client.ask('publish', { url, times, seconds: seconds / 4 });
      const before = clocks(server);
      const { rounds, ...result } = await client.ask('publish', { url, times, seconds });
      const after = clocks(server);
      const ms = (clock) =>
        before[clock] === null ? null : ((after[clock] - before[clock]) / rounds) * 1000;
      results[times] = { rounds, ...result, cpuMs: ms('all'), ioMs: ms('io') };
    }
    const wrong = Object.values(results).reduce((sum, result) => sum + result.wrong, 0);
    return { ok: wrong === 0, wrong, openedInMs: opened.ms, bursts: results };
  }, './sse-load.js');
}
