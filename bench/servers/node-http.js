// The floor: the handler on the event loop, as most Node servers run it.
import { createServer } from 'node:http';
import { handlerUrl, ip, options, ready } from '../lib/serve.js';

const { default: handler } = await import(handlerUrl.href);

const server = createServer((req, res) => {
  const answer =
    options.ping && req.url === '/ping' ? { status: 200, headers: {}, body: 'pong' } : handler(req);
  // A Content-Length of our own spares node the chunked encoding, which is slower.
  res.writeHead(answer.status, { ...answer.headers, 'content-length': Buffer.byteLength(answer.body) });
  res.end(answer.body);
});
server.listen(0, ip, () => ready(server.address().port));
