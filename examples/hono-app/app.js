// A Hono app as it would be anywhere else: its default export has a method `fetch`. Each worker has its own.
import { createHash } from 'node:crypto';
import { Hono } from 'hono';
import { streamText } from 'hono/streaming';

const app = new Hono();

app.get('/', (c) => c.html('<a href="/hello/you">hello</a> <a href="/count">count</a>'));

app.get('/hello/:name', (c) => c.json({ hello: c.req.param('name') }));

// curl --data-binary @file http://127.0.0.1:8090/sha256
app.post('/sha256', async (c) => {
  const hash = createHash('sha256');
  for await (const chunk of c.req.raw.body ?? []) hash.update(chunk);
  return c.text(`${hash.digest('hex')}\n`);
});

app.get('/count', (c) =>
  streamText(c, async (out) => {
    for (let i = 1; i <= 5; i++) {
      await out.writeln(String(i));
      await out.sleep(200);
    }
  }),
);

export default app;
