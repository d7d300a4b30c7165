// The engine alone: a WebSocket message is sent back.
import { loadEngine } from '../lib/engine.js';
import { memoryInUse } from '../lib/garbage.js';
import { answerDriver, ip, ready } from '../lib/serve.js';

const { uws } = loadEngine();

uws
  .App()
  .ws('/*', {
    maxPayloadLength: 4 * 1024 * 1024,
    message: (ws, message, isBinary) => {
      ws.send(message, isBinary);
    },
  })
  .any('/*', (res) => {
    res.writeStatus('200 OK').writeHeader('content-type', 'text/plain').end('Hello, World!');
  })
  .listen(ip, 0, (socket) => {
    if (!socket) throw new Error('raw-uws-echo could not listen');
    answerDriver({ memory: () => memoryInUse(0) });
    ready(uws.us_socket_local_port(socket));
  });
