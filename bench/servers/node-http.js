// The floor: the handler on the event loop, as most Node servers run it.
import { createServer } from 'node:http';
import { handlerUrl, ip, options, ready } from '../lib/serve.js';

const { default: handler } = await import(handlerUrl.href);

function send(res, { status, headers, body }) {
  // A Content-Length of our own spares node the chunked encoding, which is slower.
  res.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) });
  res.end(body);
}

const server = createServer((req, res) => {
  const answer =
    options.ping && req.url === '/ping' ? { status: 200, headers: {}, body: 'pong' } : handler(req);
  if (answer instanceof Promise) void answer.then((later) => send(res, later));
  else send(res, answer);
});
server.listen(0, ip, () => ready(server.address().port));
