import { ratesChart, ratesTable, runLoops } from '../lib/rates.js';
import { finished } from '../lib/rounds.js';
import { median } from '../lib/stats.js';
import { failures, number, table } from '../lib/table.js';

const WAITS = [10, 100];
const CONNECTIONS = 256;

const two = { handler: 'wait', nMin: 2, nMax: 2 };
const entries = [
  { name: 'offloop', file: 'offloop-dispatched', options: two },
  // With the default of 64 no more than 128 can wait at once in two workers; the others wait in the queue.
  { name: 'offloop-concurrency-1024', file: 'offloop-dispatched', options: { ...two, concurrency: 1024 } },
  { name: 'offloop-inline', file: 'offloop-inline', options: { handler: 'wait' } },
  { name: 'node-http', file: 'node-http', options: { handler: 'wait' } },
  // As it comes, one at a time waits in each thread.
  {
    name: 'fastify-piscina-128',
    file: 'fastify-piscina',
    options: { handler: 'wait', concurrentTasksPerWorker: 128 },
  },
];

const kinds = WAITS.map((ms) => ({ name: `${ms} ms`, path: `/?${ms}`, body: `waited ${ms}` }));
const names = kinds.map(({ name }) => name);

/** @type {import('../run.js').Scenario} */
export default {
  name: 'wait',
  title: 'Handlers that wait 10 or 100 ms for something else, with many connections',
  needsWrk: true,
  defaults: { rounds: 3, duration: 3 },
  entries,

  run: ({ entries, settings }) => runLoops(entries, kinds, settings, CONNECTIONS),

  chart: ({ servers }) => ratesChart('Handlers that wait', servers, names),

  report: ({ servers, load }) => [
    ratesTable('answers/s', servers, names, 'node-http'),
    table(
      ['latency', ...names.flatMap((name) => [`${name}: p50 ms`, 'p99', 'CPU us'])],
      servers
        .filter((server) => finished(server).length > 0)
        .map((server) => [
          server.name,
          ...names.flatMap((name) => {
            const of = (get) => median(finished(server).map(({ loops }) => get(loops[name])));
            return [
              number(
                of(({ p50 }) => p50),
                1,
              ),
              number(
                of(({ p99 }) => p99),
                1,
              ),
              number(of(({ cpuSeconds }) => cpuSeconds) * 1e6, 1),
            ];
          }),
        ]),
    ),
    ...failures(servers),
    `${load.connections} connections, so at most ${WAITS.map((ms) => `${number((load.connections * 1000) / ms)}/s at ${ms} ms`).join(' and ')}.`,
  ],
};
