// Notifications for clients that know nothing but requests and answers:
// curl http://127.0.0.1:8090/ waits until somebody does curl -d 'lunch is ready' http://127.0.0.1:8090/
import { runServer } from 'offloop';

const server = await runServer(new URL('./handler.js', import.meta.url), {
  port: Number(process.env.PORT ?? 8090),
});
console.log(`listening on ${server.url}`);

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());
