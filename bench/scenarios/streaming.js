import { checkAnswer } from '../lib/answer.js';
import { closedLoops, errorsIn, inOrder } from '../lib/closed-loops.js';
import { whole } from '../lib/pieces.js';
import { cpuTable, describeLoops, ratesChart, ratesTable } from '../lib/rates.js';
import { measureRounds } from '../lib/rounds.js';
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

  async run({ entries, settings }) {
    const { rounds, duration, connections = CONNECTIONS } = settings;
    const servers = await measureRounds(entries, {
      rounds,
      measure: (server) => measure(server, { ...settings, connections }),
      describe: describeLoops,
    });
    return {
      load: { rounds, duration, connections },
      servers,
      figures: [],
      ok: inOrder(servers),
    };
  },

  chart: ({ servers }) => ratesChart('A body in a hundred pieces', servers, names),

  report: ({ servers }) => [
    ratesTable('answers/s', servers, names, 'node-http'),
    cpuTable(servers, names),
    ...failures(servers),
  ],
};

async function measure(server, settings) {
  for (const { path, ...expected } of kinds) await checkAnswer(server.url + path, expected);
  const loops = await closedLoops(server, kinds, { ...settings, warmup: Math.min(1, settings.warmup) });
  return { ok: errorsIn(loops) === 0, loops };
}
