import fastify from 'fastify';
import { ip, ready } from '../lib/serve.js';
import { bodyOf } from '../lib/sizes.js';

const app = fastify({ bodyLimit: 8 * 2 ** 20 });
app.addContentTypeParser('text/plain', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
app.get('/', (request, reply) => {
  reply.type('text/plain').send(bodyOf(Number(request.url.split('?')[1])));
});
app.post('/', (request, reply) => {
  reply.type('text/plain').send(String(request.body.length));
});
await app.listen({ host: ip, port: 0 });

ready(app.server.address().port);
