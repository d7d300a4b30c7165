import { runServer } from '../../dist/index.js';
import { handlerUrl, ip, options, ready } from '../lib/serve.js';

// Only what was asked for is passed on: without a word the pool is offloop's default.
const { handler: _, ping, ...pool } = options;
const server = await runServer(handlerUrl, { ip, port: 0, ...pool });
if (ping) await server.mount(() => ({ body: 'pong' }), { path: '/ping', dispatch: false });

ready(server.port, () => server.stop({ timeout: 1000 }));
