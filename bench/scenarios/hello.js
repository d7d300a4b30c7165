import { ratio } from '../lib/figures.js';
import { figuresTable, throughputTable } from '../lib/table.js';
import { measureThroughput } from '../lib/throughput.js';

const entries = [
  { name: 'raw-uws', file: 'raw-uws' },
  { name: 'raw-uws-reading', file: 'raw-uws-reading' },
  { name: 'raw-uws-late', file: 'raw-uws-late' },
  { name: 'offloop-inline', file: 'offloop-inline' },
  { name: 'offloop-dispatched', file: 'offloop-dispatched', options: poolFromEnv() },
  { name: 'node-http', file: 'node-http' },
  { name: 'fastify', file: 'fastify' },
  { name: 'fastify-piscina', file: 'fastify-piscina' },
  { name: 'express', file: 'express' },
  { name: 'hono', file: 'hono-node-server', options: { handler: 'hono-hello' } },
  { name: 'hyper-express', file: 'hyper-express' },
  { name: 'node-cluster', file: 'node-cluster', options: { processes: 2 } },
  { name: 'fastify-poolifier', file: 'fastify-poolifier' },
];

const ratios = [
  { figure: 'inline hello / raw uWebSockets.js hello', of: 'offloop-inline', to: 'raw-uws', atLeast: 0.95 },
  // What is left when the price of looking at the request is taken out.
  {
    figure: 'inline hello / raw uWebSockets.js that reads the request',
    of: 'offloop-inline',
    to: 'raw-uws-reading',
    atLeast: 0.95,
  },
  {
    figure: 'dispatched hello / inline hello',
    of: 'offloop-dispatched',
    to: 'offloop-inline',
    atLeast: 0.85,
  },
  {
    figure: 'dispatched hello / raw uWebSockets.js hello',
    of: 'offloop-dispatched',
    to: 'raw-uws',
    atLeast: 0.8,
  },
  // The engine's own price of an answer that comes later: no dispatcher can do better.
  {
    figure: 'raw uWebSockets.js that answers later / raw uWebSockets.js hello',
    of: 'raw-uws-late',
    to: 'raw-uws',
    atLeast: 0.8,
  },
  {
    figure: 'dispatched hello / node:http hello run inline',
    of: 'offloop-dispatched',
    to: 'node-http',
    atLeast: 1.3,
  },
  {
    figure: 'dispatched hello / Fastify + Piscina by hand',
    of: 'offloop-dispatched',
    to: 'fastify-piscina',
    atLeast: 4,
  },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'hello',
  title: 'Hello, World!: what a server costs when the handler costs nothing',
  needsWrk: true,
  comparable: true,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, warmup, connections = 64, smoke } = settings;
    const load = { rounds, duration, warmup, connections };
    const servers = await measureThroughput(entries, { ...load, body: 'Hello, World!' });
    const figures = ratios.flatMap((wanted) => ratio(servers, wanted, !smoke) ?? []);
    return { load, servers, figures, ok: servers.every(({ ok }) => ok) };
  },

  report: ({ servers, figures }) => [throughputTable(servers), figuresTable(figures)],
};

/** The pool is offloop's default on this machine unless BENCH_NMIN or BENCH_NMAX say otherwise. */
function poolFromEnv() {
  const { BENCH_NMIN, BENCH_NMAX } = process.env;
  return { ...(BENCH_NMIN && { nMin: Number(BENCH_NMIN) }), ...(BENCH_NMAX && { nMax: Number(BENCH_NMAX) }) };
}
