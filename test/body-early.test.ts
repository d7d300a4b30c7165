import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { RawClient, WAYS } from './support/http-raw.js';
import { gate, log, scratch } from './support/pool-client.js';
import { serve, type TestServer, until } from './support/server.js';
import { bodyOf, content, FRAMINGS, type Framing, hashOf, MB, UPLOAD, Upload } from './support/upload.js';

/** The most that 20.30 takes for a length: nine digits. */
const ENDLESS = 999_999_999;

const quiet = (test: TestServer): Promise<void> =>
  until(() => test.server.stats().open === 0, 'no request is open');

/** The same connection serves another request. */
async function goesOn(client: RawClient): Promise<void> {
  const bytes = content(10);
  const next = await Upload.begin(0, '/bytes', 10, 'length', { client });
  await next.send(bytes);
  expect((await client.response()).body.toString()).toContain(hashOf(bytes));
}

/** Everything that came until the server closed the connection. */
async function toTheEnd(client: RawClient): Promise<string> {
  await client.closed();
  return client.rest;
}

const ANSWERS = [
  ['/none', 401, 'who are you'],
  ['/empty', 204, ''],
  ['/large', 422, 'x'.repeat(300_000)],
  ['/bytes-answer', 418, '\0\x01\r\n\xff'],
] as const;

