import { runServer } from '../../dist/index.js';
import { handlerUrl, ip, ready } from '../lib/serve.js';

const { default: handler } = await import(handlerUrl.href);
const server = await runServer(handler, { ip, port: 0, dispatch: false });

ready(server.port, () => server.stop({ timeout: 1000 }));
