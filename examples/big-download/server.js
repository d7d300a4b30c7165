// A download that can be resumed: curl -C - -o node.bin http://127.0.0.1:8090, Ctrl+C, and the same again.
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
