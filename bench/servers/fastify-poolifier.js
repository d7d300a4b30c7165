// Fastify in front of poolifier, with the settings of its example of an HTTP server on worker threads.
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import fastify from 'fastify';
import { DynamicThreadPool } from 'poolifier';
import { ip, options, ready } from '../lib/serve.js';

const worker = fileURLToPath(new URL('../lib/poolifier-worker.js', import.meta.url));
const pool = new DynamicThreadPool(1, availableParallelism(), worker, {
  enableTasksQueue: true,
  tasksQueueOptions: { concurrency: 8 },
  workerOptions: { workerData: { handler: options.handler } },
});

const app = fastify();
app.all('/*', async (request, reply) => {
  const { method, url, headers } = request;
  const answer = await pool.execute({ method, url, headers });
  return reply.code(answer.status).headers(answer.headers).send(answer.body);
});
await app.listen({ host: ip, port: 0 });

ready(app.server.address().port);
