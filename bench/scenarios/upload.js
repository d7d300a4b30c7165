import { hashOf } from '../lib/blocks.js';
import { bodyChart, bodyFigures, bodyTable, GiB, MiB, moveBodies, sizes } from '../lib/bodies.js';
import { figuresTable } from '../lib/table.js';

/** The engine takes a Content-Length of nine digits at most (docs/engine.md). */
const MOST = 999_424_000;
const CHECKED = 3 * MiB + 12_345;

const options = { handler: 'bodies', maxBody: 2 * GiB };
const kinds = { length: 'with a Content-Length', chunked: 'chunked' };
const entries = Object.keys(kinds).flatMap((kind) => [
  { name: `node-${kind}`, file: 'node-bodies', kind },
  { name: `offloop-${kind}`, file: 'offloop-dispatched', options, kind },
]);

/** @type {import('../run.js').Scenario} */
export default {
  name: 'upload',
  title: '1 GiB up, read chunk by chunk in a worker: as fast as plain Node, and in how much memory?',
  needsWrk: false,
  entries,

  async run({ entries, settings }) {
    const { rounds, smoke } = settings;
    const { bytes } = sizes(settings);
    const servers = await moveBodies(entries, {
      settings,
      check: (client, url, entry) => upload(client, url, entry, '/?sha256', CHECKED, hashOf(CHECKED)),
      move: async (client, url, entry, size) => {
        const bytes = entry.kind === 'length' ? Math.min(MOST, size) : size;
        const { seconds } = await upload(client, url, entry, '/', bytes, String(bytes));
        return { seconds, moved: bytes };
      },
    });
    const figures = Object.entries(kinds).flatMap(([kind, what]) =>
      bodyFigures(servers, { of: `offloop-${kind}`, to: `node-${kind}`, what }, !smoke),
    );
    return { load: { rounds, bytes }, servers, figures, ok: servers.every(({ ok }) => ok) };
  },

  chart: ({ servers }) => bodyChart(servers, '1 GiB up'),

  report: ({ servers, figures }) => [bodyTable(servers), figuresTable(figures)],
};

/** The handler answers how many bytes it has read, or what they were. */
async function upload(client, url, { kind }, path, bytes, wanted) {
  const got = await client.ask('upload', { url, path, bytes, chunked: kind === 'chunked' });
  if (got.text !== wanted) throw new Error(`wrong answer: ${got.text} instead of ${wanted}`);
  return got;
}
