import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { RawClient } from './support/http-raw.js';
import { fixture, serve, type TestServer, until } from './support/server.js';

const SLOW = fixture('http/slow.mjs');
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`;

/** The server has taken the first request of each, and reads nothing behind it, for it does that in the same turn, or a few ms later. */
async function taken(test: TestServer, clients: readonly RawClient[], ms: number): Promise<void> {
  const isTaken = (): boolean =>
    test.server.stats().open === clients.length || clients.some((client) => client.received > 0);
  await until(isTaken, 'it is taken');
  await sleep(ms);
}

const PENDING = [
  { what: 'a pooled handler that computes', path: '/cpu', body: 'cpu', options: { nMax: 1 } },
  { what: 'a pooled handler that waits', path: '/later', body: 'later', options: { nMax: 1 } },
  { what: 'an inline handler that waits', path: '/later', body: 'later', options: { dispatch: false } },
];

describe.each(PENDING)('while the answer of $what is pending', ({ path, body, options }) => {
  it.each([10, 30, 100, 250])(
    'a second request %i ms later waits its turn, and both are answered in order',
    async (delay) => {
      const test = await serve(SLOW, options);
      const client = await RawClient.open(test.port);
      client.send(get(path));
      await taken(test, [client], delay);
      client.send(get('/second'));
      expect((await client.response()).body.toString()).toBe(body);
      expect((await client.response()).body.toString()).toBe('fast /second');
      await until(() => test.server.stats().open === 0, 'nothing is open');
      expect((await client.ask('GET', '/third')).body.toString()).toBe('fast /third');
    },
  );

  it('many requests, each in a packet of its own, are answered in order', async () => {
    const test = await serve(SLOW, options);
    const client = await RawClient.open(test.port);
    client.send(get(path));
    await taken(test, [client], 30);
    for (let i = 0; i < 3; i++) client.send(get(path));
    await client.response();
    // The three came together while nobody was reading: what becomes of them is up to the engine, see below.
    const rest = await Promise.all([client.response(), client.response(), client.response()]).catch(
      () => undefined,
    );
    if (rest === undefined) await client.closed();
    await until(() => test.server.stats().open === 0, 'nothing is open');
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
  });

  it('a second request with a body waits its turn too', async () => {
    const test = await serve(SLOW, options);
    const client = await RawClient.open(test.port);
    client.send(get(path));
    await taken(test, [client], 50);
    client.send('POST /second HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n');
    client.send('x'.repeat(200_000));
    expect((await client.response()).body.toString()).toBe(body);
    expect((await client.response()).body.toString()).toBe('fast /second');
  });

  it('a second request on each of many connections waits its turn, and all are answered', async () => {
    const test = await serve(SLOW, { ...options, ...('nMax' in options ? { nMax: 2 } : {}) });
    const clients = await Promise.all(Array.from({ length: 8 }, () => RawClient.open(test.port)));
    for (const client of clients) client.send(get('/later'));
    await taken(test, clients, 100);
    for (const client of clients) client.send(get('/second'));
    for (const client of clients) {
      expect((await client.response()).body.toString()).toBe('later');
      expect((await client.response()).body.toString()).toBe('fast /second');
    }
    await until(() => test.server.stats().open === 0, 'nothing is open');
  });

  // The engine closes the connection when it finds a second request in what it has just read.
  it('a second request in the same packet closes the connection without an answer, and leaves nothing open', async () => {
    const test = await serve(SLOW, options);
    const client = await RawClient.open(test.port);
    client.send(get(path) + get('/same-packet'));
    await client.closed();
    expect(client.rest).toBe('');
    await until(() => test.server.stats().open === 0, 'nothing is open');
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
    const runs = (await (await fetch(`${test.url}/runs`)).json()) as string[];
    expect(runs).not.toContain('/same-packet');
  });
});

describe('an inline handler that answers at once', () => {
  it('takes any number of requests in one packet, with bodies and without, and answers in order', async () => {
    const bodies: string[] = [];
    const test = await serve(
      (req) => {
        bodies.push(req.path);
        return { body: `${req.method} ${req.path} ${req.contentLength}` };
      },
      { dispatch: false },
    );
    const client = await RawClient.open(test.port);
    const post = (path: string): string =>
      `POST ${path} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody`;
    client.send(get('/1') + post('/2') + get('/3') + post('/4') + get('/5'));
    const answers: string[] = [];
    for (let i = 0; i < 5; i++) answers.push((await client.response()).body.toString());
    expect(answers).toEqual(['GET /1 null', 'POST /2 4', 'GET /3 null', 'POST /4 4', 'GET /5 null']);
    expect(client.rest).toBe('');
  });

  it('takes a HEAD between two GETs of one packet', async () => {
    const test = await serve((req) => ({ body: req.path }), { dispatch: false });
    const client = await RawClient.open(test.port);
    client.send(`${get('/1')}HEAD /2 HTTP/1.1\r\nHost: h\r\n\r\n${get('/3')}`);
    expect((await client.response()).body.toString()).toBe('/1');
    expect((await client.response(true)).header('content-length')).toBe('2');
    expect((await client.response()).body.toString()).toBe('/3');
  });

  // The engine can either answer and go on with the packet, or close on what follows in it: then the answer is lost too.
  it('never runs a request that shares a packet with one whose answer closes the connection', async () => {
    const seen: string[] = [];
    const test = await serve(
      (req) => {
        seen.push(req.path);
        return req.path === '/close' ? { headers: { connection: 'close' }, body: 'bye' } : { body: 'x' };
      },
      { dispatch: false },
    );
    const client = await RawClient.open(test.port);
    client.send(`GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n${get('/2')}`);
    await client.closed();
    const other = await RawClient.open(test.port);
    other.send(get('/close') + get('/2'));
    await other.closed();
    expect(seen).toEqual(['/1', '/close']);
    await until(() => test.server.stats().open === 0, 'nothing is open');
  });

  it('answers a request that closes the connection when nothing shares its packet', async () => {
    const test = await serve(() => ({ headers: { connection: 'close' }, body: 'bye' }), { dispatch: false });
    const client = await RawClient.open(test.port);
    client.send(get('/close'));
    expect((await client.response()).body.toString()).toBe('bye');
    await client.closed();
    expect(client.rest).toBe('');
  });
});
