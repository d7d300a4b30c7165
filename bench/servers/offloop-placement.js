// Two mounts of one handler, each of them dispatched or inline.
import { runServer } from '../../dist/index.js';
import { handlerUrl, ip, options, ready } from '../lib/serve.js';

const { handler: _, inline, ...pool } = options;
const server = await runServer(handlerUrl, { ip, port: 0, ...pool, dispatch: !inline.includes('/') });
await server.mount(handlerUrl, { path: '/slow', dispatch: !inline.includes('/slow') });
ready(server.port, () => server.stop({ timeout: 1000 }));
