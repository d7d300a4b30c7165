import fastifyStatic from '@fastify/static';
import fastify from 'fastify';
import { ip, ready } from '../lib/serve.js';

const app = fastify();
await app.register(fastifyStatic, { root: process.env.BENCH_FOLDER });
await app.listen({ host: ip, port: 0 });

ready(app.server.address().port);
