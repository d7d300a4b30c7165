// Hono on worker threads: node examples/hono-app/server.js, then curl http://127.0.0.1:8090/hello/you
import { runServer } from 'offloop';

const server = await runServer(new URL('./app.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
