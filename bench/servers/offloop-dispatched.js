import { runServer } from '../../dist/index.js';
import { answerDriver, handlerFile, handlerUrl, ip, options, ready } from '../lib/serve.js';

// Only what was asked for is passed on: without a word the pool is offloop's default.
const { handler: _, mounts = {}, ping, ...asked } = options;
const server = await runServer(handlerUrl, { ip, port: 0, ...asked });
for (const [path, name] of Object.entries(mounts)) await server.mount(handlerFile(name), { path });
if (ping) await server.mount(() => ({ body: 'pong' }), { path: '/ping', dispatch: false });

answerDriver({ stats: () => server.stats() });
ready(server.port, () => server.stop({ timeout: 1000 }));
