import { Hono } from 'hono';
import { asChannel, file, json, publish, redirect } from 'offloop/handlers';
import { params } from 'offloop/middleware';
import { inject } from 'offloop/testing';
import { describe, expect, it } from 'vitest';
import { fixture, until } from './support/server.js';

describe('inject', () => {
  it('gives the handler the request as a server would', async () => {
    const response = await inject(
      async (req) => json({ ...(req as unknown as { toJSON(): object }).toJSON(), text: await req.text() }),
      {
        url: '/api/a%20b?x=%31',
        method: 'put',
        headers: { 'X-One': '1' },
        body: 'héllo',
        context: '/api',
        remoteAddr: '10.1.2.3',
      },
    );
    expect(await response.json()).toMatchObject({
      method: 'PUT',
      path: '/api/a%20b',
      query: 'x=%31',
      scheme: 'http',
      serverName: 'localhost',
      serverPort: 80,
      remoteAddr: '10.1.2.3',
      context: '/api',
      pathInfo: '/a%20b',
      headers: { 'x-one': '1', host: 'localhost', 'content-length': '6' },
      contentLength: 6,
      text: 'héllo',
    });
  });

  it('takes a path, a URL, a Request, JSON and forms', async () => {
    const seen = (req: { serverName: string; path: string; query: string | null }) =>
      json([req.serverName, req.path, req.query]);
    expect(await (await inject(seen, '/a?')).json()).toEqual(['localhost', '/a', '']);
    expect(await (await inject(seen, new URL('https://x.org/b?c'))).json()).toEqual(['x.org', '/b', 'c']);
    expect(await (await inject(seen, new Request('http://y.org/'))).json()).toEqual(['y.org', '/', null]);
    expect(await (await inject(seen)).json()).toEqual(['localhost', '/', null]);
    const echo = await inject(async (req) => json([req.method, req.contentType, await req.json()]), {
      json: { a: 1 },
    });
    expect(await echo.json()).toEqual(['POST', 'application/json', { a: 1 }]);
    const form = new FormData();
    form.set('name', 'ann');
    const named = await inject(async (req) => ({ body: String((await req.formData()).get('name')) }), {
      body: form,
    });
    expect(await named.text()).toBe('ann');
  });

  it('answers as a server does: headers, length, cookies, HEAD, 204, nothing', async () => {
    const response = await inject(() => ({
      status: 201,
      headers: { 'Set-Cookie': ['a=1', 'b=2'], 'content-length': '99', connection: 'close' },
      body: 'héllo',
    }));
    expect(response.status).toBe(201);
    expect(response.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
    expect(response.headers.get('content-length')).toBe('6');
    expect(response.headers.get('connection')).toBe('close');
    expect(await response.text()).toBe('héllo');

    const head = await inject(() => ({ body: 'hello' }), { method: 'HEAD' });
    expect([head.headers.get('content-length'), await head.text()]).toEqual(['5', '']);
    const none = await inject(() => ({ status: 204, body: 'x' }));
    expect([none.status, none.headers.get('content-length'), none.body]).toEqual([204, null, null]);
    expect((await inject(() => undefined)).status).toBe(404);
    expect((await inject(() => redirect('/there'))).headers.get('location')).toBe('/there');
  });

  it('runs modules, objects with fetch, and middleware', async () => {
    expect(await (await inject(await import(fixture('../../examples/hello/handler.js')), '/x')).text()).toBe(
      'Hello from /x\n',
    );
    const app = new Hono().get('/hi/:name', (c) => c.text(`hi ${c.req.param('name')}`));
    expect(await (await inject(app, '/hi/bob')).text()).toBe('hi bob');
    const wrapped = params()((req) => json(req.params));
    expect(await (await inject(wrapped, '/?a=1')).json()).toEqual({ a: '1' });
  });

  it('serves files, with ranges', async () => {
    const path = fixture('pool/typed.ts');
    const response = await inject(() => ({ body: file(path) }), { headers: { range: 'bytes=0-3' } });
    expect(response.status).toBe(206);
    expect(response.headers.get('content-length')).toBe('4');
    expect((await response.arrayBuffer()).byteLength).toBe(4);
  });

  it('reads a long body as the response is read, and lets go of it when nobody does', async () => {
    let made = 0;
    let over = false;
    async function* rows(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) {
          made++;
          yield new Uint8Array(32 * 1024).fill(made);
          await new Promise((resolve) => setImmediate(resolve));
        }
      } finally {
        over = true;
      }
    }
    const response = await inject(() => ({ body: rows() }));
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    let bytes = 0;
    while (bytes < 1024 * 1024) bytes += (await reader.read()).value?.byteLength ?? 0;
    expect(made).toBeLessThan((bytes + 512 * 1024) / (32 * 1024));
    await reader.cancel();
    await until(() => over, 'the source has been let go of');
  });

  it('fails the reading of a body whose source fails', async () => {
    async function* rows(): AsyncGenerator<string> {
      yield 'x'.repeat(100_000);
      throw new RangeError('row 2');
    }
    const response = await inject(() => ({ body: rows() }));
    expect(response.status).toBe(200);
    await expect(response.text()).rejects.toThrow('row 2');
  });

  it('rejects with what the handler throws, and with what is wrong with its answer', async () => {
    await expect(
      inject(() => {
        throw new RangeError('sync');
      }),
    ).rejects.toThrow(RangeError);
    await expect(
      inject(async () => {
        throw new RangeError('async');
      }),
    ).rejects.toThrow('async');
    await expect(inject(() => ({ status: 99 }))).rejects.toMatchObject({ code: 'OFFLOOP_BAD_RESPONSE' });
    await expect(inject({} as never)).rejects.toMatchObject({ code: 'OFFLOOP_NO_HANDLER' });
    await expect(inject(() => null, { url: '/a b' })).rejects.toThrow('"/a b" is no request target');
    await expect(inject(() => null, { url: '/apiary', context: '/api' })).rejects.toThrow('below "/api/"');
  });

  it('answers 400 for what is the client’s fault', async () => {
    expect((await inject(async (req) => json(await req.json()), { body: '{' })).status).toBe(400);
  });

  it('is a client that goes away when its signal aborts', async () => {
    const client = new AbortController();
    const seen: unknown[] = [];
    const waiting = inject(
      (req) =>
        new Promise((resolve) => {
          req.signal.addEventListener('abort', () => {
            seen.push(req.signal.reason);
            resolve(null);
          });
          client.abort(new Error('bored'));
        }),
      { signal: client.signal },
    );
    await expect(waiting).rejects.toThrow('bored');
    expect(seen).toMatchObject([{ code: 'OFFLOOP_ABORTED' }]);
    await expect(inject(() => null, { signal: client.signal })).rejects.toThrow('bored');
  });

  it('refuses channels, and says where to test them', async () => {
    await expect(inject((req) => asChannel(req))).rejects.toMatchObject({
      code: 'OFFLOOP_BAD_CHANNEL',
      message: expect.stringContaining('createTestServer'),
    });
  });

  it('lets handlers publish, to nobody', async () => {
    const response = await inject(() => {
      publish('news', 'x');
      return { status: 202 };
    });
    expect(response.status).toBe(202);
  });
});
