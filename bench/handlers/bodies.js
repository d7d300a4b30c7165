// Large bodies: generated as they are read, out of a file, and read as they come.
import { file } from '../../dist/handlers/index.js';
import { blocks } from '../lib/blocks.js';
import { readBody } from '../lib/read-body.js';

const BYTES = { 'content-type': 'application/octet-stream' };

export default async (req) => {
  if (req.path === '/generated') return { headers: BYTES, body: blocks(Number(req.query)) };
  if (req.path === '/file') return { headers: BYTES, body: file(process.env.BENCH_FILE) };
  if (req.method !== 'POST') return { headers: { 'content-type': 'text/plain' }, body: 'ready' };
  return {
    headers: { 'content-type': 'text/plain' },
    body: await readBody(req.body, req.query === 'sha256'),
  };
};
