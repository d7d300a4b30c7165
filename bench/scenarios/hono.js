import { bars, throughputRows } from '../lib/charts.js';
import { cpuWork } from '../lib/cpu-work.js';
import { ratio } from '../lib/figures.js';
import { figuresTable, throughputTable } from '../lib/table.js';
import { measureThroughput } from '../lib/throughput.js';

const WORK_MS = 1;
const handler = 'hono-app';
const entries = [
  { name: 'offloop-dispatched', file: 'offloop-dispatched', options: { handler } },
  { name: 'offloop-inline', file: 'offloop-inline', options: { handler } },
  { name: 'hono-node-server', file: 'hono-node-server', options: { handler } },
];

/** With two cores, one of which the load generator wants as well, two workers cannot do twice the work. */
const kinds = {
  hello: { path: '/', atLeast: 1 },
  work: { path: '/work', atLeast: 1.5 },
};

/** @type {import('../run.js').Scenario} */
export default {
  name: 'hono',
  title: 'a Hono app in workers and on @hono/node-server: hello, and 1 ms of CPU a request',
  needsWrk: true,
  comparable: true,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, warmup, connections = 64, smoke } = settings;
    const load = { rounds, duration, warmup, connections };
    const { iterations, body, env } = await cpuWork(WORK_MS);
    const results = {};
    for (const [kind, { path }] of Object.entries(kinds)) {
      const answer = kind === 'work' ? body : 'Hello, World!';
      results[kind] = await measureThroughput(entries, { ...load, path, body: answer, env });
    }
    const figures = Object.entries(kinds).flatMap(
      ([kind, { atLeast }]) =>
        ratio(
          results[kind],
          {
            figure: `${kind}: workers / @hono/node-server`,
            of: 'offloop-dispatched',
            to: 'hono-node-server',
            atLeast,
          },
          !smoke,
        ) ?? [],
    );
    const all = Object.values(results).flat();
    return { load, iterations, servers: results, figures, ok: all.every(({ ok }) => ok) };
  },

  chart: ({ servers }) =>
    bars({
      title: 'A Hono app: in workers, inline, and on @hono/node-server',
      unit: 'requests/s',
      rows: Object.entries(servers).flatMap(([kind, of]) => throughputRows(of, kind)),
    }),

  report: ({ servers, figures }) => [
    ...Object.entries(servers).map(([kind, of]) => `${kind}\n${throughputTable(of)}`),
    figuresTable(figures),
  ],
};
