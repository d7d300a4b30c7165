import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, until } from './support/server.js';

const SLOW = fixture('http/slow.mjs');
const get = (path: string, file: string): string =>
  `GET ${path}?${encodeURIComponent(file)} HTTP/1.1\r\nHost: h\r\n\r\n`;
const GOING = [
  ['with a FIN', (client: RawClient): void => client.leave()],
  ['with a RST', (client: RawClient): void => client.reset()],
] as const;

let folder: string;
let count = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offloop-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A path where nothing is yet. */
const fresh = (): string => join(folder, String(count++));
const content = (file: string): string => (existsSync(file) ? readFileSync(file, 'utf8') : '');

describe.each(WAYS)('a client that goes away from $way', ({ dispatch }) => {
  const options = dispatch ? { nMax: 1 } : { dispatch };

  it.each(GOING)('%s aborts the signal of its request', async (_, go) => {
    const test = await serve(SLOW, options);
    const file = fresh();
    const client = await RawClient.open(test.port);
    client.send(get('/hang', file));
    await until(() => content(file) === 'started\n', 'the handler runs');
    go(client);
    await until(() => content(file).includes('aborted'), 'its signal aborts', 15_000);
    expect(content(file)).toBe('started\naborted OffloopError OFFLOOP_ABORTED\n');
    await until(() => test.server.stats().open === 0, 'nothing is open');
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
    expect(test.errors).toEqual([]);
    expect(test.server.stats().answers).toEqual({ '200': 1 });
  });

  it.each(GOING)(
    '%s aborts the signal of its request on a connection that was used before',
    async (_, go) => {
      const test = await serve(SLOW, options);
      const file = fresh();
      const client = await RawClient.open(test.port);
      for (let i = 0; i < 3; i++) await client.ask('GET', '/fast');
      client.send(get('/hang', file));
      await until(() => content(file) === 'started\n', 'the handler runs');
      go(client);
      await until(() => content(file).includes('aborted'), 'its signal aborts', 15_000);
    },
  );

  it('aborts its own signal and no other', async () => {
    const test = await serve(SLOW, options);
    const files = Array.from({ length: 12 }, fresh);
    const clients = await Promise.all(files.map(() => RawClient.open(test.port)));
    for (const [i, client] of clients.entries()) client.send(get('/hang', files[i] as string));
    await until(() => files.every((file) => content(file) === 'started\n'), 'all run');
    clients.forEach((client, i) => {
      if (i % 4 === 0) client.leave();
      if (i % 4 === 1) client.reset();
    });
    await until(
      () => files.every((file, i) => i % 4 > 1 || content(file).includes('aborted')),
      'half of them abort',
      10_000,
    );
    expect(test.server.stats().open).toBe(6);
    for (const [i, file] of files.entries()) expect(content(file).includes('aborted')).toBe(i % 4 <= 1);
    for (const client of clients) client.socket.destroy();
    await until(() => test.server.stats().open === 0, 'nothing is open');
  });

  it('leaves a signal that is aborted already for a handler that looks late', async () => {
    const test = await serve(SLOW, options);
    const file = fresh();
    const client = await RawClient.open(test.port);
    client.send(get('/late-signal', file));
    await until(() => content(file) === 'started\n', 'the handler runs');
    client.leave();
    await until(() => test.server.stats().open === 0, 'the server has noticed', 15_000);
    // What the server knows is on the way to the worker; a later request would come behind it.
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
    writeFileSync(`${file}.go`, '');
    await until(() => content(file).includes('aborted='), 'the handler has looked');
    expect(content(file)).toBe('started\naborted=true\n');
  });

  it('leaves no error in the log when the handler rejects with the reason of its signal', async () => {
    const test = await serve(SLOW, options);
    const file = fresh();
    const client = await RawClient.open(test.port);
    client.send(get('/throw-on-abort', file));
    await until(() => content(file) === 'started\n', 'the handler runs');
    client.leave();
    await until(() => content(file).includes('aborted'), 'its signal aborts', 15_000);
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
    expect(test.errors).toEqual([]);
    expect(test.server.stats().open).toBe(0);
  });

  it('only after its answer does not abort anything', async () => {
    const test = await serve(SLOW, options);
    const file = fresh();
    const client = await RawClient.open(test.port);
    client.send(get('/watch-signal', file));
    expect((await client.response()).body.toString()).toBe('aborted=false');
    client.leave();
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
    await until(() => test.server.stats().open === 0, 'nothing is open');
    expect(content(file)).toBe('');
    expect(test.errors).toEqual([]);
  });

  it('in the middle of its request body never had a handler', async () => {
    const test = await serve(SLOW, options);
    const file = fresh();
    for (const [, go] of GOING) {
      const client = await RawClient.open(test.port);
      client.send(
        `POST /touch?${encodeURIComponent(file)} HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf`,
      );
      await until(() => test.server.stats().open === 1, 'its request is being read');
      go(client);
      await until(() => test.server.stats().open === 0, 'nothing is open');
    }
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
    expect(content(file)).toBe('');
  });

  it('as soon as it has asked leaves nothing behind, however many do', async () => {
    const test = await serve(SLOW, options);
    for (let round = 0; round < 5; round++) {
      const clients = await Promise.all(Array.from({ length: 40 }, () => RawClient.open(test.port)));
      clients.forEach((client, i) => {
        client.send(get(i % 3 === 0 ? '/fast' : '/watch-signal', fresh()));
        if (i % 2 === 0) client.leave();
        else client.reset();
      });
    }
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
    await until(() => test.server.stats().open === 0, 'nothing is open');
    await until(
      () => (test.server.stats().pool?.pending ?? 0) + (test.server.stats().pool?.running ?? 0) === 0,
      'the pool is idle',
    );
    expect(test.errors).toEqual([]);
  });
});

describe('a client that goes away from the queue', () => {
  it.each(GOING)('%s takes its request with it: that never runs', async (_, go) => {
    const test = await serve(SLOW, { nMax: 1 });
    const release = fresh();
    const touched = fresh();
    const busy = await RawClient.open(test.port);
    busy.send(get('/block-until', release));
    await until(() => test.server.stats().pool?.running === 1, 'the only worker is busy');
    const queued = await RawClient.open(test.port);
    queued.send(get('/touch', touched));
    await until(() => test.server.stats().open === 2, 'the second request has come');
    go(queued);
    await until(() => test.server.stats().open === 1, 'the server has noticed', 15_000);
    writeFileSync(release, '');
    expect((await busy.response()).body.toString()).toBe('blocked');
    const runs = (await (await fetch(`${test.url}/runs`)).json()) as string[];
    expect(runs).toEqual(['/block-until', '/runs']);
    expect(content(touched)).toBe('');
    expect(test.errors).toEqual([]);
  });

  it('makes room for another one at once', async () => {
    const test = await serve(SLOW, { nMax: 1, queueSize: 1 });
    const release = fresh();
    const busy = await RawClient.open(test.port);
    busy.send(get('/block-until', release));
    await until(() => test.server.stats().pool?.running === 1, 'the only worker is busy');
    const first = await RawClient.open(test.port);
    first.send(get('/fast', ''));
    await until(() => test.server.stats().open === 2, 'the queue is full');
    expect((await fetch(`${test.url}/refused`)).status).toBe(503);
    first.leave();
    await until(() => test.server.stats().open === 1, 'there is room', 15_000);
    const second = fetch(`${test.url}/accepted`);
    await until(() => test.server.stats().open === 2, 'it is taken');
    writeFileSync(release, '');
    expect((await second).status).toBe(200);
    expect((await busy.response()).status).toBe(200);
  });
});
