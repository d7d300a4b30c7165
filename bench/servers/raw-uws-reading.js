// The engine alone again, but looking at the request as any server must that answers for it: target, query, every field.
import { loadEngine } from '../lib/engine.js';
import { ip, ready } from '../lib/serve.js';

const { uws } = loadEngine();
let seen = 0;

uws
  .App()
  .any('/*', (res, req) => {
    seen += req.getUrl().length + (req.getQuery() ?? '').length;
    req.forEach((name, value) => {
      seen += name.length + value.length;
    });
    res.writeStatus('200 OK').writeHeader('content-type', 'text/plain').end('Hello, World!');
  })
  .listen(ip, 0, (socket) => {
    if (!socket) throw new Error('raw-uws-reading could not listen');
    ready(uws.us_socket_local_port(socket));
  });

process.on('exit', () => {
  if (!Number.isFinite(seen)) throw new Error('nothing was read');
});
