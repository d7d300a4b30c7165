import express from 'express';
import { handlerUrl, ip, ready } from '../lib/serve.js';

const { default: handler } = await import(handlerUrl.href);

const app = express();
app.use((req, res) => {
  const answer = handler(req);
  res.status(answer.status).set(answer.headers).send(answer.body);
});
const server = app.listen(0, ip, () => ready(server.address().port));