describe.each(WAYS)('an answer of $way that needs no body', ({ dispatch }) => {
  const start = (options: object = {}): Promise<TestServer> =>
    serve(UPLOAD, { dispatch, streamBody: true, ...(dispatch && { nMax: 1 }), ...options });

  it.each(ANSWERS)('keeps the connection when little is left and comes: %s', async (path, status, body) => {
    const test = await start();
    for (const framing of FRAMINGS) {
      const client = await RawClient.open(test.port);
      for (let i = 0; i < 3; i++) {
        const sending = await Upload.begin(test.port, path, 100_000, framing, { client });
        await sending.sendAll(content(100_000), 30_000);
        sending.end();
        const response = await client.response();
        expect(response.status).toBe(status);
        expect(response.body.toString('latin1') === body).toBe(true);
        expect(response.header('connection')).toBeUndefined();
      }
      await goesOn(client);
    }
    await quiet(test);
    expect(test.errors).toEqual([]);
  });

  it.each(ANSWERS)(
    'closes the connection behind it when what is left does not come: %s',
    async (path, status, body) => {
      const test = await start();
      for (const framing of FRAMINGS) {
        const sending = await Upload.begin(test.port, path, 100_000, framing);
        await sending.send(content(10));
        const raw = await toTheEnd(sending.client);
        expect(raw).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
        expect(raw.toLowerCase()).toContain('connection: close');
        expect(raw.match(/date: /gi)).toHaveLength(1);
        expect(bodyOf(raw) === body).toBe(true);
      }
      await quiet(test);
      expect(test.server.stats().answers).toEqual({ [status]: 2 });
    },
  );

  it.each(ANSWERS)(
    'gets through to a client that goes on sending for ever: %s',
    async (path, status, body) => {
      const test = await start({ maxBody: Number.POSITIVE_INFINITY });
      for (const framing of FRAMINGS) {
        const sending = await Upload.begin(test.port, path, ENDLESS, framing);
        const { client } = sending;
        const all = sending.sendForEver(content(MB));
        await until(
          () => bodyOf(client.rest) === body && client.rest.length > 0,
          'the whole answer is there',
          10_000,
        );
        expect(client.rest).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
        await client.closed();
        await all;
      }
      await quiet(test);
    },
  );

  it('gets through to fetch, whatever the size', async () => {
    const test = await start({ maxBody: 256 * MB });
    for (const size of [1, 1000, 200_000, MB, 20 * MB]) {
      const answer = await fetch(`${test.url}/none`, { method: 'POST', body: Buffer.alloc(size) });
      expect(`${answer.status} ${await answer.text()}`).toBe('401 who are you');
    }
    await quiet(test);
  });

  it('closes the connection of a client that wants it closed, when the body is in', async () => {
    const test = await start();
    const headers = ['Connection: close'];
    const sending = await Upload.begin(test.port, '/none', 1000, 'length', { headers });
    await sending.send(content(1000));
    expect(bodyOf(await toTheEnd(sending.client))).toBe('who are you');
    await quiet(test);
  });

  it('is not waited for by a connection that would otherwise stay open for ever', async () => {
    // What is left of the body comes when the answer has gone out: the engine takes no notice of such a connection.
    const test = await start();
    const sending = await Upload.begin(test.port, '/none', 100, 'length');
    await sending.send(content(50));
    await sending.client.head();
    await sending.send(content(50));
    await sending.client.closed();
    await quiet(test);
  });

  it('may come when some of it has been read, or the rest is not wanted', async () => {
    const test = await start({ maxBody: 64 * MB });
    for (const path of ['/part', '/cancel', '/cancel-unread', '/throws']) {
      for (const framing of FRAMINGS) {
        const status = path === '/throws' ? 500 : 409;
        const client = await RawClient.open(test.port);
        const little = await Upload.begin(test.port, path, 100_000, framing, { client });
        await little.sendAll(content(100_000), 40_000);
        little.end();
        expect((await client.response()).status, path).toBe(status);
        await goesOn(client);

        const much = await Upload.begin(test.port, path, 32 * MB, framing, { client });
        await much.sendAll(content(8 * MB), MB);
        await toTheEnd(client);
        expect(client.rest).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
      }
    }
    await quiet(test);
    expect(test.errors.every(({ error }) => error instanceof RangeError)).toBe(true);
    expect(test.errors).toHaveLength(4);
  });

  it('may take its time behind a body that is not wanted, of which no more is read than is worth while', async () => {
    const test = await start({ maxBody: Number.POSITIVE_INFINITY });
    const free = gate();
    const notes = log();
    const query = `gate=${encodeURIComponent(free.path)}&log=${encodeURIComponent(notes.path)}`;
    const sending = await Upload.begin(test.port, `/cancel?${query}`, ENDLESS, 'length');
    const { client } = sending;
    let sent = 0;
    const all = sending.sendForEver(content(MB), (times) => {
      sent = times;
    });
    await until(() => notes.lines().includes('cancelled'), 'the handler has cancelled');
    let same = 0;
    let before = -1;
    await until(
      () => {
        same = sent === before ? same + 1 : 0;
        before = sent;
        return same > 60;
      },
      'the client is not read from any more',
      15_000,
    );
    expect(client.rest).toBe('');
    free.open();
    await client.closed();
    await all;
    expect(bodyOf(client.rest)).toBe('cancelled');
    await quiet(test);
  });

  it('ends what reads on behind it', async () => {
    const test = await start();
    const notes = log();
    const target = `/behind?log=${encodeURIComponent(notes.path)}`;
    const sending = await Upload.begin(test.port, target, 2000, 'length');
    await sending.send(content(1000));
    await until(() => notes.lines().length === 1, 'the reader is told');
    expect(notes.lines()).toEqual(['AbortError OFFLOOP_ABORTED']);
    await sending.send(content(1000));
    expect((await sending.client.response()).status).toBe(202);
    expect(test.errors).toEqual([]);
    await quiet(test);
  });

  it('goes out before the rest is there when the server is about to stop', async () => {
    const test = await start();
    const free = gate();
    const notes = log();
    const query = `gate=${encodeURIComponent(free.path)}&log=${encodeURIComponent(notes.path)}`;
    const sending = await Upload.begin(test.port, `/cancel?${query}`, 5000, 'length');
    await sending.send(content(10));
    await until(() => notes.lines().includes('cancelled'), 'the handler runs');
    const stopped = test.server.stop({ timeout: 5000 });
    free.open();
    expect(bodyOf(await toTheEnd(sending.client))).toBe('cancelled');
    expect(await stopped).toBe(true);
  });

  it('is a file, whose last byte waits until nothing more of the body comes', async () => {
    const test = await start({ maxBody: Number.POSITIVE_INFINITY });
    const path = join(scratch(), 'file');
    const bytes = content(500_000, 29);
    writeFileSync(path, bytes);
    for (const keeps of [true, false]) {
      const size = 50_000;
      const target = `/file?gate=${encodeURIComponent(path)}`;
      const sending = await Upload.begin(test.port, target, size, keeps ? 'length' : 'chunked');
      const { client } = sending;
      await until(() => client.received > 500_000, 'all but the last byte is there');
      const all = keeps ? sending.send(content(size)) : sending.sendForEver(content(size));
      const response = await client.response();
      expect(response.status).toBe(200);
      expect(response.header('content-length')).toBe('500000');
      expect(response.body.equals(bytes)).toBe(true);
      if (keeps) await goesOn(client);
      else await client.closed();
      await all;
    }
    await quiet(test);
    expect(test.errors).toEqual([]);
  });

  it('is a stream, whose end waits until nothing more of the body comes', async () => {
    const test = await start({ maxBody: Number.POSITIVE_INFINITY });
    const notes = log();
    for (const keeps of [true, false]) {
      const size = 50_000;
      const target = `/talks?log=${encodeURIComponent(notes.path)}`;
      const sending = await Upload.begin(test.port, target, size, keeps ? 'length' : 'chunked');
      const { client } = sending;
      const all = keeps ? sending.send(content(size)) : sending.sendForEver(content(size));
      await until(() => client.rest.endsWith('\r\n0\r\n\r\n'), 'the whole answer is there', 15_000);
      expect(bodyOf(client.rest).length).toBe(64 * 64 * 1024);
      if (keeps) {
        client.skip(client.rest.length);
        await goesOn(client);
      } else {
        await client.closed();
      }
      await all;
    }
    await quiet(test);
  });
});

