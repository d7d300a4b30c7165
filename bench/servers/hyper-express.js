// hyper-express, on the engine that all others here run on: the one it names cannot be had from the registry.
import { createRequire } from 'node:module';
import { loadEngine } from '../lib/engine.js';
import { handlerUrl, ip, ready } from '../lib/serve.js';

const require = createRequire(import.meta.url);
const wanted = require.resolve('uWebSockets.js');
require.cache[wanted] = { id: wanted, filename: wanted, loaded: true, exports: loadEngine().uws };
const { Server } = require('hyper-express');
const { default: handler } = await import(handlerUrl.href);

const app = new Server();
app.any('/*', (request, response) => {
  const { status, headers, body } = handler(request);
  response.status(status);
  for (const [name, value] of Object.entries(headers)) response.header(name, value);
  response.send(body);
});
await app.listen(0, ip);

ready(app.port);
