import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient } from './support/http-raw.js';
import { fixture, startServer, type TestServer } from './support/server.js';

const WAYS = [
  { way: 'pooled', dispatch: true },
  { way: 'inline', dispatch: false },
] as const;
const FRAMEWORKS = ['hono', 'h3', 'itty', 'express', 'koa', 'fastify'] as const;
type Framework = (typeof FRAMEWORKS)[number];
const ALL = FRAMEWORKS.flatMap((framework) => WAYS.map((way) => ({ framework, ...way })));

const JSON_TYPE = { 'content-type': 'application/json' };
const LINES = 'line 0\nline 1\nline 2\n';

/** Started in `beforeAll` of the surrounding `describe`. */
function serverOf(framework: Framework, dispatch: boolean) {
  const running: { test?: TestServer } = {};
  beforeAll(async () => {
    running.test = await startServer(fixture(`frameworks/${framework}.mjs`), { dispatch, nMin: 1, nMax: 1 });
  });
  afterAll(() => running.test?.stop());
  const test = (): TestServer => running.test as TestServer;
  const ask = (path: string, init?: RequestInit): Promise<Response> =>
    fetch(`${test().url}${path}`, { redirect: 'manual', ...init });
  return { test, ask };
}

describe.each(ALL)('an app of $framework, $way', ({ framework, dispatch }) => {
  const { test, ask } = serverOf(framework, dispatch);
  const knows = (...which: Framework[]): boolean => which.includes(framework);

  it('finds its routes, parameters and queries', async () => {
    const answer = await ask('/hello/you?q=wörld');
    const text = framework === 'itty' ? '"hello you, wörld"' : 'hello you, wörld';
    expect([answer.status, await answer.text()]).toEqual([200, text]);
  });

  it('answers for what it does not know', async () => {
    expect((await ask('/nowhere')).status).toBe(404);
    expect((await ask('/hello/you', { method: 'HEAD' })).status).toBeOneOf([200, 404]);
  });

  it('reads JSON, also if that is large', async () => {
    const value = { a: 1, text: 'ä'.repeat(10), list: Array.from({ length: 1000 }, (_, i) => i) };
    const init = { method: 'POST', headers: JSON_TYPE };
    const answer = await ask('/json', { ...init, body: JSON.stringify(value) });
    expect([answer.status, await answer.json()]).toEqual([201, { got: value }]);
    // Fastify takes no more than 1 MiB, unless it is told to.
    if (framework === 'fastify') return;
    const large = { text: 'x'.repeat(2_000_000) };
    const again = await ask('/json', { ...init, body: JSON.stringify(large) });
    expect(await again.json()).toEqual({ got: large });
  });

  it('sets several cookies, and gets its own', async () => {
    const answer = await ask('/cookies', { headers: { cookie: 'seen=yes' } });
    expect(await answer.text()).toBe(knows('itty', 'fastify') ? 'seen=yes' : 'yes');
    expect(answer.headers.getSetCookie().map((cookie) => cookie.split(';')[0])).toEqual(['a=1', 'b=2']);
  });

  it('answers with a status of its own', async () => {
    const answer = await ask('/teapot');
    expect(answer.status).toBe(418);
    expect(await answer.text()).toContain('short and stout');
    expect(test().errors).toEqual([]);
  });

  it.runIf(knows('hono', 'h3', 'itty', 'express'))('reads forms with files', async () => {
    const form = new FormData();
    form.set('name', 'wörld');
    form.set('file', new File([new Uint8Array(3_000_000)], 'a.bin'));
    const answer = await ask('/form', { method: 'POST', body: form });
    expect(await answer.json()).toEqual({ name: 'wörld', file: 'a.bin', size: 3_000_000 });
  });

  it.runIf(knows('hono', 'h3', 'express', 'koa', 'fastify'))('streams', async () => {
    expect(await (await ask('/stream')).text()).toBe(LINES);
  });

  it.runIf(knows('express', 'koa', 'fastify'))('sends files', async () => {
    const answer = await ask('/file');
    expect(answer.headers.get('content-type')).toMatch(/^text\/plain/);
    expect(await answer.text()).toBe('hello from a file\n');
  });

  it.runIf(knows('h3', 'express', 'koa', 'fastify'))('redirects', async () => {
    const answer = await ask('/redirect');
    expect([answer.status, answer.headers.get('location')]).toEqual([302, '/hello/you']);
    await answer.body?.cancel();
  });

  it.runIf(knows('hono', 'express', 'koa', 'fastify'))('answers 500 by itself for its errors', async () => {
    const answer = await ask('/throw');
    expect(answer.status).toBe(500);
    await answer.body?.cancel();
    expect(test().errors).toEqual([]);
  });

  it.runIf(knows('express', 'koa', 'fastify'))('knows who asks, and how', async () => {
    const facts = await (await ask('/facts?x')).json();
    expect(facts).toMatchObject({ ip: '127.0.0.1', protocol: 'http' });
  });

  it.runIf(knows('koa', 'fastify'))('sends a Response, and what is written past it', async () => {
    const web = await ask('/web');
    expect([web.headers.get('x-web'), await web.text()]).toEqual(['1', 'from a Response']);
    const raw = await ask(framework === 'koa' ? '/raw' : '/hijack');
    expect([raw.status, await raw.text()]).toEqual([202, 'raw']);
  });
});

