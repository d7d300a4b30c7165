// A long computation that tells how far it is: node examples/progress/server.js, then curl -N http://127.0.0.1:8090/?below=5000000
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}/?below=5000000`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
