// A chat: node examples/chat/server.js, then open http://127.0.0.1:8090 in two windows.
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
  maxWs: 4096,
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
