// Work that would block an event loop. Here it keeps as many cores busy as there are workers, at most `queueSize`
// requests wait for one, and who comes after that is told at once to come back later.
import { availableParallelism } from 'node:os';
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
  nMin: availableParallelism(),
  queueSize: 100,
});
console.log(`listening on ${server.url}/?password=secret`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
