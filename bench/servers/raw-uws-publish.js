// The engine alone: who connects has subscribed, and a message says how often to publish.
import { loadEngine } from '../lib/engine.js';
import { ip, ready } from '../lib/serve.js';

const { uws } = loadEngine();
const news = 'n'.repeat(Number(process.env.BENCH_BYTES));
const app = uws.App();

app
  .ws('/*', {
    upgrade: (res, req, context) => {
      const subscribes = req.getUrl() !== '/trigger';
      res.upgrade(
        { subscribes },
        req.getHeader('sec-websocket-key'),
        req.getHeader('sec-websocket-protocol'),
        req.getHeader('sec-websocket-extensions'),
        context,
      );
    },
    open: (ws) => {
      if (ws.getUserData().subscribes) ws.subscribe('news');
    },
    message: (_ws, message) => {
      for (let left = Number(Buffer.from(message).toString()); left > 0; left--)
        app.publish('news', news, false);
    },
  })
  .listen(ip, 0, (socket) => {
    if (!socket) throw new Error('raw-uws-publish could not listen');
    ready(uws.us_socket_local_port(socket));
  });
