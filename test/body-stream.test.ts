import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { RawClient, WAYS } from './support/http-raw.js';
import { gate, log } from './support/pool-client.js';
import { type Program, startProgram } from './support/program.js';
import { fixture, serve, startServer, type TestServer, until } from './support/server.js';
import { bodyOf, content, FRAMINGS, type Framing, hashOf, MB, UPLOAD, Upload } from './support/upload.js';

const run = promisify(execFile);
const curlIsHere = await run('curl', ['--version']).then(
  () => true,
  () => process.env['CI'] !== undefined,
);

interface Digest {
  size: number;
  hash: string;
  before: number | null;
  after: number | null;
  threadId: number;
}

const MODES = WAYS.flatMap((way) => [
  { ...way, when: 'that starts at once', streamBody: true },
  { ...way, when: 'that starts when there is enough of it', streamBody: false },
]);

const quiet = (test: TestServer): Promise<void> =>
  until(() => test.server.stats().open === 0, 'no request is open');

/** Send a body, on a connection that may be used again, and see what the handler made of it. */
async function upload<T>(
  test: TestServer,
  path: string,
  bytes: Uint8Array,
  framing: Framing,
  { client, headers = [] }: { client?: RawClient; headers?: string[] } = {},
): Promise<T> {
  const options = client === undefined ? { headers } : { client, headers };
  const sending = await Upload.begin(test.port, path, bytes.byteLength, framing, options);
  await sending.sendAll(bytes, 100_000);
  sending.end();
  const response = await sending.client.response(false, 15_000);
  expect(response.status, response.body.toString()).toBe(200);
  return JSON.parse(response.body.toString()) as T;
}

