// Connect a WebSocket to ws://127.0.0.1:8090, talk, say "crash", and go on talking. Edit handler.js, then kill -HUP this.
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}`);

process.on('SIGHUP', () => server.reload().then(() => console.log('reloaded'), console.error));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
