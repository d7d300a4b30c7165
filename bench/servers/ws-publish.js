// What most people use: the ws package, and a loop over all who have connected.
import { WebSocketServer } from 'ws';
import { ip, ready } from '../lib/serve.js';

const news = Buffer.from('n'.repeat(Number(process.env.BENCH_BYTES)));
const subscribers = new Set();

const server = new WebSocketServer({ host: ip, port: 0, perMessageDeflate: false });
server.on('connection', (ws, req) => {
  if (req.url !== '/trigger') {
    subscribers.add(ws);
    ws.on('close', () => subscribers.delete(ws));
    return;
  }
  ws.on('message', (times) => {
    for (let left = Number(times); left > 0; left--)
      for (const subscriber of subscribers) subscriber.send(news, { binary: false });
  });
});
server.on('listening', () => ready(server.address().port));
