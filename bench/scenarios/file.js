import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ratio } from '../lib/figures.js';
import { figuresTable, throughputTable } from '../lib/table.js';
import { measureThroughput } from '../lib/throughput.js';

const BYTES = 64 * 1024;
const NAME = 'page.txt';

const entries = [
  { name: 'offloop-dispatched', file: 'offloop-dispatched', options: { handler: 'folder' } },
  { name: 'offloop-static-files', file: 'offloop-dispatched', options: { handler: 'static-files' } },
  { name: 'offloop-inline', file: 'offloop-inline', options: { handler: 'folder' } },
  { name: 'express-static', file: 'express-static' },
  { name: 'fastify-static', file: 'fastify-static' },
];

const ratios = ['offloop-dispatched', 'offloop-static-files'].flatMap((of) =>
  ['express-static', 'fastify-static'].map((to) => ({ figure: `${of} / ${to}`, of, to, atLeast: 1.5 })),
);

/** @type {import('../run.js').Scenario} */
export default {
  name: 'file',
  title: 'a file of 64 KiB out of a folder: workers against the static servers of Express and Fastify',
  needsWrk: true,
  comparable: true,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, warmup, connections = 64, smoke } = settings;
    const load = { rounds, duration, warmup, connections, bytes: BYTES };
    const folder = mkdtempSync(join(tmpdir(), 'offloop-bench-'));
    const body = 'A line of text, as files have them.\n'.repeat(BYTES).slice(0, BYTES);
    try {
      writeFileSync(join(folder, NAME), body);
      const env = { BENCH_FOLDER: folder };
      const servers = await measureThroughput(entries, { ...load, path: `/${NAME}`, body, env });
      const figures = ratios.flatMap((wanted) => ratio(servers, wanted, !smoke) ?? []);
      return { load, servers, figures, ok: servers.every(({ ok }) => ok) };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },

  report: ({ servers, figures }) => [throughputTable(servers), figuresTable(figures)],
};
