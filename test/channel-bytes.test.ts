import { describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, until } from './support/server.js';

const REUSE = fixture('channels/reuse.mjs');
const ECHO = fixture('channels/echo.mjs');
const SIZES = [1, 100, 4096, 100_000, 400_000];

/** What came, as runs: '1x100 2x100' are a hundred bytes of 1 and as many of 2. */
function runs(bytes: Uint8Array): string {
  const found: [value: number, times: number][] = [];
  for (const value of bytes) {
    const last = found.at(-1);
    if (last?.[0] === value) last[1]++;
    else found.push([value, 1]);
  }
  return found.map(([value, times]) => `${value}x${times}`).join(' ');
}

describe.each(WAYS)('bytes that $way sends', ({ dispatch }) => {
  it.each(['send', 'buffer', 'publish', 'by-id', 'answer'])(
    'are those at the time of the call: %s',
    async (how) => {
      const { port, errors } = await serve(REUSE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
      for (const size of SIZES) {
        const client = await RawClient.open(port);
        const { body } = await client.ask('GET', `/${how}/${size}`);
        expect(runs(body)).toBe(how === 'answer' ? `1x${size}` : `1x${size} 2x${size}`);
      }
      expect(errors).toEqual([]);
    },
  );

  it.each(['send', 'buffer', 'publish', 'by-id'])(
    'are those at the time of the call, over a WebSocket: %s',
    async (how) => {
      const { port } = await serve(REUSE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
      for (const size of SIZES) {
        const socket = new WebSocket(`ws://127.0.0.1:${port}/${how}/${size}`, { perMessageDeflate: false });
        const messages: string[] = [];
        let closed = false;
        socket.on('message', (data: Buffer) => messages.push(runs(data)));
        socket.on('close', () => {
          closed = true;
        });
        await until(() => closed, 'it is closed');
        expect(messages).toEqual([`1x${size}`, `2x${size}`]);
      }
    },
  );

  it('are those at the time of the call, from server.publish to a client that reads later', async () => {
    const { port, server } = await serve(REUSE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
    const client = await RawClient.open(port);
    client.send('GET /wait/1 HTTP/1.1\r\nHost: a\r\n\r\n');
    await until(() => client.received > 0, 'it is open');
    client.socket.pause();
    const memory = new Uint8Array(1_000_000);
    const times = 12;
    for (let value = 1; value <= times; value++) server.publish('from outside', memory.fill(value));
    memory.fill(99);
    client.socket.resume();
    const last = String.fromCharCode(times).repeat(1000);
    await until(() => client.rest.endsWith(last), 'all of it has come', 15_000);
    expect(client.rest).not.toContain(String.fromCharCode(99).repeat(100));
  });

  it('come back as they were, whatever their sizes, when many come at once', async () => {
    const { port, errors } = await serve(ECHO, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
    // Around where memory is put together with others, in the heap of V8, and handed over.
    const sizes = [0, 1, 64, 65, 4095, 4096, 4097, 8191, 8192, 100_000];
    const sent = Array.from({ length: 200 }, (_, i) =>
      Buffer.alloc(sizes[i % sizes.length] as number, (i % 255) + 1),
    );
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, { perMessageDeflate: false });
    const messages: Buffer[] = [];
    socket.on('message', (data: Buffer) => messages.push(data));
    socket.on('open', () => {
      for (const data of sent) socket.send(data);
    });
    await until(() => messages.length === sent.length, 'all are back');
    expect(messages.filter((data, i) => !data.equals(sent[i] as Buffer))).toEqual([]);
    socket.terminate();
    expect(errors).toEqual([]);
  });
});
