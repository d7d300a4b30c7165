import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createTestServer, type TestServer } from 'offloop/testing';
import { WebSocket } from 'ws';

// A real server, with workers and sockets.
const file = (name: string): string => fileURLToPath(new URL(`../src/${name}`, import.meta.url));
let server: TestServer;
before(async () => {
  server = await createTestServer(file('primes.ts'), { nMin: 2, nMax: 2 });
  await server.server.mount(file('chat.ts'), { path: '/chat' });
});
after(() => server.stop());

test('answers from the workers', async () => {
  const response = await server.fetch('/?below=10');
  assert.deepEqual(await response.json(), { below: 10, primes: 4 });
});

test('passes on what one client says to all', async () => {
  const clients = await Promise.all(
    [1, 2, 3].map(async () => {
      const ws = new WebSocket(`${server.url.replace('http', 'ws')}/chat`);
      await once(ws, 'open');
      return ws;
    }),
  );
  const heard = Promise.all(clients.map(async (ws) => String((await once(ws, 'message'))[0])));
  clients[0]?.send('hello');
  assert.deepEqual(await heard, ['hello', 'hello', 'hello']);
  for (const ws of clients) ws.close();
});
