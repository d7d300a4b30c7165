// What servers/fastify-poolifier.js runs in its threads.
import { workerData } from 'node:worker_threads';
import { ThreadWorker } from 'poolifier';

const { default: handler } = await import(new URL(`../handlers/${workerData.handler}.js`, import.meta.url));

export default new ThreadWorker((request) => handler(request));
