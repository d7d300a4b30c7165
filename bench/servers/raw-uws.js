// The ceiling: the engine alone, in the idiom of its README.
import { loadEngine } from '../lib/engine.js';
import { ip, ready } from '../lib/serve.js';

const { uws } = loadEngine();

uws
  .App()
  .any('/*', (res) => {
    res.writeStatus('200 OK').writeHeader('content-type', 'text/plain').end('Hello, World!');
  })
  .listen(ip, 0, (socket) => {
    if (!socket) throw new Error('raw-uws could not listen');
    ready(uws.us_socket_local_port(socket));
  });
