import { gunzipSync } from 'node:zlib';
import { nodeHandler } from 'offloop/handlers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient } from './support/http-raw.js';
import { fixture, serve, startServer, type TestServer, until } from './support/server.js';

const WAYS = [
  { way: 'pooled', dispatch: true },
  { way: 'inline', dispatch: false },
] as const;
const MIB = 1024 * 1024;

describe.each(WAYS)('a Node-style handler, $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    const options = { dispatch, nMin: 1, nMax: 1, maxBody: 8 * MIB };
    test = await startServer(fixture('node-style.mjs'), options);
  });
  afterAll(() => test.stop());

  const ask = (path: string, init?: RequestInit): Promise<Response> => fetch(`${test.url}${path}`, init);
  const text = async (path: string, init?: RequestInit): Promise<string> => (await ask(path, init)).text();
  const seen: string[] = [];
  const log = async (): Promise<string[]> => {
    seen.push(...((await (await ask('/log')).json()) as string[]));
    return seen;
  };
  /** What it has logged so far, when `last` is there. */
  const logged = async (last: string): Promise<string[]> => {
    await until(async () => (await log()).includes(last), `${last} has happened`);
    return seen.splice(0);
  };
  const raw = (): Promise<RawClient> => RawClient.open(test.port);
  const failures = (): unknown[] => test.errors.splice(0).map(({ error }) => (error as Error).message);

  // ------------------------------------------------------------------------------------------------ what it writes

  it('hears of the end in the order of Node', async () => {
    expect(await text('/events')).toBe('done');
    const events = await logged('req close');
    expect(events).toEqual([
      'res prefinish',
      'true true true',
      'res finish',
      'ended',
      'res close',
      'req end',
      'req close',
    ]);
  });

  it('writes text and bytes in any encoding', async () => {
    const bytes = Buffer.from(await (await ask('/encodings')).arrayBuffer());
    expect(bytes.toString('latin1')).toBe('éhi\xc3\xa9\x01\xc3\xa9\xff');
    const mixed = Buffer.from(await (await ask('/mixed')).arrayBuffer());
    expect(mixed.toString('latin1')).toBe('\xc3\xa9\x00\xff\xc3\xa9');
  });

  it('makes its head in all the ways there are', async () => {
    const { status, all, body } = await (await raw()).ask('GET', '/heads');
    expect([status, all('x-set'), all('x-map'), all('x-written'), all('x-gone')]).toEqual([
      203,
      ['a', 'b'],
      ['m'],
      ['1', '2'],
      [],
    ]);
    expect(JSON.parse(body.toString())).toEqual([true, ['a', 'b'], false, 'Whatever']);
    expect((await (await raw()).ask('GET', '/list')).all('set-cookie')).toEqual(['a=1', 'b=2']);
  });

  it('may flush its head long before the rest', async () => {
    const answer = await ask('/flushed');
    expect([answer.headers.get('x-early'), await answer.text()]).toEqual(['1', 'late']);
  });

  it('is not chunked twice when it asks to be chunked, and its trailers are left out', async () => {
    const { header, body } = await (await raw()).ask('GET', '/chunked');
    expect(header('transfer-encoding')).toBe('chunked');
    expect(body.toString()).toBe(`${'x'.repeat(100_000)}two`);
  });

  it('can tell nothing before its answer, and is not kept from answering', async () => {
    const { status, body } = await (await raw()).ask('GET', '/informed');
    expect([status, body.toString()]).toEqual([200, 'final']);
  });

  it('can have its connection closed', async () => {
    const client = await raw();
    const { header, body } = await client.ask('GET', '/close');
    expect([header('connection'), body.toString()]).toEqual(['close', 'bye']);
    await client.closed();
  });

  it('is called back for what it has written', async () => {
    expect(await text('/callbacks')).toBe('ab');
    expect(await logged('a,b,end')).toEqual(['a,b,end']);
  });

  it('is told to wait, and when to go on', async () => {
    expect((await text('/drain')).slice(-4)).toBe('true');
    expect(test.errors).toEqual([]);
  });

  // ------------------------------------------------------------------------------------------------ what it reads

  it.each([1000, 3 * MIB])('compresses %i bytes while they come', async (size) => {
    const body = new Uint8Array(size).fill(97);
    const client = await raw();
    client.send(`POST /gzip HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${size}\r\n\r\n`);
    await client.sent(body);
    expect(gunzipSync((await client.response()).body).equals(body)).toBe(true);
  });

  it.each([0, 10, 3 * MIB])('iterates over a body of %i characters', async (size) => {
    const init = { method: 'POST', body: 'x'.repeat(size) };
    expect(await text('/iterate', init)).toBe(`${size} true true string`);
  });

  it('reads no faster than it likes', async () => {
    expect(await text('/paused', { method: 'POST', body: 'x'.repeat(3 * MIB) })).toBe(String(3 * MIB));
  });

  it('answers without reading what it is sent', async () => {
    for (const size of [10, 4 * MIB]) {
      const client = await raw();
      client.send(`POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${size}\r\n\r\n`);
      void client.sent(new Uint8Array(size));
      const { status, body } = await client.response();
      expect([status, body.toString()]).toEqual([403, 'not that']);
    }
    expect(test.errors).toEqual([]);
  });

  it('answers 500 when what listens to a large body fails', async () => {
    const answer = await ask('/listening', { method: 'POST', body: new Uint8Array(3 * MIB) });
    expect(answer.status).toBe(500);
    await until(() => test.errors.length > 0, 'it has been logged');
    expect(failures()).toEqual(['on purpose']);
  });

  it('is not asked any more when its body grows too large', async () => {
    const client = await raw();
    client.send('POST /large HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n');
    const chunk = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(MIB), Buffer.from('\r\n')]);
    for (let i = 0; i < 9; i++) client.send(chunk);
    expect((await client.response()).status).toBe(413);
    await logged('req error ECONNRESET');
    expect(test.errors).toEqual([]);
  });

  // ---------------------------------------------------------------------------------------------------- what breaks

  it('hears of a client that has gone before it answered', async () => {
    // A server that has done nothing else is told sooner.
    const own = await serve(fixture('node-style.mjs'), { dispatch, nMin: 1, nMax: 1 });
    const events: string[] = [];
    const has = async (event: string): Promise<boolean> => {
      events.push(...((await (await fetch(`${own.url}/log`)).json()) as string[]));
      return events.includes(event);
    };
    await has('what there was before');
    events.length = 0;
    const client = await RawClient.open(own.port);
    client.send('GET /waiting HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await until(() => has('req end'), 'it has been asked');
    client.leave();
    await until(() => has('res close'), 'it has been told', 15_000);
    expect(events).toContain('finished ERR_STREAM_PREMATURE_CLOSE');
    expect(own.errors).toEqual([]);
  });

  it('hears of a client that has gone in the middle of the answer', async () => {
    const client = await raw();
    client.send('GET /half HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await client.head();
    client.leave();
    const events = await logged('written false false');
    expect(events).toContain('res close');
    expect(events).not.toContain('res finish');
    expect(test.errors).toEqual([]);
  });

  it.each([
    ['/again', 200, 'once', 'write after end'],
    ['/behind', 200, 'answered', 'behind it'],
    ['/twice', 200, 'one', 'Cannot write headers after they are sent to the client'],
    ['/destroyed', 500, 'Internal Server Error', 'the handler has destroyed the connection'],
    ['/failed', 500, 'Internal Server Error', 'on purpose'],
    ['/past', 500, 'Internal Server Error', 'the connection was written to'],
    ['/thrown', 500, 'Internal Server Error', 'on purpose'],
    ['/silence', 500, 'Internal Server Error', 'the handler has destroyed the connection'],
    ['/status', 500, 'Internal Server Error', 'status 700 is not a whole number'],
  ])('does no harm but to itself: %s', async (path, status, body, message) => {
    const { pid } = process;
    const client = await raw();
    const answer = await client.ask('GET', path);
    expect([answer.status, answer.body.toString()]).toEqual([status, body]);
    expect((await client.ask('GET', '/list')).body.toString()).toBe('list');
    await until(() => test.errors.length > 0, 'it has been logged');
    expect(failures()).toEqual([expect.stringContaining(message)]);
    expect(process.pid).toBe(pid);
  });

  it.each(['/cut', '/short'])('is cut when it ends too early: %s', async (path) => {
    const client = await raw();
    client.send(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    if (path === '/cut') {
      await client.head();
      await client.closed();
    } else expect((await client.response()).status).toBe(500);
    await until(() => test.errors.length > 0, 'it has been logged');
    expect(failures()).toHaveLength(1);
  });

  it('may have a timeout of its own', async () => {
    const answer = await ask('/timeout');
    expect([answer.status, await answer.text()]).toEqual([503, 'I gave up']);
  });

  it('refuses WebSockets', async () => {
    const { status, body } = await (await raw()).ask(
      'GET',
      '/list',
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
    );
    expect([status, body.toString()]).toEqual([501, 'This handler takes no WebSockets']);
  });

  it('has been the same all the time', () => {
    expect(test.server.stats().pool?.workers ?? []).toHaveLength(dispatch ? 1 : 0);
    expect(test.events.filter((event) => event.includes('worker'))).toEqual([]);
  });
});

describe.each(WAYS)('a Node-style handler inside of middleware, $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(fixture('node-wrapped.mjs'), { dispatch, nMin: 1, nMax: 1 });
  });
  afterAll(() => test.stop());

  it('sees the request as middleware shows it', async () => {
    const headers = { 'x-forwarded-for': '192.0.2.7', 'x-forwarded-proto': 'https' };
    const answer = await fetch(`${test.url}/facts`, { headers });
    expect(await answer.json()).toEqual(['192.0.2.7', 'https', 'yes', new URL(test.url).host]);
    expect(answer.headers.get('x-request-id')).not.toBeNull();
  });

  it('has its answer changed', async () => {
    const answer = await fetch(`${test.url}/long`, { headers: { 'accept-encoding': 'gzip' } });
    expect(answer.headers.get('content-encoding')).toBe('gzip');
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff');
    expect(await answer.text()).toBe('long '.repeat(10_000));
  });

  it.each([10, 3 * MIB])('gets a body of %i bytes, and sends it back', async (size) => {
    const body = new Uint8Array(size).fill(7);
    const answer = await fetch(`${test.url}/echo`, { method: 'POST', body });
    expect(Buffer.from(await answer.arrayBuffer()).equals(body)).toBe(true);
  });
});

describe('nodeHandler', () => {
  it.each([
    [{ routing: () => undefined }, 'after await app.ready()'],
    [{ callback: () => undefined }, 'of a Koa app pass app.callback()'],
    [{}, 'pass a function (req, res)'],
    [null, 'was given null'],
    ['app.js', 'was given a string'],
  ])('says what it would take instead of %j', (given, message) => {
    expect(() => nodeHandler(given as never)).toThrow(message);
    expect(() => nodeHandler(given as never)).toThrow(TypeError);
  });
});
