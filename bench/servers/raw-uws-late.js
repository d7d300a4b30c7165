// The engine alone, looking at the request and answering at the end of the loop's turn: what an answer that does not come in the
// engine's own callback costs at the least. It needs a hook for clients that leave, and a cork to leave in one packet.
import { loadEngine } from '../lib/engine.js';
import { ip, ready } from '../lib/serve.js';

const { uws } = loadEngine();
let waiting = [];

class Request {
  over = false;
  seen = 0;

  constructor(res, req) {
    this.res = res;
    this.seen = req.getUrl().length + (req.getQuery() ?? '').length;
    req.forEach((name, value) => {
      this.seen += name.length + value.length;
    });
    res.onAborted(() => {
      this.over = true;
    });
  }

  answer() {
    if (this.over) return;
    this.res.cork(() => {
      this.res.writeStatus('200 OK').writeHeader('content-type', 'text/plain').end('Hello, World!');
    });
  }
}

function answerAll() {
  const all = waiting;
  waiting = [];
  for (const request of all) request.answer();
}

uws
  .App()
  .any('/*', (res, req) => {
    if (waiting.push(new Request(res, req)) === 1) setImmediate(answerAll);
  })
  .listen(ip, 0, (socket) => {
    if (!socket) throw new Error('raw-uws-late could not listen');
    ready(uws.us_socket_local_port(socket));
  });
