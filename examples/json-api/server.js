// A small JSON API. It keeps its notes in memory, so it runs on a single worker: { nMax: 1 }.
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
  nMax: 1,
  maxBody: 64 * 1024,
});
console.log(`listening on ${server.url}/notes`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
