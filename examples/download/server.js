// A download that is made while it is sent: curl 'http://127.0.0.1:8090/?rows=1000000' > table.csv
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}/?rows=1000000`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
