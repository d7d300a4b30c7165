import { describe, expect, it } from 'vitest';
import { ask, BLOCK, gate, poolOf, program, untilQueued } from './support/pool-client.js';
import { fixture, serve, until } from './support/server.js';

describe('an answer', () => {
  it('is what the handler returned for this client, even when the handler uses the same memory for the next', async () => {
    const { url, server } = await serve(fixture('pool/reuse.mjs'), { nMin: 1, nMax: 1 });
    await server.mount(BLOCK, { path: '/block' });
    const text = async (id: number): Promise<string> => (await fetch(`${url}/?${id}`)).text();
    for (let i = 0; i < 100; i++) await text(i);
    const free = gate();
    const blocker = ask(`${url}/block`, { block: free.path });
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    const ids = Array.from({ length: 20 }, (_, i) => 1000 + i);
    const texts = ids.map(text);
    await untilQueued(server, 20);
    free.open();
    await blocker;
    expect((await Promise.all(texts)).map(Number)).toEqual(ids);
  });

  it('is a 500 and nothing worse when a handler throws the oddest of errors', async () => {
    const { code, out, err } = await program(`
      import { runServer } from 'offloop';
      const quiet = { errorLogger: (message) => console.log(message), ip: '127.0.0.1', port: 0, nMin: 1, nMax: 1 };
      const server = await runServer('./test/fixtures/pool/odd-name.mjs', quiet);
      const get = async (path) => (await fetch(server.url + path, { headers: { connection: 'close' } })).status;
      console.log(await get('/odd'), await get('/'));
      await server.stop();
    `);
    expect({ code, out, err }).toEqual({ code: 0, out: 'GET /odd\n500 200\n', err: '' });
  });
});
