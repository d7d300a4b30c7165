// What answers at once runs inline, on the thread that owns the sockets; what takes its time goes to the workers.
// So /health answers while every worker is busy.
import { runServer } from 'offloop';
import { json, text } from 'offloop/handlers';

const home = (req) => (req.path === '/' ? text('/fib/30 is computed, /health is instant\n') : null);

const server = await runServer(home, { port: Number(process.env.PORT ?? 8090), dispatch: false });
await server.mount(new URL('./handler.js', import.meta.url), { path: '/fib' });
await server.mount(() => json({ ok: true, busy: server.stats().pool.busy }), {
  path: '/health',
  dispatch: false,
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
