import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { blocks, hashOf } from '../lib/blocks.js';
import { bodyChart, bodyFigures, bodyTable, MiB, moveBodies, sizes } from '../lib/bodies.js';
import { figuresTable } from '../lib/table.js';

const kinds = {
  generated: { path: (bytes) => `/generated?${bytes}`, what: 'made by a handler' },
  file: { path: () => '/file', what: 'a file' },
};
const bodies = { handler: 'bodies' };
const entries = Object.keys(kinds).flatMap((kind) => [
  { name: `node-${kind}`, file: 'node-bodies', kind },
  { name: `offloop-${kind}`, file: 'offloop-dispatched', options: bodies, kind },
  // The same without threads: what they cost.
  { name: `inline-${kind}`, file: 'offloop-inline', options: bodies, kind },
]);

/** @type {import('../run.js').Scenario} */
export default {
  name: 'download',
  title: '1 GiB down through a worker: as fast as plain Node, and in how much memory?',
  needsWrk: false,
  entries,

  async run({ entries, settings }) {
    const { rounds, smoke } = settings;
    const { bytes } = sizes(settings);
    const folder = mkdtempSync(join(tmpdir(), 'offloop-bench-'));
    const BENCH_FILE = join(folder, 'body');
    try {
      write(BENCH_FILE, bytes);
      const servers = await moveBodies(entries, {
        settings,
        env: () => ({ BENCH_FILE }),
        check: (client, url, { kind }) => check(client, url, kind, bytes),
        move: async (client, url, { kind }, size) => {
          const got = await client.ask('download', { url, path: kinds[kind].path(size) });
          // The file is always as large as it is.
          if (got.bytes !== (kind === 'file' ? bytes : size)) throw new Error(`${got.bytes} bytes came`);
          return { seconds: got.seconds, moved: got.bytes };
        },
      });
      const figures = Object.entries(kinds).flatMap(([kind, { what }]) =>
        bodyFigures(servers, { of: `offloop-${kind}`, to: `node-${kind}`, what }, !smoke),
      );
      return { load: { rounds, bytes }, servers, figures, ok: servers.every(({ ok }) => ok) };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },

  chart: ({ servers }) => bodyChart(servers, '1 GiB down'),

  report: ({ servers, figures }) => [bodyTable(servers), figuresTable(figures)],
};

/** Every byte, once. A body that is generated ends within a block. */
async function check(client, url, kind, fileBytes) {
  const size = kind === 'file' ? fileBytes : 3 * MiB + 12_345;
  const got = await client.ask('download', { url, path: kinds[kind].path(size), hash: true });
  if (got.bytes !== size || got.hash !== hashOf(size))
    throw new Error(`wrong answer: ${got.bytes} bytes, ${got.hash}`);
}

function write(path, bytes) {
  const fd = openSync(path, 'w');
  for (const block of blocks(bytes)) writeSync(fd, block);
  closeSync(fd);
}
