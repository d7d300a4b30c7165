// Express on worker threads: node examples/express-app/server.js, then open http://127.0.0.1:8090
import { runServer } from 'offloop';

const server = await runServer(new URL('./app.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
  env: { ...process.env, NODE_ENV: 'production' },
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
