// What people build by hand today: one `pool.run()` a request, Piscina as it comes, one thread a core.
import { availableParallelism } from 'node:os';
import fastify from 'fastify';
import { Piscina } from 'piscina';
import { handlerUrl, ip, options, ready } from '../lib/serve.js';

const threads = availableParallelism();
const { concurrentTasksPerWorker } = options;
const pool = new Piscina({
  filename: handlerUrl.href,
  minThreads: threads,
  maxThreads: threads,
  ...(concurrentTasksPerWorker && { concurrentTasksPerWorker }),
});

const app = fastify();
if (options.ping) app.get('/ping', (_request, reply) => reply.send('pong'));
app.all('/*', async (request, reply) => {
  const { method, url, headers } = request;
  const answer = await pool.run({ method, url, headers });
  return reply.code(answer.status).headers(answer.headers).send(answer.body);
});
await app.listen({ host: ip, port: 0 });

ready(app.server.address().port);
