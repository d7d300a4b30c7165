import { createWorkerPool, type ServerOptions } from 'offloop';
import { describe, expect, it } from 'vitest';
import { askAndStall, bodyOf, fetchBody, type Got, hash, STREAMS, target } from './support/body-client.js';
import { RawClient } from './support/http-raw.js';
import { type Gate, gate, poolOf, untilWhole } from './support/pool-client.js';
import { serve, type TestServer, until } from './support/server.js';

const BYTES = 300_000;
const WHOLE = { status: 200, length: BYTES, whole: true, hash: hash(bodyOf(BYTES)) };

const bodies = ({ server }: TestServer): number =>
  poolOf(server).workers.reduce((sum, worker) => sum + worker.bodies, 0);

/** Begin so many bodies that go on when the gate opens. */
async function begin(
  test: TestServer,
  count: number,
  kind = 'async-generator',
  ms = 18_000,
): Promise<[Promise<Got>[], Gate]> {
  const free = gate();
  const query = { bytes: BYTES, before: 100_000, gate: free.path };
  const before = bodies(test);
  const got: Promise<Got>[] = [];
  // One after the other, so that they are spread over the workers.
  for (let i = 1; i <= count; i++) {
    const one = fetchBody(test.url, `/body/${kind}`, query, ms);
    one.catch(() => undefined);
    got.push(one);
    await until(() => bodies(test) === before + i, 'it is under way');
  }
  return [got, free];
}

