import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { RawClient, WAYS } from './support/http-raw.js';
import {
  type Gate,
  gate,
  type Log,
  log,
  MAY_GO_ELSEWHERE,
  poolOf,
  untilQueued,
  untilWhole,
} from './support/pool-client.js';
import { serve, type TestServer, until } from './support/server.js';
import { bodyOf, content, FRAMINGS, hashOf, MB, UPLOAD, Upload } from './support/upload.js';

interface Digest {
  size: number;
  hash: string;
  threadId: number;
}

const target = (path: string, notes?: Log, free?: Gate): string => {
  const query = new URLSearchParams();
  if (notes !== undefined) query.set('log', notes.path);
  if (free !== undefined) query.set('gate', free.path);
  return `${path}?${query}`;
};

const digestOf = async ({ client }: Upload): Promise<Digest> => {
  const response = await client.response(false, 15_000);
  expect(response.status, response.body.toString()).toBe(200);
  return JSON.parse(response.body.toString()) as Digest;
};

/** Hold a thread until the gate opens. */
async function block(test: TestServer, free: Gate): Promise<RawClient> {
  const notes = log();
  const client = await RawClient.open(test.port);
  client.send(`GET ${target('/block', notes, free)} HTTP/1.1\r\nHost: h\r\n\r\n`);
  await until(() => notes.lines().length === 1, 'a thread is held');
  return client;
}

describe('a worker that dies in the middle of a body', () => {
  it(
    'costs its own upload a 500 and the connection; what other workers read goes on',
    MAY_GO_ELSEWHERE,
    async () => {
      const test = await serve(UPLOAD, { nMin: 2, nMax: 2, streamBody: true });
      const bytes = content(2 * MB, 3);
      for (const framing of FRAMINGS) {
        const notes = log();
        const lucky = await Upload.begin(test.port, target('/told', notes), bytes.byteLength, framing);
        await lucky.send(bytes.subarray(0, 2000));
        await until(() => notes.lines().length === 2, 'the lucky one is being read');
        // A promise is pending in one of the two workers, so the next goes to the other.
        const unlucky = await Upload.begin(test.port, '/exit', 5 * MB, framing);
        await unlucky.send(content(100));
        await unlucky.client.closed();
        expect(unlucky.client.rest).toMatch(/^HTTP\/1.1 500 /);
        expect(bodyOf(unlucky.client.rest)).toBe('Internal Server Error');
        await lucky.sendAll(bytes.subarray(2000));
        lucky.end();
        expect((await digestOf(lucky)).hash).toBe(hashOf(bytes));
        await untilWhole(test.server, 2);
      }
      expect(poolOf(test.server).crashed).toBe(2);
      // Each was run once.
      expect(test.server.stats().answers).toEqual({ '200': 2, '500': 2 });
      await until(() => test.server.stats().open === 0, 'nothing is open');
    },
  );

  it('costs the connection nothing when little is left', async () => {
    const test = await serve(UPLOAD, { nMin: 1, nMax: 1, streamBody: true });
    const client = await RawClient.open(test.port);
    const sending = await Upload.begin(test.port, '/exit', 2000, 'length', { client });
    await sending.send(content(1000));
    await until(() => poolOf(test.server).crashed === 1, 'the worker has died');
    await sending.send(content(1000));
    expect((await client.response()).status).toBe(500);
    const next = await Upload.begin(test.port, '/hash', 10, 'length', { client });
    await next.send(content(10));
    expect((await digestOf(next)).hash).toBe(hashOf(content(10)));
  });
});

describe('a body whose request is taken back before it has started', () => {
  it.each([
    ['in part', 3 * MB],
    ['as a whole', 3000],
  ])('comes to the worker that runs it, byte for byte, %s', async (_, size) => {
    // Everything that is cheap travels to one worker, which turns out to be stuck.
    const test = await serve(UPLOAD, { nMin: 2, nMax: 2, streamBody: true });
    await Promise.all(
      Array.from({ length: 2 }, async () => {
        for (let i = 0; i < 100; i++) await (await fetch(`${test.url}/none`)).text();
      }),
    );
    const release = gate();
    const stuck = gate();
    const holders = [await block(test, release), await block(test, release)];
    const notes = log();
    const late = await RawClient.open(test.port);
    late.send(`GET ${target('/block', notes, stuck)} HTTP/1.1\r\nHost: h\r\n\r\n`);
    await untilQueued(test.server, 1);
    const bytes = Array.from({ length: 6 }, (_unused, i) => content(size, i + 1));
    const uploads: Upload[] = [];
    const sending: Promise<void>[] = [];
    for (const [i, body] of bytes.entries()) {
      const upload = await Upload.begin(test.port, '/hash', size, i % 2 === 0 ? 'length' : 'chunked');
      uploads.push(upload);
      sending.push(upload.sendAll(body).then(() => upload.end()));
      await untilQueued(test.server, i + 2);
    }
    release.open();
    await Promise.all(holders.map((client) => client.response()));
    await until(() => notes.lines().length === 1, 'one worker is stuck');
    for (const [i, upload] of uploads.entries()) {
      expect(await digestOf(upload)).toMatchObject({ size, hash: hashOf(bytes[i] as Buffer) });
    }
    await Promise.all(sending);
    stuck.open();
    expect((await late.response()).status).toBe(200);
    expect(test.errors).toEqual([]);
  });
});

