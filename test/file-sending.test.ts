/** Large files on their way: what happens to them, to their clients and to the server meanwhile. */
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { curl, curlIsHere } from './support/curl.js';
import { noneOpenIn, openIn } from './support/descriptors.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, startServer, type TestServer, until } from './support/server.js';

const MODULE = fixture('http/files-exit.mjs');
const linux = process.platform === 'linux';

const SIZE = 50_000_000;
/** Bytes of the body after which a client stops reading. The buffers between it and the file hold much less than the rest. */
const PAUSED_AT = 64 * 1024;

/** `size` bytes of which no two stretches are alike. */
function content(size: number, seed = 1): Buffer {
  const all = new Uint32Array(size / 4);
  let x = seed;
  for (let i = 0; i < all.length; i++) {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    all[i] = x;
  }
  return Buffer.from(all.buffer);
}
const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

let folder: string;
let bytes: Buffer;
beforeAll(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'offloop-sending-')));
  bytes = content(SIZE);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string): string => join(folder, name);
/** Fresh for each test, and long since unchanged. */
function write(name: string, what: Uint8Array = bytes): string {
  const target = path(name);
  rmSync(target, { force: true });
  writeFileSync(target, what);
  utimesSync(target, 784_111_777, 784_111_777);
  return target;
}

const script = (name: string, options: object = {}): string =>
  JSON.stringify({ path: name, options: { root: folder, ...options } });

/** A client that has read the head and a little of the body, and reads no more. */
async function begin(test: TestServer, name: string): Promise<RawClient> {
  const client = await RawClient.open(test.port);
  client.send(`GET / HTTP/1.1\r\nHost: h\r\nx-file: ${script(name)}\r\n\r\n`);
  await client.head();
  await until(() => client.received >= PAUSED_AT, 'some of the body is there');
  client.socket.pause();
  return client;
}

/** The body, when as much of it has come as it should have. */
async function bodyOf(client: RawClient): Promise<Buffer> {
  client.socket.resume();
  // Of `received` less than a KB was the head.
  await until(() => client.received >= SIZE, 'nearly all of it is there', 15_000);
  await until(() => client.rest.length >= SIZE, 'all of it is there');
  return Buffer.from(client.rest, 'latin1');
}

