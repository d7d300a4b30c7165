// A folder of files as a web site: open http://127.0.0.1:8090 in a browser.
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
