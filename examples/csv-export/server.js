// An export of any size: curl 'http://127.0.0.1:8090/?rows=1000000' > orders.csv
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}/?rows=1000000`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
