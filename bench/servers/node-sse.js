// node:http: all who listen, and a loop over them.
import { createServer } from 'node:http';
import { news } from '../lib/news.js';
import { ip, ready } from '../lib/serve.js';

const subscribers = new Set();

const server = createServer((req, res) => {
  if (req.method === 'POST') {
    for (let left = Number(req.url.split('?')[1]); left > 0; left--)
      for (const subscriber of subscribers) subscriber.write(`data: ${news}\n\n`);
    res.end('published');
    return;
  }
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  res.write(':\n\n');
  subscribers.add(res);
  res.on('close', () => subscribers.delete(res));
});
server.listen(0, ip, () => ready(server.address().port));
