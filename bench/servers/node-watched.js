// node:http, with its memory told to the driver. Idle connections are not closed meanwhile.
import { createServer } from 'node:http';
import { memoryInUse } from '../lib/garbage.js';
import { answerDriver, handlerUrl, ip, ready } from '../lib/serve.js';

const { default: handler } = await import(handlerUrl.href);

const server = createServer({ keepAliveTimeout: 60_000 }, (req, res) => {
  const answer = handler(req);
  res.writeHead(answer.status, { ...answer.headers, 'content-length': Buffer.byteLength(answer.body) });
  res.end(answer.body);
});
answerDriver({ memory: () => memoryInUse(0) });
server.listen(0, ip, () => ready(server.address().port));