describe.runIf(linux).each(WAYS)('a large file from $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(MODULE, { dispatch, ...(dispatch && { nMax: 2 }) });
  });
  afterAll(() => test.stop());
  afterEach(async () => {
    await noneOpenIn(folder);
    await until(() => test.server.stats().open === 0, 'no request is open');
    test.errors.length = 0;
  });

  const ask = async (
    name: string,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; headers: Record<string, unknown>; body: Buffer }> => {
    const response = await request(test.url, { headers: { 'x-file': script(name), ...headers } });
    const body = Buffer.from(await response.body.arrayBuffer());
    return { status: response.statusCode, headers: response.headers, body };
  };

  it.each([131_071, 131_072, 131_073, 196_608, 1_000_000, SIZE])('of %i bytes comes whole', async (size) => {
    write('sized', bytes.subarray(0, size));
    const { status, headers, body } = await ask('sized');
    expect([status, headers['content-length']]).toEqual([200, String(size)]);
    expect(hash(body)).toBe(hash(bytes.subarray(0, size)));
  });

  it('comes in ten parts at the same time, which make the whole', async () => {
    write('large');
    const step = SIZE / 10;
    const parts = await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        ask('large', { range: `bytes=${i * step}-${(i + 1) * step - 1}` }),
      ),
    );
    expect(parts.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 206));
    expect(hash(Buffer.concat(parts.map(({ body }) => body)))).toBe(hash(bytes));
  });

  it('comes in several large parts of one answer', async () => {
    write('large');
    const { status, headers, body } = await ask('large', { range: 'bytes=1000000-3999999, 0-99, -2000000' });
    expect(status).toBe(206);
    expect(headers['content-length']).toBe(String(body.length));
    const boundary = `--${String(headers['content-type']).split('boundary=')[1]}`;
    let rest = body;
    for (const [from, to] of [
      [1_000_000, 4_000_000],
      [0, 100],
      [SIZE - 2_000_000, SIZE],
    ] as const) {
      const head = rest.subarray(0, rest.indexOf('\r\n\r\n') + 4);
      expect(head.toString()).toContain(boundary);
      expect(head.toString()).toContain(`content-range: bytes ${from}-${to - 1}/${SIZE}`);
      expect(rest.subarray(head.length, head.length + to - from).equals(bytes.subarray(from, to))).toBe(true);
      rest = rest.subarray(head.length + to - from);
    }
    expect(rest.toString()).toBe(`\r\n${boundary}--\r\n`);
  });

  it.runIf(curlIsHere)('is resumed by curl where it was cut, and not when it has changed', async () => {
    const name = write('resumed');
    const part = path('part');
    writeFileSync(part, bytes.subarray(0, 20_000_001));
    const headers = { 'x-file': script('resumed') };
    const get = (...args: string[]): Promise<string> =>
      curl('-H', `x-file: ${headers['x-file']}`, '-o', part, ...args, test.url);
    expect(await get('-C', '-')).toBe(`206 ${SIZE - 20_000_001}`);
    expect(hash(readFileSync(part))).toBe(hash(bytes));
    const { etag } = (await request(test.url, { method: 'HEAD', headers })).headers;
    const resume = ['-r', `${SIZE - 10}-`, '-H', `If-Range: ${String(etag)}`];
    expect(await get(...resume)).toBe('206 10');
    utimesSync(name, 784_111_778, 784_111_778);
    expect(await get(...resume)).toBe(`200 ${SIZE}`);
    rmSync(part);
  });

  it('is known to HEAD and to conditions without being read', async () => {
    write('large');
    const client = await RawClient.open(test.port);
    const head = await client.ask('HEAD', '/', `x-file: ${script('large')}`);
    expect([head.status, head.header('content-length')]).toEqual([200, String(SIZE)]);
    const headers = [`x-file: ${script('large')}`];
    expect((await client.ask('GET', '/', ...headers, 'if-none-match: *')).status).toBe(304);
    expect((await client.ask('GET', '/', ...headers, 'if-match: "x"')).status).toBe(412);
    expect((await client.ask('GET', '/', ...headers, `range: bytes=${SIZE}-`)).status).toBe(416);
    await noneOpenIn(folder);
  });

  it('that is replaced meanwhile is sent as it was', async () => {
    const name = write('replaced');
    const client = await begin(test, 'replaced');
    write('replacement', content(SIZE, 2));
    renameSync(path('replacement'), name);
    expect(hash(await bodyOf(client))).toBe(hash(bytes));
    expect(client.ended).toBeUndefined();
    const after = await ask('replaced');
    expect(hash(after.body)).toBe(hash(content(SIZE, 2)));
  });

  it('that grows meanwhile is sent as far as it went', async () => {
    const name = write('growing');
    const client = await begin(test, 'growing');
    appendFileSync(name, 'more');
    expect(hash(await bodyOf(client))).toBe(hash(bytes));
    // Nothing behind it: the next answer begins there.
    client.skip(SIZE);
    expect((await client.ask('HEAD', '/', `x-file: ${script('growing')}`)).status).toBe(200);
  });

  it('that becomes shorter meanwhile ends with the connection, not with something else', async () => {
    const name = write('shrinking');
    const client = await begin(test, 'shrinking');
    truncateSync(name, 30_000_000);
    client.socket.resume();
    await client.closed(15_000);
    expect(client.rest.length).toBeLessThanOrEqual(30_000_000);
    expect(bytes.subarray(0, client.rest.length).equals(Buffer.from(client.rest, 'latin1'))).toBe(true);
    await until(() => test.errors.length > 0, 'it is logged');
    expect(test.errors.map(({ error }) => error)).toMatchObject([{ code: 'OFFLOOP_FILE_CHANGED' }]);
  });

  it.each([
    ['a FIN', (client: RawClient) => client.leave()],
    ['a RST', (client: RawClient) => client.reset()],
  ])('is let go when its clients go with %s', async (_, go) => {
    write('large');
    for (let round = 0; round < 3; round++) {
      const clients = await Promise.all(Array.from({ length: 10 }, () => begin(test, 'large')));
      await until(() => openIn(folder) === 10, 'as many are open as are sent');
      for (const client of clients) go(client);
      await noneOpenIn(folder);
    }
    expect((await ask('large', { range: 'bytes=0-9' })).body.equals(bytes.subarray(0, 10))).toBe(true);
    expect(test.errors).toEqual([]);
  });

  it('is asked for and left at once, again and again, and nothing stays open', async () => {
    write('large');
    for (let i = 0; i < 100; i++) {
      const client = await RawClient.open(test.port);
      client.send(`GET / HTTP/1.1\r\nHost: h\r\nx-file: ${script('large')}\r\n\r\n`);
      if (i % 3 > 0) await client.head();
      if (i % 2 === 0) client.reset();
      else client.leave();
    }
    await noneOpenIn(folder);
    await until(() => test.server.stats().open === 0, 'no request is open');
  });

  it('has its own head for a small part of it, once more and once more', async () => {
    write('large');
    const client = await RawClient.open(test.port);
    for (let i = 0; i < 200; i++) {
      const from = (i * 7919) % (SIZE - 100);
      const response = await client.ask(
        'GET',
        '/',
        `x-file: ${script('large')}`,
        `range: bytes=${from}-${from + 99}`,
      );
      expect(response.status).toBe(206);
      expect(response.body.equals(bytes.subarray(from, from + 100))).toBe(true);
    }
  });
});

describe.runIf(linux)('a file that is being sent', () => {
  afterEach(() => noneOpenIn(folder));

  it('goes with its worker, and its descriptor does too', async () => {
    write('large');
    const test = await serve(MODULE, { nMax: 1 });
    const clients = await Promise.all(Array.from({ length: 5 }, () => begin(test, 'large')));
    await until(() => openIn(folder) === 5, 'as many are open as are sent');
    const exit = await fetch(`${test.url}/exit`);
    expect(exit.status).toBe(500);
    for (const client of clients) {
      client.socket.resume();
      await client.closed(10_000);
      expect(client.rest.length).toBeLessThan(SIZE);
    }
    await noneOpenIn(folder);
  });

  it.each(WAYS)('goes with its server: $way', async ({ dispatch }) => {
    write('large');
    const test = await startServer(MODULE, { dispatch });
    const client = await begin(test, 'large');
    await until(() => openIn(folder) === 1, 'as many are open as are sent');
    await test.stop();
    client.socket.resume();
    await client.closed();
    expect(client.rest.length).toBeLessThan(SIZE);
  });

  it.each(WAYS)('is finished by a server that is asked to stop: $way', async ({ dispatch }) => {
    write('large');
    const test = await startServer(MODULE, { dispatch });
    const client = await begin(test, 'large');
    const stopped = test.server.stop({ timeout: 15_000 });
    expect(hash(await bodyOf(client))).toBe(hash(bytes));
    expect(await stopped).toBe(true);
    expect(statSync(path('large')).size).toBe(SIZE);
  });
});
