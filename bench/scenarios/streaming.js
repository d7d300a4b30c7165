import { whole } from '../lib/pieces.js';
import { cpuTable, ratesChart, ratesTable, runLoops } from '../lib/rates.js';
import { failures } from '../lib/table.js';

const CONNECTIONS = 16;
const entries = [
  { name: 'offloop-dispatched', file: 'offloop-dispatched', options: { handler: 'pieces' } },
  { name: 'offloop-inline', file: 'offloop-inline', options: { handler: 'pieces' } },
  { name: 'node-http', file: 'node-pieces' },
];
const kinds = [
  { name: 'all there', path: '/', body: whole, chunked: true },
  { name: 'one a turn', path: '/coming', body: whole, chunked: true },
];
const names = kinds.map(({ name }) => name);

/** @type {import('../run.js').Scenario} */
export default {
  name: 'streaming',
  title: 'A body in a hundred pieces of 65 bytes, its length not known beforehand',
  needsWrk: true,
  defaults: { rounds: 3, duration: 3 },
  entries,

  run: ({ entries, settings }) => runLoops(entries, kinds, settings, CONNECTIONS),

  chart: ({ servers }) => ratesChart('A body in a hundred pieces', servers, names),

  report: ({ servers }) => [
    ratesTable('answers/s', servers, names, 'node-http'),
    cpuTable(servers, names),
    ...failures(servers),
  ],
};
