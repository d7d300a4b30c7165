// Uploads of any size, with their progress: node examples/upload/server.js, then open http://127.0.0.1:8090
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
  streamBody: true,
  maxBody: 900 * 1024 * 1024,
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
