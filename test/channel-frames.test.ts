import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Client, SCRIPT, target } from './support/channel-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { log } from './support/pool-client.js';
import { startServer, type TestServer, until } from './support/server.js';
import { closing, frame, handshake, OPCODE, RawWebSocket } from './support/ws-raw.js';

const { more, text, binary, close, ping, pong } = OPCODE;
const MAX = 100_000;

describe.each(WAYS)('frames, with $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    const threads = dispatch ? { nMin: 1, nMax: 1 } : { dispatch };
    test = await startServer(SCRIPT, { ...threads, maxWs: MAX, wsCompression: true });
  });
  afterAll(() => test.stop());
  const open = (file?: string): Promise<RawWebSocket> =>
    RawWebSocket.open(test.port, target(file === undefined ? {} : { log: file }));

  it('of every length the protocol encodes differently come back whole', async () => {
    const client = await open();
    for (const length of [0, 1, 125, 126, 127, 65_535, 65_536, MAX]) {
      client.send(frame(binary, Buffer.alloc(length, 5)));
      const { fin, opcode, payload } = await client.next();
      expect([fin, opcode, payload.length, payload.every((byte) => byte === 5)]).toEqual([
        true,
        binary,
        length,
        true,
      ]);
    }
  });

  it('that come byte by byte are put together', async () => {
    const client = await open();
    for (const byte of frame(text, 'slowly ä€😀')) client.send(Buffer.from([byte]));
    expect(await client.text()).toBe('slowly ä€😀');
  });

  it('that are fragments make one message, with control frames answered between them', async () => {
    const client = await open();
    client.send(frame(text, 'one ', { fin: false }), frame(ping, 'between'));
    expect(await client.next()).toMatchObject({ opcode: pong, payload: Buffer.from('between') });
    client.send(
      frame(more, '', { fin: false }),
      frame(more, 'two ', { fin: false }),
      frame(pong, 'x'),
      frame(more, 'three'),
    );
    expect(await client.text()).toBe('one two three');
  });

  it('may cut a character of UTF-8 in its middle', async () => {
    const client = await open();
    const bytes = Buffer.from('ä€😀');
    const parts = [...bytes].map((byte, i) =>
      frame(i === 0 ? text : more, Buffer.from([byte]), { fin: i === bytes.length - 1 }),
    );
    client.send(...parts);
    expect(await client.text()).toBe('ä€😀');
  });

  it('of many messages in one packet are all handled, in order', async () => {
    const client = await open();
    client.send(...Array.from({ length: 300 }, (_, i) => frame(text, String(i))));
    for (let i = 0; i < 300; i++) expect(await client.text()).toBe(String(i));
  });

  const BAD: [string, Buffer[]][] = [
    ['a text that is not UTF-8', [frame(text, Buffer.from([0xc3, 0x28]))]],
    ['an overlong character', [frame(text, Buffer.from([0xc0, 0xaf]))]],
    ['half a surrogate pair', [frame(text, Buffer.from([0xed, 0xa0, 0x80]))]],
    ['a text cut in a character', [frame(text, Buffer.from([0xe2, 0x82]))]],
    ['fragments that are not UTF-8', [frame(text, 'a', { fin: false }), frame(more, Buffer.from([0xff]))]],
    ['RSV2', [frame(text, 'a', { rsv: 2 })]],
    ['RSV3', [frame(text, 'a', { rsv: 1 })]],
    ['an opcode without meaning', [frame(3, 'a')]],
    ['a control opcode without meaning', [frame(11, 'a')]],
    ['a continuation of nothing', [frame(more, 'a')]],
    ['a message within a fragmented one', [frame(text, 'a', { fin: false }), frame(text, 'b')]],
    ['a fragmented ping', [frame(ping, 'a', { fin: false })]],
    ['a ping of 126 bytes', [frame(ping, 'x'.repeat(126))]],
    ['a message that is too long', [frame(binary, Buffer.alloc(20), { claimed: MAX + 1 })]],
    [
      'fragments that are too long together',
      [frame(binary, Buffer.alloc(MAX), { fin: false }), frame(more, Buffer.alloc(1))],
    ],
    ['a length of 2^63', [Buffer.from([0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4])]],
  ];

  it.each(BAD)(
    'with %s end the connection; onReceive hears nothing of it and onClose once',
    async (_, frames) => {
      const file = log();
      const client = await open(file.path);
      client.send(...frames);
      await client.client.closed();
      await until(() => file.lines().length > 0, 'onClose is told');
      expect(file.lines()).toHaveLength(1);
      // The engine says of what is too large why it has cut it; of all else it does not.
      expect(file.lines()[0]).toMatch(
        /^closed (going-away 1006 |message-too-big 1009 Received too big message)/,
      );
      expect(client.frames.filter(({ opcode }) => opcode === text || opcode === binary)).toEqual([]);
      await until(() => test.server.stats().channels === 0, 'nothing is open');
    },
  );

  const CLOSES: [string, Buffer, string][] = [
    ['nothing', Buffer.alloc(0), 'closed no-status-received 1005 '],
    ['1000', closing(1000, 'bye'), 'closed normal 1000 bye'],
    ['1001', closing(1001), 'closed going-away 1001 '],
    ['1011', closing(1011), 'closed internal-server-error 1011 '],
    ['4000', closing(4000, 'x'.repeat(123)), `closed unknown 4000 ${'x'.repeat(123)}`],
    ['4999', closing(4999), 'closed unknown 4999 '],
    ['a reason of several lines', closing(1000, 'one\ntwo\0'), 'closed normal 1000 one'],
  ];
  it.each(CLOSES)('with a Close of %s are answered with a Close', async (_, payload, line) => {
    const file = log();
    const client = await open(file.path);
    client.send(frame(close, payload));
    expect((await client.next()).opcode).toBe(close);
    await client.client.closed();
    await until(() => file.lines().length > 0, 'onClose is told');
    expect(file.lines()[0]).toBe(line);
  });

  it.each([0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 3000, 3999, 5000, 65_535])(
    'with a Close of %i are answered without a code, and look like a broken connection',
    async (code) => {
      const file = log();
      const client = await open(file.path);
      client.send(frame(close, closing(code)));
      const answer = await client.next();
      expect([answer.opcode, answer.payload.length]).toEqual([close, 0]);
      await client.client.closed();
      await until(() => file.lines().length > 0, 'onClose is told');
      expect(file.lines()).toEqual(['closed going-away 1006 ']);
    },
  );

  it('behind a Close are not looked at', async () => {
    const file = log();
    const client = await open(file.path);
    client.send(frame(close, closing(1000)), frame(text, 'too late'), frame(ping));
    await client.client.closed();
    await until(() => file.lines().length > 0, 'onClose is told');
    expect(file.lines()).toEqual(['closed normal 1000 ']);
    expect(client.frames.map(({ opcode }) => opcode)).toEqual([close]);
  });

  it('whose mask bit is missing are taken as if it were there: the engine does not look', async () => {
    const client = await open();
    const unmarked = frame(text, 'well');
    unmarked[1] = (unmarked[1] as number) & 0x7f;
    client.send(unmarked);
    expect(await client.text()).toBe('well');
  });

  it('in the packet of the handshake are lost: a client has to wait for the answer, as they do', async () => {
    const client = await RawClient.open(test.port);
    client.send(Buffer.concat([Buffer.from(handshake(target())), frame(text, 'early')]));
    expect(await client.head()).toContain('101 Switching Protocols');
    client.send(frame(text, 'late'));
    await until(() => client.rest.includes('late'), 'the next one comes back');
    expect(client.rest.includes('early')).toBe(false);
  });

  it('are compressed when client and server want it, both ways', async () => {
    const client = await Client.open(test.port, {}, { perMessageDeflate: true });
    expect(client.ws.extensions).toContain('permessage-deflate');
    for (const sent of ['', 'a', 'x'.repeat(MAX), 'äöü'.repeat(5000), '{"a":1}'.repeat(1000)])
      expect((await client.ask(sent)) === sent).toBe(true);
    const bytes = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256));
    expect(await client.ask(bytes)).toEqual(bytes);
    client.ws.close();
    const plain = await Client.open(test.port);
    expect(plain.ws.extensions).toBe('');
    expect(await plain.ask('x'.repeat(5000))).toBe('x'.repeat(5000));
    plain.ws.close();
  });

  it('that are small and swell to more than is allowed end the connection', async () => {
    const file = log();
    const client = await Client.open(test.port, { log: file.path }, { perMessageDeflate: true });
    client.send('x'.repeat(50 * MAX));
    await client.closed();
    await until(() => file.lines().length > 0, 'onClose is told');
    expect(file.lines()).toEqual([expect.stringMatching(/^closed going-away 1006 .*too big/)]);
    expect(client.messages).toEqual([]);
  });

  it('compressed without having agreed on it end the connection', async () => {
    const client = await open();
    client.send(frame(text, 'a', { rsv: 4 }));
    await client.client.closed();
    await until(() => test.server.stats().channels === 0, 'nothing is open');
    expect(test.errors).toEqual([]);
  });
});