describe.each(WAYS)('a body larger than maxBody for $way', ({ dispatch }) => {
  const MODES = [true, false];
  const start = (streamBody: boolean, maxBody: number): Promise<TestServer> =>
    serve(UPLOAD, { dispatch, streamBody, maxBody, ...(dispatch && { nMax: 1 }) });
  const text = (max: number): RegExp => new RegExp(`^request body \\d+; max request body ${max}`);

  it('is 413 at once when its length says so', async () => {
    for (const streamBody of MODES) {
      const test = await start(streamBody, 5000);
      for (const path of ['/hash', '/bytes', '/none']) {
        const sending = await Upload.begin(test.port, path, 5001, 'length');
        const raw = await toTheEnd(sending.client);
        expect(raw).toMatch(/^HTTP\/1.1 413 /);
        expect(bodyOf(raw)).toMatch(text(5000));
      }
      expect(test.events).toEqual(Array<string>(3).fill('httpkit.server.status.413'));
      await quiet(test);
    }
  });

  it.each([5000, 3 * MB])(
    'is 413 when it has grown larger than %i bytes, however it is read',
    async (max) => {
      for (const streamBody of MODES) {
        const test = await start(streamBody, max);
        for (const path of ['/hash', '/bytes', '/text', '/json', '/form', '/node', '/request']) {
          const sending = await Upload.begin(test.port, path, 0, 'chunked');
          const { client } = sending;
          const all = sending
            .sendAll(content(max + 1000), 300_000)
            .then(() => sending.sendAll(content(MB), 1000));
          const raw = await toTheEnd(client);
          await all;
          expect(raw, path).toMatch(/^HTTP\/1.1 413 /);
          expect(bodyOf(raw)).toMatch(text(max));
        }
        await quiet(test);
        expect(test.events).toEqual(Array<string>(7).fill('httpkit.server.status.413'));
        expect(test.errors).toEqual([]);
        expect((await fetch(`${test.url}/bytes`, { method: 'POST', body: 'x' })).status).toBe(200);
      }
    },
  );

  it('may have exactly maxBody bytes', async () => {
    for (const streamBody of MODES) {
      for (const size of [5000, 1_500_000]) {
        const test = await start(streamBody, size);
        for (const path of ['/hash', '/bytes']) {
          const client = await RawClient.open(test.port);
          for (const framing of FRAMINGS) {
            const sending = await Upload.begin(test.port, path, size, framing, { client });
            await sending.sendAll(content(size));
            sending.end();
            expect((await client.response()).body.toString()).toContain(hashOf(content(size)));
          }
        }
      }
    }
  });

  it('is an error the handler may catch; its answer goes out and the connection is closed', async () => {
    const test = await start(true, 5000);
    const sending = await Upload.begin(test.port, '/caught', 0, 'chunked');
    await sending.sendAll(content(20_000), 1000);
    const raw = await toTheEnd(sending.client);
    expect(raw).toMatch(/^HTTP\/1.1 200 /);
    expect(raw.toLowerCase()).toContain('connection: close');
    expect(JSON.parse(bodyOf(raw))).toMatchObject({
      name: 'BodyTooLargeError',
      code: 'OFFLOOP_REQUEST_TOO_LARGE',
      status: 413,
      message: expect.stringMatching(text(5000)) as string,
    });
    await quiet(test);
  });

  it('is judged by the maxBody of its mount', async () => {
    const test = await start(false, 5000);
    await test.server.mount(UPLOAD, { path: '/bytes', dispatch, maxBody: 10 });
    await test.server.mount(UPLOAD, { path: '/hash', dispatch, maxBody: Number.POSITIVE_INFINITY });
    await test.server.mount(UPLOAD, { path: '/text', dispatch });
    const status = async (path: string, size: number, framing: Framing): Promise<number> => {
      const sending = await Upload.begin(test.port, path, size, framing);
      const all = sending.sendAll(content(size));
      void all.then(() => sending.end());
      await until(() => sending.client.rest.includes('\r\n\r\n'), `${path} ${size} is answered`);
      return Number(sending.client.rest.split(' ')[1]);
    };
    for (const framing of FRAMINGS) {
      expect(await status('/bytes', 10, framing)).toBe(200);
      expect(await status('/bytes', 11, framing)).toBe(413);
      expect(await status('/text', 5000, framing)).toBe(200);
      expect(await status('/text', 5001, framing)).toBe(413);
      expect(await status('/hash', 12 * MB, framing)).toBe(200);
    }
  });
});
