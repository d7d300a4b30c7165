import { checkAnswer } from '../lib/answer.js';
import { clocks, inOrder } from '../lib/closed-loops.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, number, table } from '../lib/table.js';

const HELLO = 'Hello, World!';
const CONNECTIONS = 32;
const entries = [
  { name: 'raw-uws', file: 'raw-uws' },
  { name: 'offloop-inline', file: 'offloop-inline' },
  { name: 'offloop-dispatched', file: 'offloop-dispatched' },
  { name: 'node-http', file: 'node-http' },
  { name: 'node-cluster', file: 'node-cluster', options: { processes: 2 } },
  { name: 'fastify', file: 'fastify' },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'churn',
  title: 'A connection for each request: what does coming and going cost?',
  needsWrk: false,
  defaults: { rounds: 3 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, connections = CONNECTIONS, smoke } = settings;
    const servers = await measureRounds(entries, {
      rounds,
      measure: (server) =>
        measure(server, { seconds: smoke ? 0.2 : duration, warmup: smoke ? 0 : 1, connections }),
      describe: ({ perSecond, cpuMicros, lost }) =>
        `${number(perSecond)}/s, ${number(cpuMicros, 1)} us of CPU each${lost > 0 ? `, ${lost} LOST` : ''}`,
    });
    return {
      load: { rounds, duration, connections },
      servers,
      figures: [],
      ok: inOrder(servers),
    };
  },

  report: ({ servers, load }) => [
    table(
      ['server', 'requests/s', 'min', 'max', 'p50 ms', 'p99 ms', 'CPU us/request', 'main thread us'],
      servers
        .filter((server) => finished(server).length > 0)
        .map((server) => {
          const of = (get) => spread(finished(server).map(get));
          const rate = of(({ perSecond }) => perSecond);
          return [
            server.name,
            number(rate.median),
            number(rate.min),
            number(rate.max),
            number(of(({ latencyMs }) => latencyMs.p50).median, 2),
            number(of(({ latencyMs }) => latencyMs.p99).median, 2),
            number(of(({ cpuMicros }) => cpuMicros).median, 1),
            number(of(({ ioMicros }) => ioMicros).median, 1),
          ];
        }),
    ),
    ...failures(servers),
    `${load.connections} at a time, from connecting to the answer. The client needs more CPU for that than any of the servers: what a request costs them says more than how many there were.`,
  ],
};

async function measure(server, { seconds, warmup, connections }) {
  await checkAnswer(server.url, { body: HELLO });
  const load = (seconds) =>
    runLoad({
      url: server.url,
      seconds,
      connections: 0,
      kinds: [{ name: 'hello', path: '/', body: HELLO, fresh: true, inFlight: connections }],
    });
  if (warmup > 0) await load(warmup);
  const before = clocks(server);
  const { requests, seconds: took, latencyMs, kinds } = await load(seconds);
  const after = clocks(server);
  const micros = (clock) =>
    before[clock] === null ? null : ((after[clock] - before[clock]) / requests) * 1e6;
  const lost = kinds.hello.sent - kinds.hello.ok;
  return {
    ok: lost === 0,
    perSecond: requests / took,
    latencyMs,
    cpuMicros: micros('all'),
    ioMicros: micros('io'),
    lost,
    failures: kinds.hello.failures,
  };
}
