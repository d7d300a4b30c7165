import { cpuTable, ratesChart, ratesTable, runLoops } from '../lib/rates.js';
import { bodyOf } from '../lib/sizes.js';
import { failures } from '../lib/table.js';

const SIZES = { '0 B': 0, '1 KiB': 2 ** 10, '64 KiB': 2 ** 16, '1 MiB': 2 ** 20 };
const CONNECTIONS = 16;
const PIECE = 'offloop ';

const entries = [
  { name: 'raw-uws', file: 'raw-uws-sizes' },
  { name: 'offloop-inline', file: 'offloop-inline', options: { handler: 'sizes' } },
  { name: 'offloop-dispatched', file: 'offloop-dispatched', options: { handler: 'sizes' } },
  { name: 'node-http', file: 'node-sizes' },
  { name: 'fastify', file: 'fastify-sizes' },
];

const down = Object.entries(SIZES).map(([size, bytes]) => ({
  name: `${size} down`,
  path: `/?${bytes}`,
  body: bodyOf(bytes).toString(),
}));
const up = Object.entries(SIZES).map(([size, bytes]) => ({
  name: `${size} up`,
  path: '/',
  body: String(bytes),
  post: { type: 'text/plain', body: PIECE, times: bytes / PIECE.length },
}));
const namesOf = (loops) => loops.map(({ name }) => name);

/** @type {import('../run.js').Scenario} */
export default {
  name: 'sizes',
  title: 'Bodies of 0 bytes to 1 MiB, down and up, each held as a whole',
  needsWrk: true,
  defaults: { rounds: 3, duration: 2 },
  entries,

  run: ({ entries, settings }) => runLoops(entries, [...down, ...up], settings, CONNECTIONS),

  chart: ({ servers }) => ratesChart('Bodies by their size, down and up', servers, namesOf([...down, ...up])),

  report: ({ servers }) => [
    ratesTable('answers/s', servers, namesOf(down), 'node-http'),
    cpuTable(servers, namesOf(down)),
    ratesTable('answers/s', servers, namesOf(up), 'node-http'),
    cpuTable(servers, namesOf(up)),
    ...failures(servers),
  ],
};
