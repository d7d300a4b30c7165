import { cpuWork } from '../lib/cpu-work.js';
import { ratio } from '../lib/figures.js';
import { runProgram } from '../lib/program.js';
import { spread } from '../lib/stats.js';
import { figuresTable, number, throughputTable } from '../lib/table.js';
import { measureThroughput } from '../lib/throughput.js';

const handler = 'cpu';

const entries = [
  { name: 'offloop-1-worker', file: 'offloop-dispatched', options: { handler, nMin: 1, nMax: 1 } },
  { name: 'offloop-2-workers', file: 'offloop-dispatched', options: { handler, nMin: 2, nMax: 2 } },
  { name: 'node-http', file: 'node-http', options: { handler } },
  { name: 'fastify-piscina', file: 'fastify-piscina', options: { handler } },
];

const scaling = {
  figure: '2 workers / 1 worker on a 20 ms CPU handler',
  of: 'offloop-2-workers',
  to: 'offloop-1-worker',
  atLeast: 1.9,
};

/** @type {import('../run.js').Scenario} */
export default {
  name: 'cpu',
  title: '20 ms of CPU a request: does a second worker double the work done?',
  needsWrk: true,
  comparable: true,
  entries,

  async run({ entries, settings }) {
    // Few connections: the workers are the bottleneck, and a longer queue only lengthens the wait.
    const { rounds, duration, warmup, connections = 16, smoke } = settings;
    const load = { rounds, duration, warmup, connections };
    const { iterations, body, env } = await cpuWork(20);
    const ceilings = [];
    const eachRound = async () => {
      ceilings.push(await runProgram('./ceiling.js', [String(Math.min(2, duration))], env));
    };
    const servers = await measureThroughput(entries, { ...load, body, env, eachRound });
    const bareThreads = { ratio: spread(ceilings.map(({ ratio }) => ratio)), samples: ceilings };
    const figures = [ratio(servers, scaling, !smoke)].flatMap((figure) => figure ?? []);
    return { load, iterations, bareThreads, servers, figures, ok: servers.every(({ ok }) => ok) };
  },

  report: ({ servers, figures, bareThreads }) => [
    throughputTable(servers),
    figuresTable(figures),
    `Two bare threads do ${number(bareThreads.ratio.median, 2)} times the work of one on this machine` +
      ` (${number(bareThreads.ratio.min, 2)} to ${number(bareThreads.ratio.max, 2)}): the most a server can reach.`,
  ],
};
