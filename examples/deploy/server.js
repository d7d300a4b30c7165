// A server behind a proxy, as the configurations beside it expect it. See docs/deployment.md.
import { runServer } from 'offloop';

const {
  HOST = '127.0.0.1',
  PORT = '8090',
  TRUST_PROXY = 'loopback',
  PROXY_PROTOCOL = 'disable',
} = process.env;

const server = await runServer(new URL('./handler.js', import.meta.url), {
  ip: HOST,
  port: Number(PORT),
  trustProxy: TRUST_PROXY !== '' && TRUST_PROXY.split(','),
  proxyProtocol: PROXY_PROTOCOL,
  maxBody: 100 * 1024 * 1024,
  queueTimeout: 5_000,
  handlerTimeout: 30_000,
});

// Inline, so that it answers however busy the workers are: not being able to keep up is no reason to be restarted.
await server.mount(() => ({ body: 'alive\n' }), { path: '/health/live', dispatch: false });
// No new requests for an instance whose workers cannot start, or that is to stop.
let leaving = false;
const ready = () => !leaving && server.stats().pool?.startFailure === null;
await server.mount(() => (ready() ? { body: 'ready\n' } : { status: 503, body: 'not ready\n' }), {
  path: '/health/ready',
  dispatch: false,
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    leaving = true;
    void server.stop({ timeout: 20_000 });
  });
}
