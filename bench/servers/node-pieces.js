// node:http writing a body piece by piece, with no length given beforehand.
import { createServer } from 'node:http';
import { coming, pieces } from '../lib/pieces.js';
import { ip, ready } from '../lib/serve.js';

async function answer(req, res) {
  res.writeHead(200, { 'content-type': 'text/plain' });
  if (req.url === '/coming') for await (const piece of coming()) res.write(piece);
  else for (const piece of pieces()) res.write(piece);
  res.end();
}

const server = createServer((req, res) => void answer(req, res));
server.listen(0, ip, () => ready(server.address().port));