describe('a body that is being read', () => {
  it('is read to its end by its old worker while a reload brings in new ones', async () => {
    const test = await serve(UPLOAD, { nMin: 1, nMax: 1, streamBody: true });
    const bytes = content(3 * MB);
    const notes = log();
    const slow = await Upload.begin(test.port, target('/told', notes), bytes.byteLength, 'chunked');
    await slow.send(bytes.subarray(0, 1000));
    await until(() => notes.lines().length === 1, 'it is being read');
    await test.server.reload();
    const quick = await Upload.begin(test.port, '/hash', 10, 'length');
    await quick.send(content(10));
    const fresh = await digestOf(quick);
    await slow.sendAll(bytes.subarray(1000));
    slow.end();
    const old = await digestOf(slow);
    expect(old.hash).toBe(hashOf(bytes));
    expect(old.threadId).not.toBe(fresh.threadId);
    await untilWhole(test.server, 1);
  });

  it('holds no thread, only a place among the pending promises', async () => {
    const test = await serve(UPLOAD, { nMin: 1, nMax: 1, concurrency: 3, streamBody: true });
    const slow = await Promise.all(
      [1, 2].map(async () => {
        const notes = log();
        const upload = await Upload.begin(test.port, target('/told', notes), 2000, 'length');
        await upload.send(content(1000));
        await until(() => notes.lines().length === 1, 'it is being read');
        return upload;
      }),
    );
    expect(poolOf(test.server)).toMatchObject({ running: 0, pending: 2 });
    const other = await fetch(`${test.url}/bytes`, { method: 'POST', body: content(10) });
    expect(other.status).toBe(200);
    for (const upload of slow) {
      await upload.send(content(1000));
      expect((await upload.client.response()).status).toBe(200);
    }
  });

  it('may end in peace while the server stops, and is cut when the time is up', async () => {
    for (const timeout of [10_000, 50]) {
      const test = await serve(UPLOAD, { nMin: 1, nMax: 1, streamBody: true });
      const notes = log();
      const upload = await Upload.begin(test.port, target('/watched', notes), 2000, 'length');
      await upload.send(content(1000));
      await until(() => notes.lines().length === 1, 'it is being read');
      const stopped = test.server.stop({ timeout });
      if (timeout > 50) {
        await upload.send(content(1000));
        const response = await upload.client.response();
        expect(response.status).toBe(200);
        expect(response.header('connection')).toBe('close');
        expect(notes.lines()).toContain('complete');
      }
      await upload.client.closed();
      expect(await stopped).toBe(true);
    }
  });
});

describe('a request that is refused before its body is there', () => {
  it('is told so at once, and may send its body and go on', async () => {
    const test = await serve(UPLOAD, { nMin: 1, nMax: 1, queueSize: 0, streamBody: true });
    const free = gate();
    const holder = await block(test, free);
    for (const framing of FRAMINGS) {
      const client = await RawClient.open(test.port);
      for (let i = 0; i < 2; i++) {
        const upload = await Upload.begin(test.port, '/hash', 1000, framing, { client });
        await upload.send(content(1000));
        upload.end();
        const response = await client.response();
        expect(response.status).toBe(503);
        expect(response.header('retry-after')).toBe('1');
        expect(response.header('connection')).toBeUndefined();
      }
      const large = await Upload.begin(test.port, '/hash', 5 * MB, framing, { client });
      await client.closed();
      expect(client.rest).toMatch(/^HTTP\/1.1 503 /);
      expect(client.rest.toLowerCase()).toContain('retry-after: 1');
      void large;
    }
    free.open();
    expect((await holder.response()).status).toBe(200);
  });

  it('is told so when it has waited too long', async () => {
    const test = await serve(UPLOAD, { nMin: 1, nMax: 1, queueTimeout: 200, streamBody: true });
    const free = gate();
    const holder = await block(test, free);
    const upload = await Upload.begin(test.port, '/hash', 5 * MB, 'length');
    await upload.send(content(MB));
    await upload.client.closed();
    expect(upload.client.rest).toMatch(/^HTTP\/1.1 503 /);
    free.open();
    expect((await holder.response()).status).toBe(200);
  });
});

describe.each(WAYS)('handlerTimeout of $way', ({ dispatch }) => {
  const start = (): Promise<TestServer> =>
    serve(UPLOAD, { dispatch, streamBody: true, handlerTimeout: 1000, ...(dispatch && { nMax: 1 }) });

  it('does not count how long the client takes to send', async () => {
    const test = await start();
    for (const path of ['/hash', '/bytes', '/node']) {
      const bytes = content(6000);
      const upload = await Upload.begin(test.port, path, bytes.byteLength, 'chunked');
      for (let at = 0; at < 6000; at += 1000) {
        await upload.send(bytes.subarray(at, at + 1000));
        await sleep(400);
      }
      upload.end();
      expect((await digestOf(upload)).hash).toBe(hashOf(bytes));
    }
    expect(test.errors).toEqual([]);
  });

  it('counts how long it does not read', async () => {
    const test = await start();
    const free = gate();
    const notes = log();
    const upload = await Upload.begin(test.port, target('/watched', notes, free), 5 * MB, 'length');
    await upload.send(content(MB));
    await upload.client.closed();
    expect(upload.client.rest).toMatch(/^HTTP\/1.1 504 /);
    free.open();
    await until(() => notes.lines().length === 3, 'the handler is told');
    expect(notes.lines()).toContain('signal OFFLOOP_HANDLER_TIMEOUT');
    expect(notes.lines()).toContain('AbortError OFFLOOP_ABORTED OFFLOOP_HANDLER_TIMEOUT');
    await until(() => test.server.stats().open === 0, 'nothing is open');
    expect(test.errors).toEqual([]);
  });
});