describe.each(MODES)('a request body for $way $when', ({ dispatch, streamBody }) => {
  let test: TestServer;
  beforeAll(async () => {
    const pool = dispatch ? { nMin: 2, nMax: 2 } : {};
    test = await startServer(UPLOAD, { dispatch, streamBody, ...pool, maxBody: 64 * MB });
  });
  afterAll(() => test.stop());
  afterEach(() => {
    expect(test.errors.splice(0)).toEqual([]);
  });

  it.each([1, 4095, 4096, 100_000, MB - 1, MB, MB + 1, 3 * MB + 7])(
    'of %i bytes comes through as it was sent, one after the other on one connection',
    async (size) => {
      const bytes = content(size, size);
      const hash = hashOf(bytes);
      const client = await RawClient.open(test.port);
      for (const framing of FRAMINGS) {
        const digest = await upload<Digest>(test, '/hash', bytes, framing, { client });
        expect(digest).toMatchObject({ size, hash, after: size });
        // Of a chunked one nobody knows, unless it is complete.
        expect(framing === 'length' ? [size] : [null, size]).toContain(digest.before);
        const whole = await upload(test, '/bytes', bytes, framing, { client });
        expect(whole).toEqual({ size, hash, same: true, after: size });
      }
    },
  );

  it('that is empty is an empty stream, or none', async () => {
    const client = await RawClient.open(test.port);
    client.send('POST /bytes HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n');
    expect((await client.response()).body.toString()).toContain('"size":0');
    expect(await upload(test, '/bytes', new Uint8Array(0), 'chunked', { client })).toMatchObject({ size: 0 });
  });

  it.each(['/node', '/byob', '/request'])('is read the way of %s', async (path) => {
    for (const framing of FRAMINGS) {
      for (const size of [10, 2_500_000]) {
        const bytes = content(size, 7);
        expect(await upload(test, path, bytes, framing)).toEqual({ hash: hashOf(bytes) });
      }
    }
  });

  it('is text, JSON and a form, however large', async () => {
    const text = 'grüße '.repeat(300_000);
    const told = await upload<{ text: string }>(test, '/text', Buffer.from(text), 'length');
    expect(told.text === text).toBe(true);
    const object = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`key ${i}`, `${i}`]));
    const large = Buffer.from(JSON.stringify(object));
    expect(large.byteLength).toBeGreaterThan(1.5 * MB);
    expect(await upload(test, '/json', large, 'chunked')).toEqual({ keys: 100_000 });

    const form = new FormData();
    const file = content(3 * MB, 3);
    form.set('name', 'Ada');
    form.set('file', new File([file], 'a.bin'));
    const answer = await fetch(`${test.url}/form`, { method: 'POST', body: form });
    expect(await answer.json()).toEqual({ name: 'Ada', size: file.byteLength, hash: hashOf(file) });
  });

  it('that is no JSON is a 400, however large', async () => {
    for (const size of [10, 2 * MB]) {
      const answer = await fetch(`${test.url}/json`, { method: 'POST', body: '{'.padEnd(size, ' ') });
      expect(`${answer.status} ${await answer.text()}`).toBe('400 Bad Request');
    }
  });

  it('is read as a whole again and again, and by whom the request is handed on to', async () => {
    for (const size of [100, 2_500_000]) {
      const bytes = Buffer.from('a'.repeat(size));
      expect(await upload(test, '/twice', bytes, 'chunked')).toEqual({
        size,
        same: true,
        streams: [true, true],
      });
      const derived = await upload<{ path: string; text: string; again: string }>(
        test,
        '/derived',
        bytes,
        'length',
      );
      expect(derived.path).toBe('/other');
      expect(derived.text === derived.again && derived.text === bytes.toString()).toBe(true);
    }
  });

  it('that is large and has been read as a stream cannot be read as a whole: the error says so', async () => {
    const used = 'TypeError OFFLOOP_BODY_USED';
    const { problems } = await upload<{ problems: string[] }>(test, '/used', content(2_500_000), 'length');
    expect(problems).toEqual([used, used, used]);
  });

  it('comes in HTTP chunks of any size', async () => {
    const bytes = content(200_000, 11);
    for (const piece of [1, 3, 1000, 20_000]) {
      const part = bytes.subarray(0, piece * 5000);
      const sending = await Upload.begin(test.port, '/hash', 0, 'chunked');
      const frames: Buffer[] = [];
      for (let at = 0; at < part.byteLength; at += piece) {
        const chunk = part.subarray(at, at + piece);
        frames.push(Buffer.from(`${chunk.byteLength.toString(16)}\r\n`), chunk, Buffer.from('\r\n'));
      }
      await sending.client.sent(Buffer.concat(frames));
      sending.end();
      const digest = JSON.parse((await sending.client.response()).body.toString()) as Digest;
      expect(digest).toMatchObject({ size: part.byteLength, hash: hashOf(part) });
    }
  });

  it('is one of fifty at the same time, and none gets what is of another', { timeout: 60_000 }, async () => {
    const uploads = Array.from({ length: 50 }, async (_, i) => {
      const bytes = content(1_300_000 + i * 1000, i + 1);
      const path = i % 3 === 0 ? '/bytes' : i % 3 === 1 ? '/hash' : '/node';
      const seen = await upload<{ hash: string }>(test, path, bytes, i % 2 === 0 ? 'length' : 'chunked');
      return seen.hash === hashOf(bytes);
    });
    expect(await Promise.all(uploads)).toEqual(Array<boolean>(50).fill(true));
    await quiet(test);
  });

  it('whose handler does not read makes the client wait, and goes on when it reads', async () => {
    const bytes = content(48 * MB, 5);
    for (const framing of FRAMINGS) {
      const free = gate();
      const notes = log();
      const sending = await Upload.begin(
        test.port,
        `/gated?gate=${encodeURIComponent(free.path)}&log=${encodeURIComponent(notes.path)}`,
        bytes.byteLength,
        framing,
      );
      const { socket } = sending.client;
      let sent = false;
      const all = sending.sendAll(bytes, MB).then(() => {
        sent = true;
        sending.end();
      });
      await until(() => notes.lines().includes('begins'), 'the handler has begun');
      // The kernel takes as much as it has room for, on both sides; then nothing moves.
      let same = 0;
      let before = -1;
      await until(
        () => {
          const gone = socket.bytesWritten - socket.writableLength;
          same = gone === before ? same + 1 : 0;
          before = gone;
          return same > 60;
        },
        'nothing moves any more',
        15_000,
      );
      expect(sent).toBe(false);
      free.open();
      await all;
      const digest = JSON.parse((await sending.client.response(false, 15_000)).body.toString()) as Digest;
      expect(digest).toMatchObject({ size: bytes.byteLength, hash: hashOf(bytes) });
      // The connection is as good as ever.
      expect(await upload(test, '/bytes', content(10), 'length', { client: sending.client })).toMatchObject({
        size: 10,
      });
    }
  });

  it('is read behind a channel, and what it answers goes out while it comes', async () => {
    const bytes = content(3 * MB, 9);
    const answer = await fetch(`${test.url}/echo`, { method: 'POST', body: bytes });
    const back = Buffer.from(await answer.arrayBuffer());
    expect(back.byteLength).toBe(bytes.byteLength);
    expect(hashOf(back)).toBe(hashOf(bytes));
    const late = await fetch(`${test.url}/reads-late`, { method: 'POST', body: bytes });
    expect(await late.text()).toBe(String(bytes.byteLength));
    await quiet(test);
  });

  it('is what the answer is made of, while it comes', async () => {
    for (const size of [10, 100_000, 6 * MB]) {
      const bytes = content(size, 23);
      for (const path of ['/back', '/inverted']) {
        const answer = await fetch(test.url + path, { method: 'POST', body: bytes });
        const back = Buffer.from(await answer.arrayBuffer());
        if (path === '/inverted') for (let i = 0; i < back.length; i++) back[i] = ~(back[i] as number);
        expect(back.equals(bytes), `${path} ${size}`).toBe(true);
      }
    }
    await quiet(test);
  });

  it.each(['/echo', '/back'])(
    'is echoed to a client that does not read before the server can take no more: %s',
    async (path) => {
      const bytes = content(40 * MB, 21);
      const sending = await Upload.begin(test.port, path, bytes.byteLength, 'length');
      const { socket } = sending.client;
      socket.pause();
      const all = sending.sendAll(bytes, MB);
      let same = 0;
      let before = -1;
      await until(
        () => {
          const gone = socket.bytesWritten - socket.writableLength;
          same = gone === before ? same + 1 : 0;
          before = gone;
          return same > 60;
        },
        'nothing moves any more',
        15_000,
      );
      socket.resume();
      await all;
      const { client } = sending;
      await until(() => client.received > bytes.byteLength, 'all of it has come back', 15_000);
      await until(() => client.rest.endsWith('\r\n0\r\n\r\n'), 'the echo has ended');
      expect(hashOf(Buffer.from(bodyOf(client.rest), 'latin1'))).toBe(hashOf(bytes));
      client.skip(client.rest.length);
      expect(await upload(test, '/bytes', content(10), 'length', { client })).toMatchObject({ size: 10 });
    },
  );

  it.skipIf(!curlIsHere)('comes from curl, with Expect and without', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'offloop-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'body');
    const bytes = content(5 * MB, 13);
    writeFileSync(path, bytes);
    for (const extra of [
      ['-H', 'Expect: 100-continue'],
      ['-H', 'Transfer-Encoding: chunked'],
      ['-H', 'Expect:'],
    ]) {
      const options = ['-s', '--max-time', '15', ...extra, '--data-binary', `@${path}`];
      const { stdout } = await run('curl', [...options, `${test.url}/hash`]);
      expect(JSON.parse(stdout)).toMatchObject({ size: bytes.byteLength, hash: hashOf(bytes) });
    }
  });

  it('is asked for with 100 Continue before the handler says anything', async () => {
    const notes = log();
    const client = await RawClient.open(test.port);
    client.send(
      `POST /told?log=${encodeURIComponent(notes.path)} HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n`,
    );
    expect(await client.head()).toBe('HTTP/1.1 100 Continue');
    expect(notes.lines()).toEqual([]);
    client.send('x'.repeat(2000));
    expect((await client.response()).status).toBe(200);
  });
});