describe('a body that is under way', () => {
  const start = (options: ServerOptions = {}): Promise<TestServer> =>
    serve(STREAMS, { nMin: 1, nMax: 1, ...options });

  it('counts as an open request and as a body, and takes no place of a promise', async () => {
    const test = await start({ concurrency: 4 });
    const [got, free] = await begin(test, 20);
    expect(test.server.stats()).toMatchObject({
      open: 20,
      channels: 0,
      pool: { pending: 0, running: 0, workers: [{ bodies: 20, pending: 0, channels: 0, served: 20 }] },
    });
    expect((await fetch(`${test.url}/made`)).status).toBe(200);
    const stalled = await Promise.all(
      Array.from({ length: 20 }, () => askAndStall(test.port, '/body/generator', { bytes: 50_000_000 })),
    );
    await until(() => bodies(test) === 40, 'they are under way');
    expect((await fetch(`${test.url}/made`)).status).toBe(200);
    for (const client of stalled) client.reset();
    free.open();
    for (const one of await Promise.all(got)) expect(one).toMatchObject(WHOLE);
    await until(() => bodies(test) + test.server.stats().open === 0, 'nothing is open');
    expect(test.errors).toEqual([]);
  });

  it('goes to the worker that has the fewest', async () => {
    const test = await start({ nMin: 2, nMax: 2 });
    const spread = (): number[] => poolOf(test.server).workers.map((worker) => worker.bodies);
    const rounds = [await begin(test, 6)];
    // One that is slow to wake is passed over for a moment: the next ones make up for it.
    while (new Set(spread()).size > 1 && bodies(test) < 40) rounds.push(await begin(test, 1));
    expect(spread()).toEqual([bodies(test) / 2, bodies(test) / 2]);
    for (const [, free] of rounds) free.open();
    for (const one of await Promise.all(rounds.flatMap(([got]) => got))) expect(one).toMatchObject(WHOLE);
  });

  it('is cut when its worker dies, which is logged once; those of other workers go on', async () => {
    const test = await start({ nMin: 2, nMax: 2 });
    const [got, free] = await begin(test, 6);
    const stalled = await askAndStall(test.port, '/body/generator', { bytes: 50_000_000 });
    await until(() => bodies(test) === 7, 'it is under way');
    const before = poolOf(test.server).workers;
    for (const worker of before) expect(worker.bodies).toBeGreaterThan(0);
    expect((await fetch(`${test.url}/exit`)).status).toBe(500);
    await until(() => bodies(test) < 7, 'a worker is gone');
    const left = bodies(test);
    const survivors = poolOf(test.server).workers.map(({ name }) => name);
    free.open();
    const whole = (await Promise.all(got)).filter((one) => one.whole);
    for (const one of whole) expect(one).toMatchObject(WHOLE);
    expect(before.filter(({ name }) => survivors.includes(name)).map((worker) => worker.bodies)).toEqual([
      left,
    ]);
    const cut = test.errors.filter(({ message }) => message.startsWith('GET /body/'));
    expect(cut).toHaveLength(7 - left);
    expect(whole.length).toBe(6 - cut.filter(({ message }) => message.includes('async')).length);
    for (const { error } of cut) expect(error).toMatchObject({ code: 'OFFLOOP_WORKER_LOST' });
    // The other lines: the request that did it, and the worker.
    expect(test.errors).toHaveLength(cut.length + 2);
    stalled.reset();
    await untilWhole(test.server, 2);
    expect(await fetchBody(test.url, '/body/generator', { bytes: BYTES })).toMatchObject(WHOLE);
  });

  it('has left its worker when its source has ended, however slow its client is', async () => {
    const test = await start();
    const clients = await Promise.all(
      Array.from({ length: 5 }, () => askAndStall(test.port, '/body/generator', { bytes: 200_000 })),
    );
    await until(
      () => test.server.stats().answers['200'] === 5 && bodies(test) === 0,
      'the sources have ended',
    );
    expect((await fetch(`${test.url}/exit`)).status).toBe(500);
    for (const client of clients) {
      client.socket.resume();
      expect(hash((await client.response()).body)).toBe(hash(bodyOf(200_000)));
    }
  });

  it('is finished by the old code when the code is reloaded, and the old worker waits for it', async () => {
    const test = await start();
    const [got, free] = await begin(test, 3);
    await test.server.reload();
    expect(poolOf(test.server).workers.map(({ state, bodies: n }) => [state, n])).toEqual(
      expect.arrayContaining([
        ['retiring', 3],
        ['ready', 0],
      ]),
    );
    expect(await fetchBody(test.url, '/body/generator', { bytes: BYTES })).toMatchObject(WHOLE);
    free.open();
    for (const one of await Promise.all(got)) expect(one).toMatchObject(WHOLE);
    await untilWhole(test.server, 1);
    expect(test.errors).toEqual([]);
  });

  it('is finished by a worker that is recycled', async () => {
    const test = await start({ recycleAfter: { requests: 5 } });
    const [got, free] = await begin(test, 2);
    await until(async () => {
      await fetch(`${test.url}/made`);
      return poolOf(test.server).recycled >= 2;
    }, 'the worker is recycled');
    free.open();
    for (const one of await Promise.all(got)) expect(one).toMatchObject(WHOLE);
    await untilWhole(test.server, 1);
    expect(test.errors).toEqual([]);
  });

  it('is let go by an old worker when its client leaves', async () => {
    const test = await start();
    const client = await askAndStall(test.port, '/body/generator', { bytes: 50_000_000 });
    await until(() => bodies(test) === 1, 'it is under way');
    await test.server.reload();
    client.reset();
    await untilWhole(test.server, 1);
    expect(test.errors).toEqual([]);
  });

  it('is cut when it stands still in a worker that is to go', { timeout: 60_000 }, async () => {
    const test = await start();
    const [[still], never] = await begin(test, 1, 'async-generator', 50_000);
    await test.server.reload();
    expect((await still)?.whole).toBe(false);
    await untilWhole(test.server, 1);
    expect(test.errors).toHaveLength(1);
    expect(test.errors[0]).toMatchObject({
      message: 'GET /body/async-generator',
      error: {
        code: 'OFFLOOP_WORKER_LOST',
        message: expect.stringContaining('is being replaced, and nothing of the response has moved'),
      },
    });
    never.open();
  });

  it.each(['async-generator', 'web-stream'])('is finished before the server stops: %s', async (kind) => {
    const test = await start();
    const [got, free] = await begin(test, 5, kind);
    const stopped = test.server.stop({ timeout: 15_000 });
    expect((await RawClient.open(test.port).catch(() => undefined))?.ended).toBeUndefined();
    free.open();
    for (const one of await Promise.all(got)) expect(one).toMatchObject(WHOLE);
    expect(await stopped).toBe(true);
    expect(test.errors).toEqual([]);
  });

  it('is finished before the server stops, to a client that reads slowly', async () => {
    const test = await start();
    const bytes = 20_000_000;
    const clients = await Promise.all(
      ['/body/generator', '/body/bytes'].map((path) => askAndStall(test.port, path, { bytes, size: 60_000 })),
    );
    await until(() => test.server.stats().answers['200'] === 2, 'they are under way');
    const stopped = test.server.stop({ timeout: 15_000 });
    for (const { socket } of clients) socket.resume();
    for (const client of clients)
      expect(hash((await client.response(false, 15_000)).body)).toBe(hash(bodyOf(bytes)));
    expect(await stopped).toBe(true);
    expect(test.errors).toEqual([]);
  });

  it.each(['generator', 'bytes', 'blob'])(
    'that begins while the server stops comes whole to a slow client: %s',
    async (kind) => {
      const test = await start();
      const free = gate();
      const bytes = 20_000_000;
      const query = { bytes, size: 60_000, late: 1, gate: free.path };
      const client = await askAndStall(test.port, `/body/${kind}`, query);
      await until(() => poolOf(test.server).pending === 1, 'the handler waits');
      const stopped = test.server.stop({ timeout: 15_000 });
      free.open();
      await until(() => test.server.stats().answers['200'] === 1, 'it is under way');
      client.socket.resume();
      expect(hash((await client.response(false, 15_000)).body)).toBe(hash(bodyOf(bytes)));
      expect(await stopped).toBe(true);
      expect(test.errors).toEqual([]);
    },
  );

  it('is cut when it is not done by the time the server has to stop', async () => {
    const test = await start();
    const [got] = await begin(test, 3);
    expect(await test.server.stop({ timeout: 200 })).toBe(true);
    for (const one of await Promise.all(got)) expect(one.whole).toBe(false);
    expect(test.errors.map(({ message }) => message)).toEqual(new Array(3).fill('GET /body/async-generator'));
    for (const { error } of test.errors) expect(error).toMatchObject({ code: 'OFFLOOP_STOPPED' });
  });

  it('is waited for by a pool that is closed', async () => {
    const pool = createWorkerPool({ nMin: 1, nMax: 1 });
    const test = await serve(STREAMS, { workerPool: pool });
    const [got, free] = await begin(test, 3);
    const closed = pool.close({ timeout: 15_000 });
    free.open();
    for (const one of await Promise.all(got)) expect(one).toMatchObject(WHOLE);
    await closed;
    expect(test.errors).toEqual([]);
  });

  it('begins while the server stops, if its request was there before', async () => {
    const test = await start();
    const free = gate();
    const client = await RawClient.open(test.port);
    const query = { bytes: BYTES, late: 1, gate: free.path };
    client.send(`GET ${target('/body/generator', query)} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await until(() => poolOf(test.server).pending === 1, 'the handler waits');
    const stopped = test.server.stop({ timeout: 15_000 });
    free.open();
    const response = await client.response();
    expect([response.header('connection'), hash(response.body)]).toEqual(['close', WHOLE.hash]);
    expect(await stopped).toBe(true);
  });

  it('is cut when its worker is ended because a handler is stuck in it', async () => {
    const test = await serve(STREAMS, { nMin: 1, nMax: 1, handlerTimeout: 1000, killAfter: 300 });
    const [got] = await begin(test, 2);
    expect((await fetch(`${test.url}/loop`)).status).toBe(504);
    for (const one of await Promise.all(got)) expect(one.whole).toBe(false);
    await untilWhole(test.server, 1);
    expect(test.errors.filter(({ message }) => message === 'GET /body/async-generator')).toHaveLength(2);
  });

  it('goes on for a second when its worker has an exception that nobody catches', async () => {
    const test = await start();
    const [got, free] = await begin(test, 2);
    const [[never]] = await begin(test, 1);
    await fetch(`${test.url}/stray`);
    await until(() => test.errors.length > 0, 'it is noticed');
    free.open();
    for (const one of await Promise.all(got)) expect(one).toMatchObject(WHOLE);
    expect((await (never as Promise<Got>)).whole).toBe(false);
    await untilWhole(test.server, 1);
  });
});

describe('a body of an inline handler', () => {
  it('is finished before the server stops, or cut when the time is up', async () => {
    const test = await serve(STREAMS, { dispatch: false });
    const free = gate();
    const query = { bytes: BYTES, before: 100_000, gate: free.path };
    const got = fetchBody(test.url, '/body/async-generator', query);
    await until(() => test.server.stats().answers['200'] === 1, 'it is under way');
    const stopped = test.server.stop({ timeout: 15_000 });
    free.open();
    expect(await got).toMatchObject(WHOLE);
    expect(await stopped).toBe(true);

    const other = await serve(STREAMS, { dispatch: false });
    const never = gate();
    const cut = fetchBody(other.url, '/body/async-generator', { ...query, gate: never.path });
    await until(() => other.server.stats().answers['200'] === 1, 'it is under way');
    expect(await other.server.stop({ timeout: 200 })).toBe(true);
    expect((await cut).whole).toBe(false);
  });
});
