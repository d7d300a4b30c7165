import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runServer, type ServerOptions } from 'offloop';
import { describe, expect, it, onTestFinished } from 'vitest';
import { readProxyHeader } from '../src/io/proxy-header.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, type TestServer, until, within } from './support/server.js';
import { content, hashOf, MB, UPLOAD, Upload } from './support/upload.js';
import { frame, handshake, OPCODE } from './support/ws-raw.js';

const GET = 'GET / HTTP/1.1\r\nHost: h\r\n\r\n';
const v1 = (client = '192.0.2.7', family = 'TCP4', server = '198.51.100.1'): Buffer =>
  Buffer.from(`PROXY ${family} ${client} ${server} 51000 443\r\n`);

interface V2 {
  command?: number;
  family?: number;
  addresses?: Uint8Array;
  extensions?: Uint8Array;
  /** As it is claimed. */
  size?: number;
}
/** A header of version 2. */
function v2({
  command = 0x21,
  family = 0x11,
  addresses = FOUR,
  extensions = Buffer.alloc(0),
  size,
}: V2 = {}): Buffer {
  const head = Buffer.alloc(16);
  head.write('\r\n\r\n\0\r\nQUIT\n', 'latin1');
  head[12] = command;
  head[13] = family;
  head.writeUInt16BE(size ?? addresses.length + extensions.length, 14);
  return Buffer.concat([head, addresses, extensions]);
}
const FOUR = Buffer.from([192, 0, 2, 8, 198, 51, 100, 1, 0xc7, 0x38, 1, 0xbb]);
const SIX = Buffer.alloc(36);
SIX.write('20010db8000000000000000000000017', 'hex');
const tlv = (type: number, value: Uint8Array): Buffer => {
  const head = Buffer.alloc(3);
  head[0] = type;
  head.writeUInt16BE(value.length, 1);
  return Buffer.concat([head, value]);
};
const NOISE = tlv(0x04, Buffer.alloc(300));
const TLS = tlv(0x20, Buffer.from([1, 0, 0, 0, 0]));

const address: ServerOptions = { proxyProtocol: 'enable' };
const whoAsks = (options: ServerOptions): Promise<TestServer> =>
  serve(
    ({ remoteAddr, scheme, body }) => ({ body: `${scheme} ${remoteAddr}${body === null ? '' : ' body'}` }),
    {
      dispatch: false,
      ...options,
    },
  );