describe.each(WAYS)('Express, $way', ({ dispatch }) => {
  const { test, ask } = serverOf('express', dispatch);

  it('serves files, parts of them, and 304 to who has them', async () => {
    const whole = await ask('/static/hello.txt');
    expect([whole.headers.get('content-length'), await whole.text()]).toEqual(['18', 'hello from a file\n']);
    const part = await ask('/static/hello.txt', { headers: { range: 'bytes=6-9' } });
    expect([part.status, await part.text()]).toEqual([206, 'from']);
    const etag = String(whole.headers.get('etag'));
    // Not with fetch, which asks for a fresh one when it is given a condition.
    const client = await RawClient.open(test().port);
    const same = await client.ask('GET', '/static/hello.txt', `If-None-Match: ${etag}`);
    expect([same.status, same.body.length]).toEqual([304, 0]);
    const head = await ask('/static/hello.txt', { method: 'HEAD' });
    expect([head.headers.get('content-length'), await head.text()]).toEqual(['18', '']);
    expect((await ask('/no-file')).status).toBe(404);
    const download = await ask('/download');
    expect(download.headers.get('content-disposition')).toContain("filename*=UTF-8''gr%C3%BC%C3%9Fe.txt");
  });

  it('serves a large file whole, and stops reading it for a client that goes', async () => {
    const file = readFileSync(new URL(import.meta.resolve('typescript')));
    const whole = Buffer.from(await (await ask('/static/typescript.js')).arrayBuffer());
    expect(whole.equals(file)).toBe(true);
    const tail = await ask('/static/typescript.js', { headers: { range: 'bytes=-3000000' } });
    expect(Buffer.from(await tail.arrayBuffer()).equals(file.subarray(-3_000_000))).toBe(true);
    const client = await RawClient.open(test().port);
    client.send('GET /static/typescript.js HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await client.head();
    client.reset();
    expect((await ask('/hello/you?q=1')).status).toBe(200);
    expect(test().errors).toEqual([]);
  });

  it('reads urlencoded forms, and refuses what is no JSON or too much of it', async () => {
    const form = await ask('/urlencoded', { method: 'POST', body: new URLSearchParams('a=1&b=ä') });
    expect(await form.json()).toEqual({ a: '1', b: 'ä' });
    const post = (body: string) => ask('/json', { method: 'POST', headers: JSON_TYPE, body });
    expect((await post('{"a"')).status).toBe(400);
    expect((await post(JSON.stringify('x'.repeat(6_000_000)))).status).toBe(413);
  });

  it('catches what its async handlers reject with', async () => {
    const answer = await ask('/reject');
    expect([answer.status, await answer.text()]).toEqual([500, 'caught: on purpose']);
  });

  it('sees the whole path, and the rest of it below a router', async () => {
    expect(await (await ask('/sub/path?x')).json()).toEqual(['/path?x', '/sub', '/sub/path?x']);
  });

  it('finds in req and its socket what Node has there', async () => {
    const client = await RawClient.open(test().port);
    const { body } = await client.ask('GET', '/facts', 'X-Many: a', 'X-Many: b');
    expect(JSON.parse(body.toString())).toEqual({
      ip: '127.0.0.1',
      protocol: 'http',
      secure: false,
      hostname: 'localhost',
      originalUrl: '/facts',
      fresh: false,
      encrypted: false,
      address: '127.0.0.1',
      family: 'IPv4',
      version: '1.1',
      raw: 3,
      distinct: ['a', 'b'],
    });
  });
});

describe.each(WAYS)('Hono, $way', ({ dispatch }) => {
  const { ask } = serverOf('hono', dispatch);

  it('can clone a request, and make another one out of it', async () => {
    const answer = await ask('/request', { method: 'POST', body: 'abc' });
    expect(await answer.json()).toEqual({
      instance: true,
      tag: '[object Request]',
      clone: [true, true, 'POST'],
      derived: [true, true, 'yes'],
      bodies: ['abc', 'abc'],
      used: [true, true],
      again: 'TypeError',
      more: ['default', 'follow', 'half', false],
    });
  });

  it('can read a body once, as everywhere', async () => {
    expect(await (await ask('/twice', { method: 'POST', body: 'abc' })).json()).toEqual({
      text: 'abc',
      again: 'TypeError',
      clone: 'TypeError',
      derived: 'TypeError',
      used: true,
    });
  });

  it('can send a body back while it comes', async () => {
    const body = new Uint8Array(3_000_000).fill(7);
    const answer = await ask('/back', { method: 'POST', body });
    expect(Buffer.from(await answer.arrayBuffer()).equals(body)).toBe(true);
  });

  // Inline, a request to oneself is answered on the same thread; in a worker, by the same worker.
  it('can fetch with a request of its own, and with the one it got', async () => {
    expect(await (await ask('/proxy')).text()).toMatch(/^GET proxy http:\/\/127\.0\.0\.1:\d+\/proxied$/);
    expect(await (await ask('/self')).text()).toBe('self');
  });
});
