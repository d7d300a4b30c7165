import { once } from 'node:events';
import { appendFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ServerOptions } from 'offloop';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  AT_ONCE,
  askAndStall,
  bodyOf,
  fetchBody,
  hash,
  nothingIsOpen,
  STREAMS,
  standsStill,
  target,
} from './support/body-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { gate, log } from './support/pool-client.js';
import { serve, type TestServer, until } from './support/server.js';

let folder: string;
/** A file of so many bytes, with the bytes that every body has. */
const fileOf = (length: number): string => {
  const path = join(folder, `${length}`);
  writeFileSync(path, bodyOf(length));
  return path;
};
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offloop-streams-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const KINDS = ['generator', 'async-generator', 'web-stream', 'readable', 'iterable', 'array'];
const SOURCES = ['generator', 'async-generator', 'web-stream', 'readable', 'iterable'];

describe.each(WAYS)('the body of $way', ({ dispatch }) => {
  const start = (options: ServerOptions = {}): Promise<TestServer> =>
    serve(STREAMS, { dispatch, ...(dispatch ? { nMax: 1 } : {}), ...options });

  // ---------------------------------------------------------------------------------------------------- what is sent

  it.each(KINDS)('comes byte for byte from a source of kind %s, chunked', async (kind) => {
    const test = await start();
    for (const [bytes, size] of [
      [3_000_000, 10_000],
      [5_000_000, 65_536],
      [5_000_000, 1_000_000],
      [100_000, 7],
      [16_385, 16_385],
    ] as const) {
      const got = await fetchBody(test.url, `/body/${kind}`, { bytes, size });
      expect(got).toMatchObject({ status: 200, length: bytes, whole: true, hash: hash(bodyOf(bytes)) });
      expect(got.headers['transfer-encoding']).toBe('chunked');
      expect(got.headers['content-length']).toBeUndefined();
    }
    await nothingIsOpen(test);
  });

  it.each(KINDS)('is answered as a whole when it is small and there: %s', AT_ONCE, async (kind) => {
    const test = await start();
    for (const bytes of [0, 1, 10_000, 16_384]) {
      const got = await fetchBody(test.url, `/body/${kind}`, { bytes, size: 5000 });
      expect(got).toMatchObject({ status: 200, length: bytes, whole: true, hash: hash(bodyOf(bytes)) });
      expect(got.headers['content-length']).toBe(String(bytes));
      expect(got.headers['transfer-encoding']).toBeUndefined();
    }
    await nothingIsOpen(test);
  });

  it.each(['blob', 'file', 'bytes'])('has its length in the head when that is known: %s', async (kind) => {
    const test = await start();
    for (const bytes of [0, 1, 65_535, 65_536, 65_537, 3_000_001]) {
      const got = await fetchBody(test.url, `/body/${kind}`, { bytes, path: fileOf(bytes) });
      expect(got).toMatchObject({ status: 200, length: bytes, whole: true, hash: hash(bodyOf(bytes)) });
      expect(got.headers['content-length']).toBe(String(bytes));
      expect(got.headers['transfer-encoding']).toBeUndefined();
    }
    await nothingIsOpen(test);
  });

  it.each(SOURCES)('has the length its handler gives, if that is the true one: %s', async (kind) => {
    const test = await start();
    for (const [bytes, size] of [
      [100, 10],
      [3_000_000, 65_536],
      [200_000, 200_000],
      [3_000_000, 100],
    ] as const) {
      const query = { bytes, size, headers: { 'Content-Length': bytes, 'x-other': 'a' } };
      const got = await fetchBody(test.url, `/body/${kind}`, query);
      expect(got).toMatchObject({ status: 200, length: bytes, whole: true, hash: hash(bodyOf(bytes)) });
      expect([got.headers['content-length'], got.headers['x-other']]).toEqual([String(bytes), 'a']);
      expect(got.headers['transfer-encoding']).toBeUndefined();
    }
    await nothingIsOpen(test);
  });

  it('is read from a web Response too', async () => {
    const test = await start();
    for (const kind of ['web-stream', 'blob']) {
      const got = await fetchBody(test.url, `/body/${kind}`, { web: 1, bytes: 3_000_000, status: 203 });
      expect(got).toMatchObject({ status: 203, whole: true, hash: hash(bodyOf(3_000_000)) });
    }
    await nothingIsOpen(test);
  });

  it.each(['generator', 'async-generator'])(
    'is made of the bytes at the time of the yield: %s',
    async (kind) => {
      const test = await start();
      for (const size of [10, 3000, 16_384, 65_536, 300_000]) {
        const bytes = Math.min(size * 50, 3_000_000);
        const got = await fetchBody(test.url, `/body/${kind}`, { bytes, size, reuse: 1 });
        expect([size, got.hash]).toEqual([size, hash(bodyOf(bytes))]);
      }
      await nothingIsOpen(test);
    },
  );

  it('may be one very large chunk', async () => {
    const test = await start();
    const bytes = 20_000_000;
    const got = await fetchBody(test.url, '/body/one-chunk', { bytes });
    expect(got).toMatchObject({ whole: true, length: bytes, hash: hash(bodyOf(bytes)) });
    const text = await fetchBody(test.url, '/body/text-chunk', { bytes });
    const expected = Buffer.from('aé€𝄞'.repeat(bytes / 10));
    expect(text).toMatchObject({ whole: true, length: bytes, hash: hash(expected) });
    await nothingIsOpen(test);
  });

  it('has U+FFFD for half characters, large or small', async () => {
    const test = await start();
    for (const times of [2, 20_000]) {
      const got = await fetchBody(test.url, '/body/half-characters', { bytes: times });
      const expected = Buffer.from('a\ufffd\ufffdb'.repeat(times));
      expect(got).toMatchObject({ whole: true, length: expected.length, hash: hash(expected) });
    }
    await nothingIsOpen(test);
  });

  it.each(SOURCES)('is let go unread when none is sent: %s', async (kind) => {
    const test = await start();
    const file = log();
    const client = await RawClient.open(test.port);
    const query = { bytes: 1_000_000, log: file.path };
    const head = await client.ask('HEAD', target(`/body/${kind}`, query));
    expect([head.status, head.header('content-length')]).toEqual([200, undefined]);
    const sized = await client.ask(
      'HEAD',
      target(`/body/${kind}`, { ...query, headers: { 'content-length': 1_000_000 } }),
    );
    expect([sized.status, sized.header('content-length')]).toEqual([200, '1000000']);
    for (const status of [204, 205, 304]) {
      const response = await client.ask('GET', target(`/body/${kind}`, { ...query, status }));
      expect([response.status, response.body.length]).toEqual([status, 0]);
    }
    expect((await client.ask('GET', target(`/body/${kind}`, { bytes: 1 }))).body.length).toBe(1);
    await nothingIsOpen(test);
    // Of those that can be told: a generator that has not begun has nothing to clean up.
    const closed = kind === 'web-stream' || kind === 'readable' ? 5 : 0;
    await until(() => file.lines().length === closed, 'it is told');
    expect(file.lines().every((line) => line.startsWith('closed'))).toBe(true);
  });

  // --------------------------------------------------------------------------------------------------- the connection

  it('leaves the connection good for more requests', async () => {
    const test = await start();
    const client = await RawClient.open(test.port);
    for (const bytes of [1_000_000, 10, 200_000]) {
      for (const kind of ['generator', 'async-generator', 'file']) {
        const response = await client.ask('GET', target(`/body/${kind}`, { bytes, path: fileOf(bytes) }));
        expect([response.status, hash(response.body)]).toEqual([200, hash(bodyOf(bytes))]);
      }
    }
    expect(client.rest).toBe('');
    await nothingIsOpen(test);
  });

  it('is followed by the answer to a request that was sent while it was under way', async () => {
    const test = await start();
    const free = gate();
    const client = await RawClient.open(test.port);
    const query = { bytes: 60_000, before: 40_000, gate: free.path };
    client.send(`GET ${target('/body/async-generator', query)} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await until(() => client.received > 30_000, 'it is under way');
    client.send('GET /made HTTP/1.1\r\nHost: a\r\n\r\n');
    free.open();
    expect((await client.response()).body.length).toBe(60_000);
    expect((await client.response()).status).toBe(200);
    await nothingIsOpen(test);
  });

  it.each(['file', 'async-generator'])('closes the connection if it has to: %s', async (kind) => {
    const test = await start();
    for (const bytes of [100, 1_000_000]) {
      for (const [header, headers] of [
        ['Connection: close', {}],
        ...(kind === 'file' || bytes < 1000 ? ([['X-A: b', { connection: 'close' }]] as const) : []),
      ] as const) {
        const client = await RawClient.open(test.port);
        const query = { bytes, path: fileOf(bytes), headers };
        const response = await client.ask('GET', target(`/body/${kind}`, query), header);
        expect(hash(response.body)).toBe(hash(bodyOf(bytes)));
        if (header === 'X-A: b') expect(response.header('connection')).toBe('close');
        expect(await client.closed()).toBe('fin');
      }
    }
    await nothingIsOpen(test);
  });

  it('closes the connection behind a file that is read slowly', async () => {
    const test = await start();
    const bytes = 20_000_000;
    const query = { path: fileOf(bytes), headers: { connection: 'close' } };
    const client = await askAndStall(test.port, '/body/file', query);
    await until(() => test.server.stats().answers['200'] === 1, 'it is under way');
    client.socket.resume();
    expect(hash((await client.response(false, 15_000)).body)).toBe(hash(bodyOf(bytes)));
    expect(await client.closed()).toBe('fin');
    await nothingIsOpen(test);
  });

  it('drops Transfer-Encoding, and a Content-Length that is no number', async () => {
    const test = await start();
    const headers = { 'transfer-encoding': 'gzip', 'content-length': 'many' };
    const client = await RawClient.open(test.port);
    const response = await client.ask('GET', target('/body/generator', { bytes: 50_000, headers }));
    expect(response.all('transfer-encoding')).toEqual(['chunked']);
    expect(response.all('content-length')).toEqual([]);
    expect(hash(response.body)).toBe(hash(bodyOf(50_000)));
  });

  // ----------------------------------------------------------------------------------------------------- the window

  it.each(SOURCES)('waits for a client that does not read: %s', async (kind) => {
    const test = await start();
    const file = log();
    const query = { bytes: 100_000_000, size: 50_000, id: kind, log: file.path, signal: 1 };
    const client = await askAndStall(test.port, `/body/${kind}`, query);
    // What the sockets take, which is up to the system, and the window.
    expect(await standsStill(test.url, kind)).toBeLessThan(20_000_000);
    expect(file.lines()).toEqual(['begun']);
    client.reset();
    await nothingIsOpen(test);
    await until(() => file.lines().length === 3, 'its source is told');
    expect(file.lines().filter((line) => line.startsWith('closed'))).toHaveLength(1);
    expect(file.lines()).toContain('signal OFFLOOP_ABORTED');
  });

  it('comes whole to clients that read slowly, many at once', async () => {
    const test = await start();
    const bytes = 6_000_000;
    const slow = async (kind: string): Promise<string> => {
      const query = { bytes, size: 30_000, path: fileOf(bytes) };
      const client = await askAndStall(test.port, `/body/${kind}`, query);
      const { socket } = client;
      socket.on('data', () => {
        socket.pause();
        setTimeout(() => socket.resume(), 2);
      });
      socket.resume();
      return hash((await client.response(false, 18_000)).body);
    };
    const hashes = await Promise.all([...KINDS, 'file', 'blob'].flatMap((kind) => [slow(kind), slow(kind)]));
    expect(new Set(hashes)).toEqual(new Set([hash(bodyOf(bytes))]));
    await nothingIsOpen(test);
  });

  it('is one of a hundred at the same time', async () => {
    const test = await start();
    const bytes = 400_000;
    const got = await Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        fetchBody(test.url, `/body/${SOURCES[i % SOURCES.length]}`, { bytes, size: 1000 + i * 531 }),
      ),
    );
    expect(new Set(got.map(({ hash, whole }) => `${hash} ${whole}`))).toEqual(
      new Set([`${hash(bodyOf(bytes))} true`]),
    );
    await nothingIsOpen(test);
  });

  it.each(['generator', 'async-generator'])(
    'lets other requests through while it is computed: %s',
    async (kind) => {
      const test = await start();
      // A second and a half of work at least, none of which waits for anything.
      const body = fetchBody(test.url, `/body/${kind}`, { bytes: 150_000, size: 100, burn: 1, id: 'busy' });
      const made = async (): Promise<number> =>
        Number(await (await fetch(`${test.url}/made?id=busy`)).text());
      await until(async () => (await made()) > 0, 'it is under way');
      let before = 0;
      for (let i = 0; i < 10; i++) {
        const now = await made();
        expect(now).toBeLessThan(150_000);
        expect(now).toBeGreaterThanOrEqual(before);
        before = now;
      }
      expect((await body).whole).toBe(true);
      await nothingIsOpen(test);
    },
  );

  // -------------------------------------------------------------------------------------------------------- failures

  it.each(SOURCES)(
    'is cut when its source fails in the middle, and its handler is told: %s',
    async (kind) => {
      const test = await start();
      const file = log();
      for (const headers of [{}, { 'content-length': 1_000_000 }]) {
        const query = { bytes: 1_000_000, fail: 500_000, headers, tell: 1, log: file.path };
        const got = await fetchBody(test.url, `/body/${kind}`, query);
        expect([got.status, got.whole]).toEqual([200, false]);
        expect(got.length).toBeLessThanOrEqual(500_000);
      }
      await until(() => test.errors.length === 2, 'it is logged');
      for (const { message, error } of test.errors) {
        expect(message).toBe(`GET /body/${kind}`);
        expect(error).toMatchObject({ name: 'RangeError', message: 'the source is dry' });
        expect((error as Error).stack).toContain('streams.mjs');
      }
      await nothingIsOpen(test, 2);
      const told = (): string[] => file.lines().filter((line) => line.startsWith('told'));
      await until(() => told().length === 2, 'it is told');
      expect(new Set(told())).toEqual(new Set([`told the source is dry /body/${kind} 200`]));
      expect(await fetchBody(test.url, `/body/${kind}`)).toMatchObject({ whole: true });
    },
  );

  it.each(SOURCES)(
    'is a 500 when its source fails at once, and its handler is told: %s',
    AT_ONCE,
    async (kind) => {
      const test = await start();
      const file = log();
      const client = await RawClient.open(test.port);
      for (const fail of [0, 10_000]) {
        const query = { bytes: 1_000_000, size: 1000, fail, tell: 1, status: 203, log: file.path };
        const response = await client.ask('GET', target(`/body/${kind}`, query));
        expect([response.status, response.body.toString()]).toEqual([500, 'Internal Server Error']);
      }
      expect(test.errors.map(({ message }) => message)).toEqual([`GET /body/${kind}`, `GET /body/${kind}`]);
      const told = (): string[] => file.lines().filter((line) => line.startsWith('told'));
      await until(() => told().length === 2, 'both are told');
      expect(told()).toEqual([
        `told the source is dry /body/${kind} 203`,
        `told the source is dry /body/${kind} 203`,
      ]);
      await nothingIsOpen(test, 2);
    },
  );

  it('tells the handler through a web Response as well, and of a file', async () => {
    const test = await start();
    const file = log();
    const query = { fail: 50_000, tell: 1, log: file.path };
    expect(await fetchBody(test.url, '/body/web-stream', { ...query, web: 1 })).toMatchObject({
      whole: false,
    });
    expect(await fetchBody(test.url, '/body/file', { ...query, path: 'nul\0byte' })).toMatchObject({
      status: 500,
    });
    await until(() => test.errors.length === 2, 'both are logged');
    await nothingIsOpen(test, 2);
    const told = (): string[] => file.lines().filter((line) => line.startsWith('told'));
    await until(() => told().length === 2, 'both are told');
    expect(told()).toEqual([
      'told the source is dry /body/web-stream 200',
      expect.stringMatching(/null bytes.* \/body\/file 200$/),
    ]);
  });

  it('survives an onWriteError that fails', async () => {
    const test = await start();
    const query = { fail: 50_000, tell: 'throw' };
    expect(await fetchBody(test.url, '/body/generator', query)).toMatchObject({ whole: false });
    await until(() => test.errors.length === 2, 'both are logged');
    expect(test.errors.map(({ message }) => message)).toEqual(
      expect.arrayContaining([
        'GET /body/generator',
        expect.stringContaining('GET /body/generator: onWriteError failed'),
      ]),
    );
    await nothingIsOpen(test, 2);
  });

  it.each(SOURCES)('is never longer than its Content-Length, and not taken for whole: %s', async (kind) => {
    const test = await start();
    const file = log();
    for (const [bytes, length, size] of [
      [500_000, 400_000, 10_000],
      [500_000, 499_999, 500_000],
      [500_000, 400_000, 200_000],
      [500_000, 490_000, 10_000],
    ] as const) {
      const query = { bytes, size, headers: { 'content-length': length }, log: file.path };
      const client = await RawClient.open(test.port);
      client.send(`GET ${target(`/body/${kind}`, query)} HTTP/1.1\r\nHost: a\r\n\r\n`);
      const head = await client.head();
      // A chunk that is too long from the start is known before anything is sent.
      expect(head.slice(0, 12)).toBe(size === bytes ? 'HTTP/1.1 500' : 'HTTP/1.1 200');
      if (size === bytes) continue;
      await client.closed();
      expect(head).toMatch(new RegExp(`^Content-Length: ${length}$`, 'm'));
      expect(client.received - head.length - 4).toBeLessThan(length);
    }
    await until(() => test.errors.length === 4, 'it is logged');
    for (const { message, error } of test.errors) {
      expect(message).toBe(`GET /body/${kind}`);
      expect(error).toMatchObject({
        code: 'OFFLOOP_BAD_RESPONSE',
        message: expect.stringMatching(/^the body has at least \d+ bytes, and Content-Length is \d+$/),
      });
    }
    await nothingIsOpen(test, 4);
    await until(() => file.lines().filter((line) => line.startsWith('closed')).length === 4, 'they are told');
  });

  it.each(SOURCES)('is cut when it is shorter than its Content-Length: %s', async (kind) => {
    const test = await start();
    const query = { bytes: 400_000, headers: { 'content-length': 400_001 } };
    const got = await fetchBody(test.url, `/body/${kind}`, query);
    expect([got.whole, got.headers['content-length']]).toEqual([false, '400001']);
    await until(() => test.errors.length === 1, 'it is logged');
    expect(test.errors[0]).toMatchObject({
      message: `GET /body/${kind}`,
      error: {
        code: 'OFFLOOP_BAD_RESPONSE',
        message: 'the body has 400000 bytes, and Content-Length is 400001',
      },
    });
    await nothingIsOpen(test, 1);
  });

  it.each([10, 12])(
    'is a 500 when it is small and has not the %i bytes its handler says',
    AT_ONCE,
    async (bytes) => {
      const test = await start();
      for (const kind of SOURCES) {
        const query = { bytes, size: 5, headers: { 'content-length': 11 } };
        expect(await fetchBody(test.url, `/body/${kind}`, query)).toMatchObject({ status: 500, whole: true });
      }
      expect(test.errors).toHaveLength(SOURCES.length);
      await nothingIsOpen(test, SOURCES.length);
    },
  );

  it('is cut when the file it comes from becomes shorter', async () => {
    const test = await start();
    const path = fileOf(50_000_000);
    const client = await askAndStall(test.port, '/body/file', { path });
    await until(() => test.server.stats().answers['200'] === 1, 'it is under way');
    truncateSync(path, 1000);
    client.socket.resume();
    await client.closed();
    expect(client.received).toBeLessThan(50_000_000);
    await until(() => test.errors.length === 1, 'it is logged');
    expect(test.errors[0]?.error).toMatchObject({ code: 'OFFLOOP_FILE_CHANGED' });
    await nothingIsOpen(test, 1);
  });

  it('is as long as the file was when it was opened, if that grows', async () => {
    const test = await start();
    const path = fileOf(10_000_000);
    const client = await askAndStall(test.port, '/body/file', { path });
    await until(() => test.server.stats().answers['200'] === 1, 'it is under way');
    appendFileSync(path, bodyOf(1_000_000));
    client.socket.resume();
    expect(hash((await client.response(false, 15_000)).body)).toBe(hash(bodyOf(10_000_000)));
    await nothingIsOpen(test);
  });

  it.each([...SOURCES, 'file', 'read-stream'])('is let go when its client leaves: %s', async (kind) => {
    const test = await start();
    const file = log();
    const free = gate();
    const bytes = 30_000_000;
    const query = {
      bytes,
      before: 1_000_000,
      gate: free.path,
      log: file.path,
      path: fileOf(bytes),
      signal: 1,
    };
    for (const leave of ['reset', 'leave'] as const) {
      const client = await RawClient.open(test.port);
      client.send(`GET ${target(`/body/${kind}`, query)} HTTP/1.1\r\nHost: a\r\n\r\n`);
      await until(() => client.received > 100_000, 'it is under way');
      client[leave]();
      await until(() => test.server.stats().open === 0, 'the server has noticed', 15_000);
    }
    free.open();
    await nothingIsOpen(test);
    await until(
      () => file.lines().filter((line) => line === 'signal OFFLOOP_ABORTED').length === 2,
      'the signals fire',
    );
    if (SOURCES.includes(kind)) {
      await until(
        () => file.lines().filter((line) => line.startsWith('closed')).length === 2,
        'both are closed',
      );
      expect(file.lines()).not.toContain('ended');
    }
  });

  it.each(SOURCES)(
    'is not asked for when its client has left before the handler is done: %s',
    async (kind) => {
      const test = await start();
      const file = log();
      const free = gate();
      const query = { bytes: 1_000_000, late: 1, gate: free.path, log: file.path };
      const client = await RawClient.open(test.port);
      client.send(`GET ${target(`/body/${kind}`, query)} HTTP/1.1\r\nHost: a\r\n\r\n`);
      await until(() => test.server.stats().open === 1, 'it is asked');
      client.reset();
      await until(() => test.server.stats().open === 0, 'the server has noticed', 15_000);
      free.open();
      await nothingIsOpen(test);
      expect(file.lines()).not.toContain('begun');
    },
  );

  // ----------------------------------------------------------------------------------------------------------- time

  it('may take longer than handlerTimeout, once it is under way', async () => {
    const test = await start({ handlerTimeout: 1000 });
    const free = gate();
    const query = { bytes: 200_000, before: 100_000, gate: free.path };
    const body = fetchBody(test.url, '/body/async-generator', query);
    const before = performance.now();
    await until(() => performance.now() - before > 1500, 'it is late');
    free.open();
    expect(await body).toMatchObject({ status: 200, whole: true });
    await nothingIsOpen(test);
  });

  it.each(['async-generator', 'web-stream', 'readable'])(
    'is a 504 when nothing of it comes in time, and let go: %s',
    async (kind) => {
      const test = await start({ handlerTimeout: 100 });
      const file = log();
      const free = gate();
      const query = { before: 0, gate: free.path, log: file.path, signal: 1 };
      const client = await RawClient.open(test.port);
      const response = await client.ask('GET', target(`/body/${kind}`, query));
      expect([response.status, response.body.toString()]).toEqual([504, 'The request took too long']);
      free.open();
      await nothingIsOpen(test);
      await until(() => file.lines().includes('signal OFFLOOP_HANDLER_TIMEOUT'), 'its signal fires');
      expect(file.lines()).not.toContain('ended');
      // The connection is good for more.
      expect((await client.ask('GET', '/made')).status).toBe(200);
    },
  );

  // ------------------------------------------------------------------------------------------------------- channels

  it.each(KINDS)('may be sent through a channel, as its client reads it: %s', AT_ONCE, async (kind) => {
    const test = await start();
    const file = log();
    const bytes = 8_000_000;
    const slow = await askAndStall(test.port, `/channel/${kind}`, {
      bytes,
      size: 30_000,
      log: file.path,
      id: kind,
    });
    const sized = await fetchBody(test.url, `/channel/${kind}`, {
      bytes,
      headers: { 'content-length': bytes },
    });
    expect(sized).toMatchObject({ whole: true, hash: hash(bodyOf(bytes)) });
    expect(sized.headers['content-length']).toBe(String(bytes));
    slow.socket.resume();
    expect(hash((await slow.response(false, 15_000)).body)).toBe(hash(bodyOf(bytes)));
    const small = await fetchBody(test.url, `/channel/${kind}`, { bytes: 100, size: 30 });
    expect([small.length, small.headers['content-length']]).toEqual([100, '100']);
    await nothingIsOpen(test);
  });

  it.each([...KINDS, 'file', 'blob'])(
    'keeps its place between other things that are sent: %s',
    async (kind) => {
      const test = await start();
      for (const bytes of [100, 1_000_000]) {
        const client = await RawClient.open(test.port);
        const query = { bytes, size: 30_000, path: fileOf(bytes) };
        const { body } = await client.ask('GET', target(`/between/${kind}`, query));
        expect(hash(body)).toBe(
          hash(Buffer.concat([Buffer.from('first '), bodyOf(bytes), Buffer.from(' last')])),
        );
      }
      await nothingIsOpen(test);
    },
  );

  it('is cut when its source fails behind a channel, and let go when its client leaves', async () => {
    const test = await start();
    const file = log();
    for (const kind of SOURCES) {
      const got = await fetchBody(test.url, `/channel/${kind}`, { bytes: 1_000_000, fail: 500_000 });
      expect(got.whole).toBe(false);
    }
    await until(() => test.errors.length === SOURCES.length, 'it is logged');
    const free = gate();
    const query = { bytes: 1_000_000, before: 200_000, gate: free.path, log: file.path };
    for (const kind of ['async-generator', 'web-stream', 'readable']) {
      const client = await RawClient.open(test.port);
      client.send(`GET ${target(`/channel/${kind}`, query)} HTTP/1.1\r\nHost: a\r\n\r\n`);
      await until(() => client.received > 100_000, 'it is under way');
      client.reset();
      await once(client.socket, 'close');
    }
    await until(() => test.server.stats().open === 0, 'the server has noticed', 15_000);
    // A generator can be told only when it comes back from its wait.
    free.open();
    await until(
      () => file.lines().filter((line) => line.startsWith('closed')).length === 3,
      'all are closed',
    );
    expect(file.lines()).not.toContain('ended');
    await nothingIsOpen(test, SOURCES.length);
  });
});