describe('a header of the PROXY protocol', () => {
  it.each([
    ['version 1, IPv4', v1(), 'http 192.0.2.7'],
    ['version 1, IPv6', v1('2001:db8::1', 'TCP6', '::1'), 'http 2001:db8::1'],
    ['version 1, unknown', 'PROXY UNKNOWN\r\n', 'http 127.0.0.1'],
    ['version 1, unknown and more', 'PROXY UNKNOWN ffff:f...f ffff:f...f 65535 65535\r\n', 'http 127.0.0.1'],
    ['version 2, IPv4', v2(), 'http 192.0.2.8'],
    ['version 2, IPv6', v2({ family: 0x21, addresses: SIX }), 'http 2001:db8::17'],
    ['version 2, Unix', v2({ family: 0x31, addresses: Buffer.alloc(216, 'a') }), 'http 127.0.0.1'],
    ['version 2, unspecified', v2({ family: 0, addresses: Buffer.alloc(0) }), 'http 127.0.0.1'],
    ['version 2, local', v2({ command: 0x20 }), 'http 127.0.0.1'],
    ['version 2, with extensions', v2({ extensions: NOISE }), 'http 192.0.2.8'],
    [
      'version 2, of a client that speaks TLS',
      v2({ extensions: Buffer.concat([NOISE, TLS]) }),
      'https 192.0.2.8',
    ],
    [
      'version 2, of a client that does not',
      v2({ extensions: tlv(0x20, Buffer.alloc(5)) }),
      'http 192.0.2.8',
    ],
    ['version 2, with extensions that are cut', v2({ extensions: TLS.subarray(0, 2) }), 'http 192.0.2.8'],
  ])('says who the client is: %s', async (_, header, expected) => {
    const test = await whoAsks(address);
    const client = await RawClient.open(test.port);
    client.send(Buffer.concat([Buffer.from(header), Buffer.from(GET)]));
    expect((await client.response()).body.toString()).toBe(expected);
    // For the whole of the connection.
    for (let i = 0; i < 3; i++) expect((await client.ask('GET', '/')).body.toString()).toBe(expected);
    expect(test.warnings).toEqual([]);
  });

  it('may come byte by byte, and in one packet with a body', async () => {
    const test = await whoAsks(address);
    for (const header of [v1(), v2({ extensions: NOISE })]) {
      const slow = await RawClient.open(test.port);
      for (const byte of Buffer.concat([header, Buffer.from(GET)])) await slow.sent(Buffer.of(byte));
      expect((await slow.response()).status).toBe(200);
      const whole = await RawClient.open(test.port);
      whole.send(
        Buffer.concat([header, Buffer.from('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc')]),
      );
      expect((await whole.response()).body.toString()).toMatch(/body$/);
    }
  });

  it('is not taken again: one that a client sends later ends its connection, unheard', async () => {
    const test = await whoAsks(address);
    const laters = [
      v2(),
      v2({ family: 0x21, addresses: SIX }),
      v2({ command: 0x20, addresses: Buffer.alloc(0) }),
      v1(),
    ];
    const open = (): Promise<RawClient> => RawClient.open(test.port);
    const tries = laters.flatMap((later) =>
      [v1(), v2()].map(async (header) => {
        const client = await open();
        client.send(Buffer.concat([header, Buffer.from(GET)]));
        expect((await client.response()).status).toBe(200);
        client.send(Buffer.concat([later, Buffer.from(GET)]));
        const twice = await open();
        twice.send(Buffer.concat([header, later, Buffer.from(GET)]));
        // What the engine cannot read at all it closes when it is idle.
        await Promise.all([client.closed(20_000), twice.closed(20_000)]);
        expect(client.rest + twice.rest).toBe('');
      }),
    );
    await Promise.all(tries);
  }, 30_000);

  it.each([
    ['a request without one', GET],
    ['TLS', '\x16\x03\x01\x02\x00\x01'],
    ['an unknown family', 'PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n'],
    ['an address that is none', 'PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n'],
    ['an IPv6 address for an IPv4 one', 'PROXY TCP4 ::1 ::1 1 2\r\n'],
    ['a port that is none', 'PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n'],
    ['a port too few', 'PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n'],
    ['a line without end', `PROXY TCP4 ${'1'.repeat(200)}`],
    ['another version', v2({ command: 0x31 })],
    ['another command', v2({ command: 0x22 })],
    ['too few bytes for its addresses', v2({ addresses: FOUR.subarray(0, 8) })],
    ['too many bytes', v2({ size: 60_000 })],
  ])('that is none closes the connection: %s', async (_, bytes) => {
    const test = await whoAsks(address);
    const client = await RawClient.open(test.port);
    client.send(Buffer.from(bytes));
    await client.closed();
    expect(client.received).toBe(0);
    expect(test.warnings).toHaveLength(1);
    expect(test.warnings[0]?.message).toMatch(/refused: 127\.0\.0\.1 sent (no|a broken) PROXY header/);
    expect(test.server.stats().answers).toEqual({});
  });

  it('may be left out when it is optional', async () => {
    const test = await whoAsks({ proxyProtocol: 'optional' });
    const client = await RawClient.open(test.port);
    expect((await client.ask('GET', '/')).body.toString()).toBe('http 127.0.0.1');
    client.send(Buffer.concat([v2(), Buffer.from(GET)]));
    await client.closed();
    const other = await RawClient.open(test.port);
    other.send(Buffer.concat([v1(), Buffer.from(GET)]));
    expect((await other.response()).body.toString()).toBe('http 192.0.2.7');
  });

  it.each(['enable', 'optional'] as const)(
    'of who is not on the list closes the connection: %s',
    async (proxyProtocol) => {
      const test = await whoAsks({ proxyProtocol, proxyProtocolFrom: ['192.0.2.0/24', '2001:db8::/32'] });
      for (const header of [v1(), v2(), v2({ command: 0x20 })]) {
        const client = await RawClient.open(test.port);
        client.send(Buffer.concat([header, Buffer.from(GET)]));
        await client.closed();
        expect(client.received).toBe(0);
      }
      const plain = await RawClient.open(test.port);
      plain.send(GET);
      if (proxyProtocol === 'optional')
        expect((await plain.response()).body.toString()).toBe('http 127.0.0.1');
      else await plain.closed();
      expect(test.warnings.map(({ message }) => message)).toEqual([
        expect.stringContaining('127.0.0.1 is not in proxyProtocolFrom'),
      ]);
    },
  );

  it('is not believed when the protocol is off', async () => {
    const test = await whoAsks({});
    const client = await RawClient.open(test.port);
    client.send(Buffer.concat([v2(), Buffer.from(GET)]));
    expect((await client.response()).body.toString()).toBe('http 127.0.0.1');
  });

  it('names the peer whose X-Forwarded-For may be believed', async () => {
    const test = await whoAsks({ ...address, trustProxy: ['192.0.2.0/24'] });
    for (const [header, expected] of [
      [v1(), '203.0.113.5'],
      [v1('203.0.113.9'), '203.0.113.9'],
    ] as const) {
      const client = await RawClient.open(test.port);
      client.send(header);
      expect((await client.ask('GET', '/', 'X-Forwarded-For: 203.0.113.5')).body.toString()).toBe(
        `http ${expected}`,
      );
    }
  });
});

