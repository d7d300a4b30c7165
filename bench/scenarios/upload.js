import { hashOf } from '../lib/blocks.js';
import { bodyFigures, bodyTable, GiB, MiB, moveBodies, sizes } from '../lib/bodies.js';
import { figuresTable } from '../lib/table.js';

const bodies = { handler: 'bodies', maxBody: 2 * GiB };
const entries = [
  { name: 'node-http', file: 'node-bodies' },
  { name: 'offloop', file: 'offloop-dispatched', options: bodies },
  // Its handler starts with the head.
  { name: 'offloop-stream-body', file: 'offloop-dispatched', options: { ...bodies, streamBody: true } },
];

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
      check: (client, url) => upload(client, url, '/?sha256', 3 * MiB + 12_345, hashOf(3 * MiB + 12_345)),
      move: (client, url, _entry, size) => upload(client, url, '/', size, String(size)),
    });
    const figures = ['offloop', 'offloop-stream-body'].flatMap((of) =>
      bodyFigures(servers, { of, to: 'node-http', what: 'upload' }, !smoke),
    );
    return { load: { rounds, bytes }, servers, figures, ok: servers.every(({ ok }) => ok) };
  },

  report: ({ servers, figures }) => [bodyTable(servers), figuresTable(figures)],
};

/** The handler answers how many bytes it has read, or what they were. */
async function upload(client, url, path, bytes, wanted) {
  const got = await client.ask('upload', { url, path, bytes });
  if (got.text !== wanted) throw new Error(`wrong answer: ${got.text} instead of ${wanted}`);
  return got;
}
