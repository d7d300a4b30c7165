// Server-side rendering on worker threads: node examples/react-ssr/server.js, then open http://127.0.0.1:8090/200
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
  // React is several times as fast then.
  env: { ...process.env, NODE_ENV: 'production' },
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
