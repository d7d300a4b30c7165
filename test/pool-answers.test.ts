import { describe, expect, it } from 'vitest';
import { textOf } from './fixtures/pool/texts.mjs';
import { RawClient } from './support/http-raw.js';
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

  /** Around all the lengths at which an answer takes another way. */
  const LENGTHS = [0, 1, 300, 511, 512, 513, 4096, 60_000, 130_900, 131_072, 140_000];
  const TEXTS = fixture('pool/texts.mjs');

  it.each([
    ['texts', ''],
    ['bytes', '?bytes'],
  ])('arrives whole when a hundred are asked for at once: %s of all lengths', async (_, query) => {
    const { url } = await serve(TEXTS, { nMin: 1, nMax: 1 });
    const asked = Array.from({ length: 110 }, (_, i) => ({
      id: `${i}`,
      length: LENGTHS[i % LENGTHS.length] as number,
      sign: ['x', 'é', '漢', '😀'][i % 4] as string,
    }));
    const answers = asked.map(async ({ id, length, sign }) => {
      const answer = await fetch(`${url}/${id}/${length}/${encodeURIComponent(sign)}${query}`);
      // Half a character at the end becomes what UTF-8 has for it.
      return (await answer.text()) === Buffer.from(textOf(id, length, sign)).toString();
    });
    expect((await Promise.all(answers)).indexOf(false)).toBe(-1);
  });

  it('arrives whole at a client that does not read until many others have had theirs', async () => {
    const { port, url, server } = await serve(TEXTS, { nMin: 1, nMax: 1 });
    const slow = await RawClient.open(port);
    slow.socket.pause();
    const names = Array.from({ length: 80 }, (_, i) => `slow-${i}`);
    const served = (): number => poolOf(server).workers[0]?.served ?? 0;
    // More than the kernel takes: the server keeps what does not leave.
    for (const [i, name] of names.entries()) {
      slow.send(`GET /${name}/120000/x HTTP/1.1\r\nHost: a\r\n\r\n`);
      await until(() => served() === i + 1, `${name} has been answered`);
    }
    for (let i = 0; i < 40; i++) {
      const text = await (await fetch(`${url}/other-${i}/100000/x`)).text();
      expect(text === textOf(`other-${i}`, 100_000, 'x')).toBe(true);
    }
    slow.socket.resume();
    for (const name of names) {
      const { body } = await slow.response();
      expect({ name, whole: body.toString() === textOf(name, 120_000, 'x') }).toEqual({ name, whole: true });
    }
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