describe('readProxyHeader', () => {
  it('asks for more as long as what is there may become a header', () => {
    for (const header of [v1(), v2({ extensions: NOISE })]) {
      for (let i = 0; i < header.length; i++)
        expect(readProxyHeader(header.subarray(0, i)).kind).toBe('more');
      expect(readProxyHeader(Buffer.concat([header, Buffer.from(GET)]))).toMatchObject({
        kind: 'header',
        length: header.length,
      });
    }
  });
});

describe.each(WAYS)('behind the PROXY protocol, $way', ({ dispatch }) => {
  const options = { ...address, dispatch, ...(dispatch && { nMax: 1 }) };

  it('gets large uploads whole, and sends what it makes of them', async () => {
    const test = await serve(UPLOAD, { ...options, streamBody: true, maxBody: 64 * MB });
    const client = await RawClient.open(test.port);
    client.send(v2());
    const bytes = content(20 * MB, 3);
    const sending = await Upload.begin(test.port, '/hash', bytes.length, 'length', { client });
    await sending.sendAll(bytes);
    expect(JSON.parse((await client.response()).body.toString())).toMatchObject({ hash: hashOf(bytes) });
    const echo = await Upload.begin(test.port, '/echo', bytes.length, 'chunked', { client });
    const sent = echo.sendAll(bytes).then(() => echo.end());
    expect(hashOf((await client.response(false, 15_000)).body)).toBe(hashOf(bytes));
    await sent;
  });

  it('notices a client that goes away', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'offloop-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const test = await serve(fixture('http/slow.mjs'), options);
    for (const how of ['leave', 'reset'] as const) {
      const file = join(folder, how);
      const client = await RawClient.open(test.port);
      client.send(v2());
      client.send(`GET /hang?${encodeURIComponent(file)} HTTP/1.1\r\nHost: h\r\n\r\n`);
      await until(() => existsSync(file), 'the handler runs');
      client[how]();
      await until(() => readFileSync(file, 'utf8').includes('aborted'), 'its signal aborts', 15_000);
    }
    await until(() => test.server.stats().open === 0, 'nothing is open');
  });

  it('talks over WebSockets', async () => {
    const test = await serve(fixture('channels/script.mjs'), options);
    const client = await RawClient.open(test.port);
    client.send(v2());
    client.send(handshake('/'));
    expect(await client.head()).toMatch(/^HTTP\/1.1 101 /);
    client.send(frame(OPCODE.text, 'echo me'));
    await until(() => client.rest.includes('echo me'), 'the echo');
    await test.server.stop();
    await client.closed();
    expect(client.rest).toContain('Server is shutting down');
  });
});

describe('a server behind the PROXY protocol', () => {
  const rooms = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('offloop-door-'));

  it('stops when its answers are out, and leaves nothing behind', async () => {
    const before = rooms();
    const body = Buffer.alloc(4 * MB, 'x');
    const test = await serve(() => ({ body }), { ...address, dispatch: false });
    expect(rooms().length).toBe(before.length + 1);
    const client = await RawClient.open(test.port);
    const silent = await RawClient.open(test.port);
    client.send(Buffer.concat([v2(), Buffer.from(GET)]));
    const answer = client.response();
    await until(() => test.server.stats().open === 1 || client.received > 0, 'it is being answered');
    await test.server.stop();
    expect((await answer).body.equals(body)).toBe(true);
    await client.closed();
    await silent.closed();
    await expect(RawClient.open(test.port)).rejects.toThrow();
    expect(rooms()).toEqual(before);
  });

  it('listens on a Unix domain socket, with the permissions it is given', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'offloop-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const unix = join(folder, 's');
    const test = await whoAsks({ ...address, unix, unixMode: 0o600 });
    const client = await RawClient.open(unix);
    client.send(Buffer.concat([v2(), Buffer.from(GET)]));
    expect((await client.response()).body.toString()).toBe('http 192.0.2.8');
    await expect(runServer(() => undefined, { ...address, unix, dispatch: false })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
    await test.stop();
    expect(existsSync(unix)).toBe(false);
  });

  it('says why it cannot listen, and leaves nothing behind', async () => {
    const before = rooms();
    const other = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void other.close());
    await within(new Promise((resolve) => other.once('listening', resolve)), 'a listener');
    const { port } = other.address() as { port: number };
    const error: unknown = await runServer(() => undefined, {
      ...address,
      ip: '127.0.0.1',
      port,
      dispatch: false,
    }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'EADDRINUSE' });
    expect(String(error)).toContain(`127.0.0.1 port ${port}`);
    expect(rooms()).toEqual(before);
  });
});
