// Makes images smaller, with WebAssembly in the workers. Each takes one core for a few hundred milliseconds; the server answers meanwhile.
import { runServer } from 'offloop';

const MB = 1024 * 1024;

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
  maxBody: 20 * MB,
  queueSize: 50,
  // Nobody waits longer than that for a small picture.
  queueTimeout: 5000,
  handlerTimeout: 10_000,
  // The memory of a WebAssembly module grows to what the largest image needed, and never shrinks.
  recycleAfter: { requests: 1000 },
});
console.log(`listening on ${server.url}/`);
console.log(`curl --data-binary @photo.png '${server.url}/?width=200' -o small.png`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
