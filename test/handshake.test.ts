import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { handshakeProblem } from '../src/handlers/handshake.js';
import type { HttpRequest } from '../src/handlers/types.js';
import { Client, SCRIPT, type Script, Stream, target } from './support/channel-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { log } from './support/pool-client.js';
import { startServer, type TestServer, until } from './support/server.js';

const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
const GOOD = {
  upgrade: 'websocket',
  connection: 'Upgrade',
  'sec-websocket-version': '13',
  'sec-websocket-key': KEY,
};
type Headers = Record<string, string | undefined>;
const statusOf = (changes: Headers, method = 'GET'): number | undefined =>
  handshakeProblem({ method, headers: { ...GOOD, ...changes } } as unknown as HttpRequest)?.status;

describe('a handshake', () => {
  it.each([
    [{}],
    [{ upgrade: 'WebSocket' }],
    [{ upgrade: 'h2c, websocket' }],
    [{ connection: 'keep-alive, Upgrade' }],
    [{ connection: 'UPGRADE' }],
    [{ 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==' }],
    [{ 'sec-websocket-key': '+/+/+/+/+/+/+/+/+/+/+w==' }],
  ])('with %j is good', (changes: Headers) => {
    expect(statusOf(changes)).toBeUndefined();
  });

  it.each([
    [{ upgrade: undefined }, 400],
    [{ upgrade: 'h2c' }, 400],
    [{ upgrade: 'websockets' }, 400],
    [{ connection: undefined }, 400],
    [{ connection: 'close' }, 400],
    [{ 'sec-websocket-version': undefined }, 426],
    [{ 'sec-websocket-version': '8' }, 426],
    [{ 'sec-websocket-version': '13, 8' }, 426],
    [{ 'sec-websocket-key': undefined }, 400],
    [{ 'sec-websocket-key': '' }, 400],
    [{ 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ' }, 400],
    [{ 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZR==' }, 400],
    [{ 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25j' }, 400],
    [{ 'sec-websocket-key': `${KEY}, ${KEY}` }, 400],
    [{ 'sec-websocket-key': ` ${KEY}` }, 400],
  ])('with %j is answered %i', (changes: Headers, status: number) => {
    expect(statusOf(changes)).toBe(status);
  });

  it.each(['POST', 'HEAD', 'PUT', 'OPTIONS'])('by %s is answered 405', (method) => {
    expect(statusOf({}, method)).toBe(405);
  });
});

describe.each(WAYS)('a handshake with $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(SCRIPT, dispatch ? { nMin: 1, nMax: 1 } : { dispatch });
  });
  afterAll(() => test.stop());

  const NAMES: Record<string, string> = {
    upgrade: 'Upgrade',
    connection: 'Connection',
    'sec-websocket-version': 'Sec-WebSocket-Version',
    'sec-websocket-key': 'Sec-WebSocket-Key',
  };
  async function shake(
    changes: Headers,
    script: Script = {},
    method = 'GET',
    more: string[] = [],
  ): Promise<RawClient> {
    const client = await RawClient.open(test.port);
    const lines = Object.entries({ ...GOOD, ...changes } as Headers)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${NAMES[name]}: ${value}`);
    client.send(
      `${[`${method} ${target(script)} HTTP/1.1`, 'Host: h', ...lines, ...more].join('\r\n')}\r\n\r\n`,
    );
    return client;
  }
  async function quiet(errors = 0): Promise<void> {
    await until(() => test.server.stats().channels + test.server.stats().open === 0, 'nothing is open');
    expect(test.errors.splice(0)).toHaveLength(errors);
  }

  it('that is good is accepted with the key the protocol asks for', async () => {
    const client = await shake({});
    const head = await client.head();
    expect(head).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/);
    expect(head).toMatch(/\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=(\r\n|$)/i);
    expect(head).toMatch(/\r\nupgrade: websocket(\r\n|$)/i);
    expect(head).toMatch(/\r\nconnection: upgrade(\r\n|$)/i);
    client.leave();
    await quiet();
  });

  it.each([
    [{ 'sec-websocket-version': '8' }, 426, 'WebSocket version 13 is required'],
    [{ 'sec-websocket-key': 'short' }, 400, 'Bad Sec-WebSocket-Key header'],
    [{ connection: 'keep-alive' }, 400, 'Bad Upgrade or Connection header'],
  ])('with %j is answered %i, and the connection closed', async (changes: Headers, status, reason) => {
    const file = log();
    const client = await shake(changes, {
      log: file.path,
      open: [['log', 'open']],
      receive: [['log', 'message']],
    });
    const response = await client.response();
    expect([response.status, response.body.toString()]).toEqual([status, reason]);
    if (status === 426) {
      expect(response.header('sec-websocket-version')).toBe('13');
      expect(response.header('upgrade')).toBe('websocket');
    }
    await client.closed();
    await until(() => file.lines().length === 2, 'all is told');
    expect(file.lines()).toEqual([`handshake ${reason}`, 'closed server-close 0 ']);
    await quiet();
  });

  it('without a key, or with two, is answered 400', async () => {
    const without = await shake({ 'sec-websocket-key': undefined });
    expect((await without.response()).status).toBe(400);
    const two = await shake({}, {}, 'GET', [`Sec-WebSocket-Key: ${KEY}`]);
    expect((await two.response()).status).toBe(400);
    without.leave();
    await quiet();
  });

  it('by POST is answered 405', async () => {
    const client = await shake({}, {}, 'POST', ['Content-Length: 0']);
    const response = await client.response();
    expect([response.status, response.header('allow')]).toEqual([405, 'GET']);
    client.leave();
    await quiet();
  });

  it('that is bad is answered as onHandshakeError says', async () => {
    const client = await shake(
      { 'sec-websocket-version': '7' },
      { handshake: [['send', { status: 418, headers: { 'x-a': '1' }, body: 'teapot' }]] },
    );
    const response = await client.response();
    expect([response.status, response.header('x-a'), response.body.toString()]).toEqual([418, '1', 'teapot']);
    await client.closed();
    await quiet();
  });

  it('that the handler answers with an ordinary response is refused by that, and the connection closed', async () => {
    const client = await shake({}, { refuse: 401 });
    const response = await client.response();
    expect([response.status, response.header('x-why'), response.body.toString()]).toEqual([
      401,
      'because',
      'no',
    ]);
    expect(response.header('connection')).toBe('close');
    await client.closed();
    await quiet();
  });

  it('may set headers and several cookies on the 101', async () => {
    const client = await Client.open(test.port, {
      options: { headers: { 'x-a': '1', 'set-cookie': ['a=1; Path=/', 'b=2'] } },
    });
    const pairs = client.headers.map((text, i) =>
      i % 2 === 0 ? `${text.toLowerCase()}: ${client.headers[i + 1]}` : '',
    );
    expect(pairs).toEqual(expect.arrayContaining(['x-a: 1', 'set-cookie: a=1; Path=/', 'set-cookie: b=2']));
    expect(await client.ask('hello')).toBe('hello');
    client.ws.close();
    await quiet();
  });

  it('cannot be split by a header: it is a 500, and no channel is opened', async () => {
    await expect(Client.open(test.port, { options: { headers: { 'x-a': 'a\r\nb: c' } } })).rejects.toThrow(
      '500',
    );
    await expect(Client.open(test.port, { options: { highWater: 0 } })).rejects.toThrow('500');
    await expect(Client.open(test.port, { options: { overflow: 'explode' } })).rejects.toThrow('500');
    await quiet(3);
  });

  it('takes the subprotocol of the handler if the client offers it, and none otherwise', async () => {
    const offered = await Client.open(test.port, { options: { protocol: 'b' } }, { protocols: ['a', 'b'] });
    expect(offered.ws.protocol).toBe('b');
    const silent = await shake({}, { options: { protocol: 'c' } }, 'GET', ['Sec-WebSocket-Protocol: a, b']);
    expect((await silent.head()).toLowerCase()).not.toContain('sec-websocket-protocol');
    const none = await Client.open(test.port, { options: { protocol: 'b' } });
    expect(none.ws.protocol).toBe('');
    offered.ws.close();
    none.ws.close();
    silent.leave();
    await quiet();
  });

  it('is not needed for a channel: without it the channel is HTTP', async () => {
    const stream = await Stream.open(test.port, { open: [['send', 'http', false], ['close']] });
    expect(await stream.whole()).toBe('http');
    await quiet();
  });
});
