import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { curlIsHere } from './support/curl.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, type TestServer, until } from './support/server.js';

const run = promisify(execFile);
const MODULE = fixture('http/request.mjs');
const MB = 1024 * 1024;

describe.each(WAYS)('a request body for $way', ({ dispatch }) => {
  const start = (maxBody: number): Promise<TestServer> =>
    serve(MODULE, { dispatch, maxBody, ...(dispatch ? { nMax: 1 } : {}) });
  const quiet = (test: TestServer): Promise<void> =>
    until(() => test.server.stats().open === 0, 'no request is open');
  const chunked = (body: string): string => `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;

  it('may have exactly maxBody bytes, and is 413 with one more', async () => {
    const test = await start(1000);
    for (const [size, status] of [
      [999, 200],
      [1000, 200],
      [1001, 413],
    ] as const) {
      const body = 'x'.repeat(size);
      const plain = await RawClient.open(test.port);
      plain.send(`POST /text HTTP/1.1\r\nHost: h\r\nContent-Length: ${size}\r\n\r\n${body}`);
      expect((await plain.response()).status).toBe(status);
      const inChunks = await RawClient.open(test.port);
      inChunks.send(`POST /text HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n${chunked(body)}`);
      expect((await inChunks.response()).status).toBe(status);
    }
    await quiet(test);
  });

  it('that is declared too large is 413 before any of it was sent; the connection is closed and the handler not called', async () => {
    const test = await start(1000);
    const client = await RawClient.open(test.port);
    client.send('POST /text HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n');
    const response = await client.response();
    expect(response.status).toBe(413);
    expect(response.body.toString().trim()).toBe('request body 1001; max request body 1000');
    expect(response.header('connection')?.toLowerCase()).toBe('close');
    expect(response.header('content-type')).toBe('text/plain; charset=utf-8');
    expect(response.all('date')).toHaveLength(1);
    expect(response.all('server')).toEqual(['offloop']);
    await client.closed();
    expect(client.rest).toBe('');
    await quiet(test);
    expect(test.server.stats().answers).toEqual({ '413': 1 });
    expect(test.events).toEqual(['httpkit.server.status.413']);
  });

  it('that grows too large in chunks is 413 while it is being sent', async () => {
    const test = await start(1000);
    const client = await RawClient.open(test.port);
    client.send('POST /text HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n');
    for (let i = 0; i < 11; i++) {
      client.send(`64\r\n${'x'.repeat(100)}\r\n`);
      await turn();
    }
    const response = await client.response();
    expect(response.status).toBe(413);
    expect(response.body.toString().trim()).toMatch(/^request body 1[01]\d\d; max request body 1000$/);
    await client.closed();
    await quiet(test);
    expect(test.server.stats().answers).toEqual({ '413': 1 });
    expect(test.events).toEqual(['httpkit.server.status.413']);
  });

  it('that is too large gets its 413 through to a client that goes on sending 50 MB', async () => {
    const test = await start(1000);
    for (const framing of [`Content-Length: ${50 * MB}`, 'Transfer-Encoding: chunked']) {
      const client = await RawClient.open(test.port);
      client.send(`POST /text HTTP/1.1\r\nHost: h\r\n${framing}\r\n\r\n`);
      const piece = Buffer.from(
        framing.startsWith('T') ? `10000\r\n${'x'.repeat(0x10000)}\r\n` : 'x'.repeat(0x10000),
      );
      const sending = (async (): Promise<void> => {
        for (let i = 0; i < 50 * 16 && client.ended === undefined; i++) await client.sent(piece);
      })();
      const response = await client.response();
      expect(response.status).toBe(413);
      await client.closed();
      await sending;
      await quiet(test);
    }
  });

  it('that is too large gets its 413 through to fetch', async () => {
    const test = await start(1000);
    const response = await fetch(`${test.url}/text`, { method: 'POST', body: Buffer.alloc(5 * MB) });
    expect(response.status).toBe(413);
    expect((await response.text()).trim()).toBe(`request body ${5 * MB}; max request body 1000`);
    await quiet(test);
    expect((await fetch(`${test.url}/text`)).status).toBe(200);
  });

  it.skipIf(!curlIsHere)(
    'that is too large gets its 413 through to curl, with Expect and without',
    async () => {
      const test = await start(1000);
      const folder = mkdtempSync(join(tmpdir(), 'offloop-'));
      onTestFinished(() => rmSync(folder, { recursive: true }));
      const path = join(folder, 'large');
      writeFileSync(path, '');
      truncateSync(path, 50 * MB);
      for (const extra of [[], ['-H', 'Expect:'], ['-H', 'Transfer-Encoding: chunked']]) {
        const options = ['-s', '-o', '/dev/null', '-w', '%{http_code}', '--max-time', '10'];
        const { stdout } = await run('curl', [
          ...options,
          ...extra,
          '--data-binary',
          `@${path}`,
          `${test.url}/text`,
        ]);
        expect(stdout).toBe('413');
      }
      await quiet(test);
    },
  );

  it.skipIf(!curlIsHere)('comes from curl byte for byte, with Expect and in chunks', async () => {
    const test = await start(8 * MB);
    const folder = mkdtempSync(join(tmpdir(), 'offloop-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'body');
    writeFileSync(path, 'abc'.repeat(500_000));
    for (const extra of [['-H', 'Expect: 100-continue'], ['-H', 'Transfer-Encoding: chunked'], []]) {
      const { stdout } = await run(
        'curl',
        ['-s', '--max-time', '10', ...extra, '--data-binary', `@${path}`, `${test.url}/bytes`],
        {
          maxBuffer: 10 * MB,
        },
      );
      expect(stdout === 'abc'.repeat(500_000)).toBe(true);
    }
  });

  it('that is too large is 413 to HEAD as well, without a byte behind the head', async () => {
    const test = await start(1000);
    const client = await RawClient.open(test.port);
    client.send('HEAD /text HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n');
    const response = await client.response(true);
    expect(response.status).toBe(413);
    client.send('x'.repeat(1001));
    await client.closed();
    expect(client.rest).toBe('');
    await quiet(test);
  });

  it('is never run as a request when it was refused', async () => {
    const test = await start(1000);
    const client = await RawClient.open(test.port);
    const inner = 'GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n';
    client.send(`POST /text HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n${inner.repeat(10)}`);
    expect((await client.response()).status).toBe(413);
    await client.closed();
    expect(client.rest).toBe('');
    await quiet(test);
    expect(test.server.stats().answers).toEqual({ '413': 1 });
  });

  it('may not exist when maxBody is 0', async () => {
    const test = await start(0);
    expect((await fetch(`${test.url}/text`)).status).toBe(200);
    for (const [framing, body, status] of [
      ['Content-Length: 0', '', 200],
      ['Content-Length: 1', 'x', 413],
      ['Transfer-Encoding: chunked', '0\r\n\r\n', 200],
      ['Transfer-Encoding: chunked', '1\r\nx\r\n0\r\n\r\n', 413],
    ] as const) {
      const client = await RawClient.open(test.port);
      client.send(`POST /text HTTP/1.1\r\nHost: h\r\n${framing}\r\n\r\n${body}`);
      expect((await client.response()).status).toBe(status);
    }
    await quiet(test);
  });

  it('of unbelievable length is refused like any other that is too large', async () => {
    const test = await start(1000);
    for (const length of [
      '2147483648',
      '4294967296',
      '999999999999999',
      '18446744073709551616',
      '9'.repeat(30),
    ]) {
      const client = await RawClient.open(test.port);
      client.send(`POST /text HTTP/1.1\r\nHost: h\r\nContent-Length: ${length}\r\n\r\n`);
      await client.closed();
      expect(client.rest === '' || /^HTTP\/1\.1 4(00|13) /.test(client.rest)).toBe(true);
    }
    expect((await fetch(`${test.url}/text`)).status).toBe(200);
    await quiet(test);
  });

  it('whose client disappears halfway leaves nothing behind, however often', async () => {
    const test = await start(8 * MB);
    const clients = await Promise.all(Array.from({ length: 60 }, () => RawClient.open(test.port)));
    clients.forEach((client, i) => {
      const framing = i % 3 === 0 ? 'Transfer-Encoding: chunked' : 'Content-Length: 2000';
      client.send(`POST /text HTTP/1.1\r\nHost: h\r\n${framing}\r\n\r\n`);
      client.send(i % 3 === 0 ? `7d0\r\n${'x'.repeat(1000)}` : 'x'.repeat(1000));
    });
    await until(() => test.server.stats().open === 60, 'all sixty are being received');
    for (const [i, client] of clients.entries()) i % 2 === 0 ? client.leave() : client.reset();
    await quiet(test);
    expect(test.server.stats().answers).toEqual({});
    expect(test.errors).toEqual([]);
    expect((await fetch(`${test.url}/text`)).status).toBe(200);
  });

  it('whose client disappears behind a 413 leaves nothing behind either', async () => {
    const test = await start(1000);
    const clients = await Promise.all(Array.from({ length: 20 }, () => RawClient.open(test.port)));
    for (const client of clients)
      client.send('POST /text HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\nxxx');
    await Promise.all(clients.map((client) => client.response()));
    for (const [i, client] of clients.entries()) i % 2 === 0 ? client.leave() : client.reset();
    await quiet(test);
    expect(test.server.stats().answers).toEqual({ '413': 20 });
  });
});

describe.each(WAYS)('a request head for $way', ({ dispatch }) => {
  const start = (maxLine?: number): Promise<TestServer> =>
    serve(MODULE, {
      dispatch,
      ...(maxLine === undefined ? {} : { maxLine }),
      ...(dispatch ? { nMax: 1 } : {}),
    });

  /** A target with which the request line has `size` bytes. */
  const target = (size: number): string => `/${'x'.repeat(size - 'GET / HTTP/1.1'.length)}`;
  /** A header line of `size` bytes. */
  const line = (size: number, name = 'X-Long'): string => `${name}: ${'v'.repeat(size - name.length - 2)}`;

  it.each([
    [8190, 200],
    [8191, 414],
    [8192, 414],
    [20_000, 414],
  ])('with a request line of %i bytes is answered %i', async (size, status) => {
    const test = await start();
    for (const path of [target(size), target(size).replace('/xxx', '/x?x')]) {
      const client = await RawClient.open(test.port);
      const response = await client.ask('GET', path);
      expect(response.status).toBe(status);
      if (status === 200) continue;
      expect(response.body.toString()).toBe('exceed max line 8192');
      expect(response.header('connection')?.toLowerCase()).toBe('close');
      await client.closed();
    }
    expect(test.events.filter((name) => name.endsWith('414'))).toEqual(
      status === 414 ? ['httpkit.server.status.414', 'httpkit.server.status.414'] : [],
    );
  });

  it.each([
    [8190, 200],
    [8191, 431],
    [8192, 431],
    [20_000, 431],
  ])('with a header line of %i bytes is answered %i', async (size, status) => {
    const test = await start();
    for (const name of ['X-Long', 'Cookie']) {
      const client = await RawClient.open(test.port);
      const response = await client.ask('GET', '/', line(size, name));
      expect(response.status).toBe(status);
      if (status === 200) continue;
      expect(response.body.toString()).toBe('exceed max line 8192');
      expect(response.header('connection')?.toLowerCase()).toBe('close');
      await client.closed();
    }
    expect(test.events.filter((name) => name.endsWith('431'))).toEqual(
      status === 431 ? Array(2).fill('httpkit.server.status.processed.431') : [],
    );
  });

  it('with long lines is answered when maxLine allows them, and refused by a smaller maxLine', async () => {
    const wide = await start(65_536);
    expect((await (await RawClient.open(wide.port)).ask('GET', target(30_000))).status).toBe(200);
    expect((await (await RawClient.open(wide.port)).ask('GET', '/', line(30_000))).status).toBe(200);
    const narrow = await start(100);
    expect((await (await RawClient.open(narrow.port)).ask('GET', target(98))).status).toBe(200);
    expect((await (await RawClient.open(narrow.port)).ask('GET', target(99))).status).toBe(414);
    expect((await (await RawClient.open(narrow.port)).ask('GET', '/', line(98))).status).toBe(200);
    expect((await (await RawClient.open(narrow.port)).ask('GET', '/', line(99))).status).toBe(431);
  });

  it('of less than 4 KB may come in any number of packets', async () => {
    const test = await start();
    const head = `GET /x HTTP/1.1\r\nHost: h\r\n${[1, 2, 3].map((n) => line(1300, `X-Long-${n}`)).join('\r\n')}\r\n\r\n`;
    const client = await RawClient.open(test.port);
    for (let at = 0; at < head.length; at += 100) {
      await client.sent(Buffer.from(head.slice(at, at + 100)));
      await turn();
    }
    const seen = JSON.parse((await client.response()).body.toString()) as { headers: Record<string, string> };
    expect(Object.keys(seen.headers)).toHaveLength(4);
  });

  // An engine limit: 20.30 puts no more than 4 KB of head together, later ones as much as UWS_HTTP_MAX_HEADERS_SIZE says.
  it('of more than 4 KB that comes in many packets is answered, or its connection closed', async () => {
    const test = await start();
    const head = `GET /x HTTP/1.1\r\nHost: h\r\n${[1, 2, 3, 4].map((n) => line(8000, `X-Long-${n}`)).join('\r\n')}\r\n\r\n`;
    const client = await RawClient.open(test.port);
    for (let at = 0; at < head.length && client.ended === undefined; at += 1000) {
      await client.sent(Buffer.from(head.slice(at, at + 1000)));
      await turn();
    }
    const response = await client.response().catch(() => undefined);
    if (response === undefined) expect(client.rest).toBe('');
    else
      expect(Object.keys((JSON.parse(response.body.toString()) as { headers: object }).headers)).toHaveLength(
        5,
      );
    expect((await fetch(`${test.url}/`)).status).toBe(200);
  });

  it('of more than 64 KiB in all is 431, though each of its lines is short enough', async () => {
    const test = await start();
    const fits = await RawClient.open(test.port);
    expect(
      (await fits.ask('GET', '/', ...[1, 2, 3, 4, 5, 6, 7].map((n) => line(8000, `X-${n}`)))).status,
    ).toBe(200);
    const client = await RawClient.open(test.port);
    const response = await client.ask(
      'GET',
      '/',
      ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => line(8000, `X-${n}`)),
    );
    expect(response.status).toBe(431);
    expect(response.body.toString()).toBe('HTTP headers exceed 65536 bytes');
    await client.closed();
    expect(test.server.stats().open).toBe(0);
  });

  it('that is far too large ends its own connection and no other', async () => {
    const test = await start();
    const client = await RawClient.open(test.port);
    const lines = Array.from({ length: 40 }, (_, n) => line(8000, `X-${n}`)).join('\r\n');
    client.send(`GET / HTTP/1.1\r\nHost: h\r\n${lines}\r\n\r\n`);
    await client.closed();
    expect(client.rest === '' || client.rest.startsWith('HTTP/1.1 4')).toBe(true);
    expect((await fetch(`${test.url}/`)).status).toBe(200);
    expect(test.server.stats().answers['200']).toBe(1);
    expect(test.server.stats().open).toBe(0);
  });

  // The engine's own limit: 50 fields with the request line in 20.30, 100 in later ones.
  it.each([40, 47, 60, 120])(
    'with %i header fields is seen whole by its handler or not at all',
    async (count) => {
      const test = await start();
      const fields = Array.from({ length: count - 1 }, (_, n) => `X-${n}: ${n}`);
      const client = await RawClient.open(test.port);
      client.send(`GET / HTTP/1.1\r\nHost: h\r\n${fields.join('\r\n')}\r\n\r\n`);
      if (count < 48) {
        const seen = JSON.parse((await client.response()).body.toString()) as {
          headers: Record<string, string>;
        };
        expect(Object.keys(seen.headers)).toHaveLength(count);
        return;
      }
      // The engine answers 431, or nothing and leaves the connection to its idle timeout.
      expect((await fetch(`${test.url}/`)).status).toBe(200);
      const served = test.server.stats().answers['200'] as number;
      if (served === 2) {
        const seen = JSON.parse((await client.response()).body.toString()) as {
          headers: Record<string, string>;
        };
        expect(Object.keys(seen.headers)).toHaveLength(count);
      } else {
        expect(client.rest === '' || client.rest.startsWith('HTTP/1.1 4')).toBe(true);
      }
      expect(test.server.stats().open).toBe(0);
    },
  );
});
