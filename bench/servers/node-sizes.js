// node:http with bodies of known sizes.
import { createServer } from 'node:http';
import { ip, ready } from '../lib/serve.js';
import { bodyOf } from '../lib/sizes.js';

function send(res, body) {
  res.writeHead(200, { 'content-type': 'text/plain', 'content-length': Buffer.byteLength(body) });
  res.end(body);
}

const server = createServer((req, res) => {
  if (req.method !== 'POST') return send(res, bodyOf(Number(req.url.split('?')[1])));
  const chunks = [];
  req.on('data', (chunk) => chunks.push(chunk));
  req.on('end', () => send(res, String(Buffer.concat(chunks).length)));
});
server.listen(0, ip, () => ready(server.address().port));
