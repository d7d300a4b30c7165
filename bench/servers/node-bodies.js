// The floor for large bodies: node:http, with the streams of its documentation.
import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { blocks } from '../lib/blocks.js';
import { readBody } from '../lib/read-body.js';
import { ip, ready } from '../lib/serve.js';

const BYTES = { 'content-type': 'application/octet-stream' };
const path = process.env.BENCH_FILE;

async function answer(req, res) {
  const [route, query] = req.url.split('?');
  if (route === '/generated') {
    res.writeHead(200, BYTES);
    await pipeline(Readable.from(blocks(Number(query))), res);
  } else if (route === '/file') {
    res.writeHead(200, { ...BYTES, 'content-length': statSync(path).size });
    await pipeline(createReadStream(path), res);
  } else {
    const text = req.method === 'POST' ? await readBody(req, query === 'sha256') : 'ready';
    res.writeHead(200, { 'content-type': 'text/plain', 'content-length': text.length });
    res.end(text);
  }
}

const server = createServer((req, res) => void answer(req, res).catch(() => res.destroy()));
server.listen(0, ip, () => ready(server.address().port));
