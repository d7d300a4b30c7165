import { fromSpread, lines } from '../lib/charts.js';
import { cpuWork } from '../lib/cpu-work.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, number, table } from '../lib/table.js';
import { throughputOf } from '../lib/throughput.js';

const CONNECTIONS = [1, 16, 64, 256, 1024];
const WORKERS = [1, 2, 4];
/** Ms of CPU a request. */
const COSTS = [0, 0.1, 1, 10];

const handlerOf = (cost) => (cost === 0 ? 'hello' : 'cpu');

const entries = COSTS.flatMap((cost) => {
  const handler = handlerOf(cost);
  const entry = (server, file, options) => ({
    name: `${server}, ${cost} ms`,
    server,
    cost,
    file,
    options: { handler, ...options },
  });
  return [
    ...WORKERS.map((n) =>
      entry(`offloop, ${n} ${n === 1 ? 'worker' : 'workers'}`, 'offloop-dispatched', { nMin: n, nMax: n }),
    ),
    entry('node:http', 'node-http', {}),
    entry('Fastify + Piscina', 'fastify-piscina', {}),
  ];
});

/** A few corners of it show whether it still runs. */
const SMOKE = entries.filter(({ cost, options }) => (cost === 0 || cost === 1) && options.nMin !== 4);

const connectionsOf = ({ connections }) => (connections === undefined ? CONNECTIONS : [connections]);

/** @type {import('../run.js').Scenario} */
export default {
  name: 'grid',
  title: 'Connections, workers and the CPU time of a request, each against each',
  needsWrk: true,
  comparable: true,
  defaults: { rounds: 3, duration: 2 },
  openFiles: (settings) => Math.max(...connectionsOf(settings)),
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, warmup, smoke } = settings;
    const connections = connectionsOf(settings);
    const works = new Map();
    for (const cost of COSTS) works.set(cost, await cpuWork(cost));
    const servers = await measureRounds(
      smoke ? entries.filter((entry) => SMOKE.some(isOf(entry))) : entries,
      {
        rounds,
        env: ({ cost }) => works.get(cost).env,
        measure: async (server, { cost }) => {
          const body = cost === 0 ? 'Hello, World!' : works.get(cost).body;
          const kinds = {};
          // One process for all of them, the most last: peers go on with what nobody waits for any more.
          for (const [i, count] of connections.entries()) {
            const load = { duration, warmup: i === 0 ? warmup : 0, connections: count, body };
            const { requestsPerSecond, ...sample } = await throughputOf(server, load);
            kinds[`${count} connections`] = { perSecond: requestsPerSecond, ...sample };
          }
          return { ok: Object.values(kinds).every(({ ok }) => ok), kinds };
        },
        describe: ({ kinds }) =>
          Object.entries(kinds)
            .map(
              ([, { perSecond, errorCount }]) => number(perSecond) + (errorCount > 0 ? ' WITH ERRORS' : ''),
            )
            .join(', '),
      },
    );
    return {
      load: { rounds, duration, connections, workers: WORKERS, costs: COSTS },
      servers: servers.map((server) => ({ ...server, ...summary(server, entries) })),
      figures: [],
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, load }) => [
    ...load.costs.flatMap((cost) => {
      const these = servers.filter((server) => server.cost === cost && server.cells.length > 0);
      if (these.length === 0) return [];
      const head = load.connections.map((count) => `${count}`);
      const rows = (text) => these.map(({ server, cells }) => [server, ...cells.map(text)]);
      const what = cost === 0 ? 'hello' : `${cost} ms of CPU`;
      return [
        table(
          [`${what}: requests/s by connections`, ...head],
          rows(({ perSecond }) => number(perSecond.median, perSecond.median < 1000 ? 1 : 0)),
        ),
        table(
          [`${what}: p99 ms`, ...head],
          rows(({ p99 }) => number(p99.median, 2)),
        ),
        table(
          [`${what}: CPU us/request`, ...head],
          rows(({ cpuSeconds }) => number(cpuSeconds && cpuSeconds.median * 1e6, 1)),
        ),
      ];
    }),
    ...failures(servers),
    `A measurement takes ${load.duration} s. Where so many connections wait that their turn comes later than that, only the first ones have a latency.`,
  ],

  chart: ({ servers, load }) =>
    lines({
      title: 'Requests a second by connections, for several costs of a request',
      x: 'connections',
      unit: 'requests/s',
      rows: servers.flatMap(({ server, cost, cells }) =>
        cells.map(({ perSecond }, i) => ({
          panel: cost === 0 ? 'hello' : `${cost} ms of CPU a request`,
          line: server,
          x: load.connections[i],
          ...fromSpread(perSecond),
        })),
      ),
    }),
};

const isOf =
  ({ name, pair = name }) =>
  (entry) =>
    entry.name === pair;

function summary(server, entries) {
  const { server: shown, cost } = entries.find(({ name }) => name === server.name);
  const done = finished(server);
  const cells = Object.keys(done[0]?.kinds ?? {}).map((count) => {
    const of = (number) => spread(done.map(({ kinds }) => number(kinds[count])));
    const known = done.every(({ kinds }) => kinds[count].cpuSecondsPerRequest !== null);
    return {
      perSecond: of(({ perSecond }) => perSecond),
      p99: of(({ latencyMs }) => latencyMs.p99),
      cpuSeconds: known ? of(({ cpuSecondsPerRequest }) => cpuSecondsPerRequest) : null,
    };
  });
  return { server: shown, cost, cells };
}
