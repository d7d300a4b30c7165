import fastify from 'fastify';
import { ip, ready } from '../lib/serve.js';

const app = fastify();
app.post('/', async (request) => request.body);
await app.listen({ host: ip, port: 0 });

ready(app.server.address().port);
