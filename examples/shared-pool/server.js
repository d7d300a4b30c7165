// Two servers, one pool: together they never use more than two threads. A pool made by createWorkerPool outlives the
// servers that use it, so it is closed here, after them.
import { createWorkerPool, runServer } from 'offloop';

const port = Number(process.env.PORT ?? 8090);
const handler = new URL('./handler.js', import.meta.url);

const workerPool = createWorkerPool({ nMin: 1, nMax: 2 });
const servers = await Promise.all([
  runServer(handler, { port, workerPool }),
  runServer(handler, { port: port && port + 1, workerPool }), // port 0 stays 0: any free one
]);
for (const server of servers) console.log(`listening on ${server.url}`);

async function stop() {
  await Promise.all(servers.map((server) => server.stop()));
  await workerPool.close();
}
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
