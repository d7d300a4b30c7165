// Hono as its documentation runs it on Node.
import { serve } from '@hono/node-server';
import { handlerUrl, ip, ready } from '../lib/serve.js';

const { default: app } = await import(handlerUrl.href);

const server = serve({ fetch: app.fetch, hostname: ip, port: 0 }, ({ port }) => ready(port));
server.on('error', (error) => {
  throw error;
});
