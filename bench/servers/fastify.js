import fastify from 'fastify';
import { handlerUrl, ip, ready } from '../lib/serve.js';

const { default: handler } = await import(handlerUrl.href);

const app = fastify();
app.all('/*', (request, reply) => {
  const answer = handler(request);
  reply.code(answer.status).headers(answer.headers).send(answer.body);
});
await app.listen({ host: ip, port: 0 });

ready(app.server.address().port);