describe.each(WAYS)('a body that is streamed to $way', ({ dispatch }) => {
  const start = (options: object = {}): Promise<TestServer> =>
    serve(UPLOAD, { dispatch, streamBody: true, ...(dispatch && { nMax: 1 }), ...options });

  it('is there piece by piece, as it is sent', async () => {
    const test = await start();
    for (const framing of FRAMINGS) {
      const notes = log();
      const target = `/told?log=${encodeURIComponent(notes.path)}`;
      const sending = await Upload.begin(test.port, target, 5000, framing);
      for (let i = 1; i <= 5; i++) {
        await sending.send(content(1000, i));
        await until(() => notes.lines().length === i, `piece ${i} is there`);
      }
      sending.end();
      expect((await sending.client.response()).status).toBe(200);
    }
  });

  it('is one of a mount, while those of others are complete when their handlers start', async () => {
    const test = await serve(UPLOAD, { dispatch, ...(dispatch && { nMax: 1 }) });
    await test.server.mount(UPLOAD, { path: '/none', dispatch, streamBody: true });
    const started = await Upload.begin(test.port, '/none', 1000, 'length');
    const waits = await Upload.begin(test.port, '/empty', 1000, 'length');
    // Nothing of either body has been sent.
    expect((await started.client.response()).status).toBe(401);
    expect(test.server.stats().answers).toEqual({ '401': 1 });
    await waits.send(content(1000));
    expect((await waits.client.response()).status).toBe(204);
  });
});

