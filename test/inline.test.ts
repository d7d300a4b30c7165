import { Hono } from 'hono';
import { runServer } from 'offloop';
import { file, html, json, text } from 'offloop/handlers';
import { describe, expect, it } from 'vitest';
import { RawClient } from './support/http-raw.js';
import { fixture, serve, until } from './support/server.js';

const HERE = { ip: '127.0.0.1', port: 0 };

describe('an inline handler', () => {
  it('may be a function of the program, with all it closes over', async () => {
    let count = 0;
    const test = await serve(() => ({ body: `${++count}` }), { dispatch: false });
    expect(await (await fetch(test.url)).text()).toBe('1');
    expect(await (await fetch(test.url)).text()).toBe('2');
    expect(test.server.stats().pool).toBe(null);
  });

  it('is refused without dispatch: false, with both ways out', async () => {
    const error = await runServer(() => undefined, HERE).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({ code: 'OFFLOOP_FUNCTION_NEEDS_INLINE' });
    expect(String(error)).toContain('dispatch: false');
    expect(String(error)).toContain('./handler.js');
    await expect(runServer({ fetch: () => new Response() }, HERE)).rejects.toMatchObject({
      code: 'OFFLOOP_FUNCTION_NEEDS_INLINE',
    });
  });

  it.each([undefined, null, 1, true, {}, [], Symbol('s')])(
    'is refused when it is no handler: %s',
    async (handler) => {
      for (const dispatch of [true, false]) {
        await expect(runServer(handler as never, { ...HERE, dispatch })).rejects.toBeInstanceOf(TypeError);
      }
    },
  );

  it('may be a module, by path and by URL', async () => {
    const path = fixture('http/slow.mjs');
    for (const handler of [path, new URL(`file://${path}`), `file://${path}`]) {
      const test = await serve(handler, { dispatch: false });
      expect(await (await fetch(`${test.url}/x`)).text()).toBe('fast /x');
      expect(test.server.stats().pool).toBe(null);
    }
  });

  it('may stand beside a pooled one: each mount says for itself', async () => {
    const test = await serve(fixture('http/slow.mjs'), { nMax: 1 });
    await test.server.mount(() => ({ body: 'inline' }), { path: '/ping', dispatch: false });
    expect(await (await fetch(`${test.url}/ping/x`)).text()).toBe('inline');
    expect(await (await fetch(`${test.url}/x`)).text()).toBe('fast /x');
    expect(test.server.stats().pool?.accepted).toBe(1);
  });

  it('answers while every worker is busy', async () => {
    const test = await serve(fixture('http/slow.mjs'), { nMax: 1 });
    await test.server.mount(() => ({ body: 'inline' }), { path: '/ping', dispatch: false });
    const busy = fetch(`${test.url}/cpu`);
    await until(() => test.server.stats().pool?.running === 1, 'the only worker is busy');
    expect(await (await fetch(`${test.url}/ping`)).text()).toBe('inline');
    expect(test.server.stats().pool?.running).toBe(1);
    expect(await (await busy).text()).toBe('cpu');
  });

  it('may keep the request and read it when the connection has moved on', async () => {
    const kept: {
      path: string;
      headers: Readonly<Record<string, string>>;
      text(): Promise<string>;
      remoteAddr: string;
    }[] = [];
    const test = await serve(
      (req) => {
        kept.push(req);
        return { body: 'x' };
      },
      { dispatch: false },
    );
    const client = await RawClient.open(test.port);
    client.send('POST /first HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nfirst');
    await client.response();
    await client.ask('GET', '/second', 'X-A: 2');
    client.leave();
    const [first, second] = kept;
    expect([first?.path, first?.headers['x-a'], await first?.text()]).toEqual(['/first', '1', 'first']);
    expect([second?.path, second?.headers['x-a'], await second?.text()]).toEqual(['/second', '2', '']);
    // The address can only be had while the request is open; later it is empty and nothing breaks.
    expect(typeof first?.remoteAddr).toBe('string');
  });

  it('may answer long after it was called, and many at the same time', async () => {
    const waiting: (() => void)[] = [];
    const test = await serve(
      (req) => new Promise((resolve) => waiting.push(() => resolve({ body: req.path }))),
      { dispatch: false },
    );
    const answers = Array.from({ length: 20 }, (_, i) => fetch(`${test.url}/${i}`).then((r) => r.text()));
    await until(() => waiting.length === 20, 'all twenty wait');
    for (const answer of waiting.reverse()) answer();
    expect(await Promise.all(answers)).toEqual(Array.from({ length: 20 }, (_, i) => `/${i}`));
  });

  it('whose promise settles twice answers once', async () => {
    const thrice = {
      // biome-ignore lint/suspicious/noThenProperty: a thenable that misbehaves
      then(resolve: (response: object) => void): void {
        for (const n of [1, 2, 3]) resolve({ body: `${n}` });
      },
    };
    const test = await serve(() => thrice as never, { dispatch: false });
    const client = await RawClient.open(test.port);
    expect((await client.ask('GET', '/')).body.toString()).toBe('1');
    expect((await client.ask('GET', '/')).body.toString()).toBe('1');
    expect(client.rest).toBe('');
  });

  it('may use the helpers of offloop/handlers', async () => {
    const test = await serve(
      (req) => {
        if (req.path === '/json') return json({ a: 1 });
        if (req.path === '/html') return html('<p>');
        if (req.path === '/file') return { body: file(fixture('http/files/hello.txt')) };
        return text('t');
      },
      { dispatch: false },
    );
    expect(await (await fetch(`${test.url}/json`)).json()).toEqual({ a: 1 });
    expect((await fetch(`${test.url}/html`)).headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(await (await fetch(`${test.url}/file`)).text()).toBe('hello from a file\n');
    expect(await (await fetch(test.url)).text()).toBe('t');
  });
});

describe.each([true, false])('a fetch-style handler (dispatch: %s)', (dispatch) => {
  const MODULE = fixture('http/hono.mjs');

  it('is a Hono app, unchanged', async () => {
    const test = await serve(MODULE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
    expect(await (await fetch(`${test.url}/hello/w%20rld?x=1`)).json()).toEqual({ name: 'w rld', x: '1' });
    const echoed = await fetch(`${test.url}/echo`, {
      method: 'POST',
      body: 'bödy',
      headers: { 'content-type': 'text/plain' },
    });
    expect([echoed.status, await echoed.text()]).toEqual([201, 'bödy']);
    const form = await fetch(`${test.url}/form`, { method: 'PUT', body: new URLSearchParams({ a: 'ü' }) });
    expect(await form.json()).toEqual({ a: 'ü' });
    expect((await fetch(`${test.url}/none`)).status).toBe(404);
    const cookies = await fetch(`${test.url}/cookies`, { headers: { cookie: 'in=1' } });
    expect(cookies.headers.getSetCookie()).toEqual(['a=1; Path=/', 'b=2; Path=/']);
    expect(await cookies.text()).toBe('1');
    const thrown = await fetch(`${test.url}/throw`);
    expect([thrown.status, await thrown.text()]).toEqual([500, 'Internal Server Error']);
  });

  it('answers HEAD, streams and redirects', async () => {
    const test = await serve(MODULE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
    const client = await RawClient.open(test.port);
    expect((await client.ask('HEAD', '/hello/x')).status).toBe(200);
    expect((await client.ask('GET', '/stream')).body.toString()).toBe('one two');
    const redirect = await client.ask('GET', '/redirect');
    expect([redirect.status, redirect.header('location')]).toEqual([302, '/hello/x']);
    expect((await client.ask('GET', '/empty')).status).toBe(204);
    expect((await client.ask('GET', '/hello/y')).status).toBe(200);
  });

  it('sees the URL by which the client knows it', async () => {
    const test = await serve(MODULE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
    const client = await RawClient.open(test.port);
    client.send('GET /url?a=b HTTP/1.1\r\nHost: example.org:81\r\n\r\n');
    expect((await client.response()).body.toString()).toBe('http://example.org:81/url?a=b');
    expect((await client.ask('GET', '//other.org/url')).status).toBeLessThan(500);
  });
});

describe('an app of the program', () => {
  it('may be a Hono app, inline', async () => {
    const app = new Hono().get('/', (c) => c.text('hono'));
    const test = await serve(app as never, { dispatch: false });
    expect(await (await fetch(test.url)).text()).toBe('hono');
  });
});
