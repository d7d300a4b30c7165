import { ratio } from '../lib/figures.js';
import { figuresTable, throughputTable } from '../lib/table.js';
import { measureThroughput } from '../lib/throughput.js';

const BYTES = 1024;
const JSON_TYPE = 'application/json';

const entries = [
  { name: 'offloop-dispatched', file: 'offloop-dispatched', options: { handler: 'json-echo' } },
  { name: 'offloop-inline', file: 'offloop-inline', options: { handler: 'json-echo' } },
  { name: 'express-json', file: 'express-json' },
  { name: 'fastify-json', file: 'fastify-json' },
];

const ratios = [
  {
    figure: 'JSON in and out by workers / Express',
    of: 'offloop-dispatched',
    to: 'express-json',
    atLeast: 3,
  },
  {
    figure: 'JSON in and out by workers / Fastify',
    of: 'offloop-dispatched',
    to: 'fastify-json',
    atLeast: 1.5,
  },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'json',
  title: '1 KiB of JSON, parsed and written again: the middleware against the parsers of Express and Fastify',
  needsWrk: true,
  comparable: true,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, warmup, connections = 64, smoke } = settings;
    const load = { rounds, duration, warmup, connections, bytes: BYTES };
    const body = document();
    const post = { type: JSON_TYPE, body };
    const servers = await measureThroughput(entries, { ...load, body, type: JSON_TYPE, post });
    const figures = ratios.flatMap((wanted) => ratio(servers, wanted, !smoke) ?? []);
    return { load, servers, figures, ok: servers.every(({ ok }) => ok) };
  },

  report: ({ servers, figures }) => [throughputTable(servers), figuresTable(figures)],
};

/** Numbers, texts, a list and objects in it, in all of {@link BYTES} bytes. */
function document() {
  const value = {
    id: 4711,
    name: 'A thing',
    price: 12.5,
    tags: ['new', 'large', 'blue'],
    parts: [],
    note: '',
  };
  for (let i = 0; i < 12; i++)
    value.parts.push({ id: i, name: `part ${i}`, fits: i % 2 === 0, weight: i / 4 });
  value.note = 'x'.repeat(BYTES - JSON.stringify(value).length);
  return JSON.stringify(value);
}
