// The engine alone, with bodies of known sizes.
import { loadEngine } from '../lib/engine.js';
import { ip, ready } from '../lib/serve.js';
import { bodyOf } from '../lib/sizes.js';

const { uws } = loadEngine();

uws
  .App()
  .get('/*', (res, req) => {
    res.writeHeader('content-type', 'text/plain').end(bodyOf(Number(req.getQuery())));
  })
  .post('/*', (res) => {
    const chunks = [];
    res.onAborted(() => {});
    res.onData((chunk, isLast) => {
      // The engine takes its memory back when this returns.
      chunks.push(Buffer.from(chunk.slice(0)));
      if (isLast)
        res.cork(() => {
          res.writeHeader('content-type', 'text/plain').end(String(Buffer.concat(chunks).length));
        });
    });
  })
  .listen(ip, 0, (socket) => {
    if (!socket) throw new Error('raw-uws-sizes could not listen');
    ready(uws.us_socket_local_port(socket));
  });