describe('a Fetch-style handler', () => {
  it.each(WAYS)('reads a streamed body like any other, as $way', async ({ dispatch }) => {
    const test = await serve(fixture('http/fetch-upload.mjs'), { dispatch, streamBody: true });
    for (const size of [5, 2_500_000]) {
      const bytes = content(size, 17);
      for (const path of ['/whole', '/stream']) {
        const answer = await fetch(test.url + path, { method: 'POST', body: bytes });
        expect(await answer.json()).toEqual({ size, hash: hashOf(bytes) });
      }
    }
    const unread = await fetch(`${test.url}/unread`, { method: 'POST', body: content(1000) });
    expect(await unread.text()).toBe('unread');
    const bad = await fetch(`${test.url}/json`, { method: 'POST', body: '{' });
    expect(bad.status).toBe(500);
    await quiet(test);
  });
});

describe('a body of 300 MB', () => {
  let program: Program | undefined;
  afterEach(async () => {
    await program?.kill();
    program = undefined;
  });

  const cases = [true, false].flatMap((dispatch) =>
    [true, false].map((streamBody) => ({ dispatch, streamBody })),
  );
  it.each(cases)(
    'costs little memory: dispatch $dispatch, streamBody $streamBody',
    {
      timeout: 60_000,
    },
    async ({ dispatch, streamBody }) => {
      const env = { DISPATCH: String(dispatch), STREAM_BODY: String(streamBody) };
      program = await startProgram('test/fixtures/http/upload-server.mjs', env);
      const url = String(program.urls[0]);
      const memory = async (): Promise<number> => Number(await (await fetch(`${url}/memory`)).text()) / 1024;
      const before = await memory();
      const port = Number(new URL(url).port);
      const block = content(MB);
      const sending = await Upload.begin(port, '/hash', 300 * MB, 'length');
      for (let i = 0; i < 300; i++) await sending.send(block);
      const digest = JSON.parse((await sending.client.response(false, 30_000)).body.toString()) as Digest;
      expect(digest.size).toBe(300 * MB);
      expect((await memory()) - before).toBeLessThan(200);
    },
  );
});
