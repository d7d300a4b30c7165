import { get } from 'node:http';
import { bars, fromSpread } from '../lib/charts.js';
import { judged } from '../lib/figures.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const HELLO = 'Hello, World!';
const BARE = 'node-bare';
const entries = [
  { name: BARE, file: 'node-bare' },
  { name: 'node-http', file: 'node-http' },
  { name: 'offloop-inline', file: 'offloop-inline' },
  { name: 'offloop-1-worker', file: 'offloop-dispatched', options: { nMin: 1, nMax: 1 } },
  { name: 'offloop-2-workers', file: 'offloop-dispatched', options: { nMin: 2, nMax: 2 } },
  { name: 'fastify', file: 'fastify' },
  { name: 'fastify-piscina', file: 'fastify-piscina' },
  { name: 'node-cluster', file: 'node-cluster', options: { processes: 2 } },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'start',
  title: 'From the start of the process to its first answer: how much longer than Node itself?',
  needsWrk: false,
  defaults: { rounds: 15 },
  entries,

  async run({ entries, settings }) {
    const { rounds, smoke } = settings;
    const servers = await measureRounds(entries, {
      rounds,
      measure,
      describe: ({ ms, mb }) => `${number(ms)} ms, ${number(mb, 1)} MB`,
    });
    return {
      load: { rounds },
      servers,
      figures: figures(servers, !smoke),
      ok: servers.every(({ ok }) => ok),
    };
  },

  chart: ({ servers }) =>
    bars({
      title: 'From the start of the process to its first answer',
      unit: 'ms',
      rows: servers
        .filter((server) => finished(server).length > 0)
        .map((server) => ({
          name: server.name,
          ...fromSpread(spread(finished(server).map(({ ms }) => ms))),
        })),
    }),

  report: ({ servers, figures }) => [
    table(
      ['server', 'ms', 'min', 'max', 'beyond Node', 'MB then', 'CPU ms'],
      servers
        .filter((server) => finished(server).length > 0)
        .map((server) => {
          const of = (get) => spread(finished(server).map(get));
          const ms = of(({ ms }) => ms);
          const beyond = beyondBare(servers, server);
          return [
            server.name,
            number(ms.median),
            number(ms.min),
            number(ms.max),
            number(beyond.length > 0 ? spread(beyond).median : null),
            number(of(({ mb }) => mb).median, 1),
            number(of(({ cpuMs }) => cpuMs).median),
          ];
        }),
    ),
    ...failures(servers),
    figuresTable(figures),
    `${BARE} is a process that listens nowhere: until it has said so. Each starts alone, on a machine that does nothing else.`,
  ],
};

async function measure(server, { name }) {
  if (name !== BARE) await firstAnswer(server.url);
  const ms = performance.now() - server.startedAt;
  const cpu = server.cpuSeconds();
  return { ok: true, ms, mb: server.memory()?.now, cpuMs: cpu === null ? null : cpu * 1000 };
}

function firstAnswer(url) {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, (res) => {
      let body = '';
      res.setEncoding('utf8').on('data', (text) => {
        body += text;
      });
      res.on('end', () => {
        if (res.statusCode === 200 && body === HELLO) resolve();
        else reject(new Error(`wrong answer: ${res.statusCode} ${body.slice(0, 80)}`));
      });
    }).on('error', reject);
  });
}

/** What a server takes longer, in each round. */
function beyondBare(servers, server) {
  const bare = servers.find(({ name }) => name === BARE);
  return finished(server).flatMap(({ round, ms }) => {
    const other = bare && finished(bare).find((sample) => sample.round === round);
    return other === undefined || server === bare ? [] : [ms - other.ms];
  });
}

function figures(servers, judge) {
  const server = servers.find(({ name }) => name === 'offloop-2-workers');
  const bare = servers.find(({ name }) => name === BARE);
  if (server === undefined || bare === undefined) return [];
  const wanted = {
    figure: 'first answer with two workers, beyond what Node takes to start',
    unit: 'ms',
    atMost: 150,
  };
  return [judged(wanted, beyondBare(servers, server), judge && server.ok && bare.ok)].filter(Boolean);
}
