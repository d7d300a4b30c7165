import type { ReadableStream } from 'node:stream/web';
import { describe, expect, it } from 'vitest';
import { OffloopError } from '../src/errors.js';
import { invoke } from '../src/handlers/invoke.js';
import { clientGone } from '../src/handlers/reasons.js';
import { BadRequestError, RingRequest } from '../src/handlers/request.js';
import { ASK_ADDRESS } from '../src/protocol.js';

interface Parts {
  method?: string;
  path?: string;
  query?: string;
  address?: string;
  scheme?: string;
  context?: string;
  headers?: [string, string][];
  body?: Uint8Array | string | null;
}

let asked = 0;

/** A request as it comes over a lane. */
function request(parts: Parts = {}): RingRequest {
  const {
    method = 'GET',
    path = '/',
    query = '',
    address = '10.0.0.1',
    scheme = 'http',
    context = '',
  } = parts;
  const headers = (parts.headers ?? []).flat();
  const head = [method, path, query, address, scheme, context, ...headers].join('\n');
  const body = typeof parts.body === 'string' ? new TextEncoder().encode(parts.body) : (parts.body ?? null);
  return new RingRequest({
    isHead: method === 'HEAD',
    head,
    body,
    addressOf: () => {
      asked++;
      return '10.9.8.7';
    },
  });
}

const shared = (text: string): Uint8Array => {
  const bytes = new TextEncoder().encode(text);
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
};

describe('the head of a request', () => {
  it('is what the client sent, not decoded', () => {
    const req = request({ method: 'PATCH', path: '/a%20b', query: '?x=%31&y', scheme: 'https' });
    expect(req).toMatchObject({
      method: 'PATCH',
      path: '/a%20b',
      query: 'x=%31&y',
      scheme: 'https',
      protocol: 'HTTP/1.1',
    });
  });

  it('tells an empty query from none', () => {
    expect(request({ query: '' }).query).toBeNull();
    expect(request({ query: '?' }).query).toBe('');
    expect(request({ query: '??' }).query).toBe('?');
  });

  it.each([
    ['', '/a/b', '/a/b'],
    ['/a', '/a/b', '/b'],
    ['/a', '/a', '/'],
    ['/a', '/a/', '/'],
  ])('splits the path behind the mount %j: %s', (context, path, pathInfo) => {
    expect(request({ context, path })).toMatchObject({ context, path, pathInfo });
  });

  it('asks for the address of the peer only when it is wanted, and once', () => {
    asked = 0;
    const req = request({ address: ASK_ADDRESS });
    expect(req.method).toBe('GET');
    expect(asked).toBe(0);
    expect(req.remoteAddr).toBe('10.9.8.7');
    expect(req.remoteAddr).toBe('10.9.8.7');
    expect(asked).toBe(1);
    expect(request({ address: '::1' }).remoteAddr).toBe('::1');
    expect(request({ address: '' }).remoteAddr).toBe('');
    expect(asked).toBe(1);
  });
});

describe('the headers of a request', () => {
  it('join what is repeated with a comma, cookies with a semicolon', () => {
    const { headers } = request({
      headers: [
        ['accept', 'a'],
        ['cookie', 'x=1'],
        ['accept', 'b'],
        ['cookie', 'y=2'],
      ],
    });
    expect({ ...headers }).toEqual({ accept: 'a, b', cookie: 'x=1; y=2' });
  });

  it('are the same object each time', () => {
    const req = request({ headers: [['a', 'b']] });
    expect(req.headers).toBe(req.headers);
  });

  it('have no prototype, so that no name is there that was not sent', () => {
    const { headers } = request({
      headers: [
        ['__proto__', 'x'],
        ['constructor', 'y'],
      ],
    });
    expect(headers['toString']).toBeUndefined();
    expect(Object.entries(headers)).toContainEqual(['__proto__', 'x']);
    expect(headers['constructor']).toBe('y');
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
  });

  it('may be empty in value', () => {
    expect(request({ headers: [['a', '']] }).headers['a']).toBe('');
  });

  it.each([
    ['a.test', 'http', 'a.test', 80],
    ['a.test', 'https', 'a.test', 443],
    ['a.test:8080', 'http', 'a.test', 8080],
    ['[::1]', 'http', '[::1]', 80],
    ['[::1]:81', 'http', '[::1]', 81],
    ['a.test:', 'http', 'a.test', 80],
    ['', 'http', '', 80],
  ])('name the server: %j over %s', (host, scheme, serverName, serverPort) => {
    expect(request({ scheme, headers: [['host', host]] })).toMatchObject({ serverName, serverPort });
  });

  it('name the type of the body', () => {
    expect(request().contentType).toBeNull();
    expect(request({ headers: [['content-type', 'a/b']] }).contentType).toBe('a/b');
  });

  it.each([
    ['websocket', true],
    ['WebSocket', true],
    ['h2c, websocket', true],
    ['websockets', false],
    ['h2c', false],
  ])('tell whether an upgrade to WebSocket is asked for: %s', (upgrade, is) => {
    expect(request({ headers: [['upgrade', upgrade]] }).isWebSocket).toBe(is);
    expect(request().isWebSocket).toBe(false);
  });
});

describe.each([
  ['memory of its own', (text: string) => new TextEncoder().encode(text)],
  ['shared memory', shared],
])('a body in %s', (_, make) => {
  it('can be read in every way, again and again', async () => {
    const req = request({ method: 'POST', body: make('{"grüße":1}') });
    expect(await req.text()).toBe('{"grüße":1}');
    expect(await req.json()).toEqual({ grüße: 1 });
    expect(Buffer.from(await req.bytes()).toString()).toBe('{"grüße":1}');
    expect(await new Response(req.body as ReadableStream).text()).toBe('{"grüße":1}');
    expect(await new Response(req.body as ReadableStream).text()).toBe('{"grüße":1}');
    expect(req.contentLength).toBe(13);
  });

  it('is the same array each time, in memory that may be handed on', async () => {
    const req = request({ method: 'POST', body: make('abc') });
    const bytes = await req.bytes();
    expect(await req.bytes()).toBe(bytes);
    expect(bytes.buffer).toBeInstanceOf(ArrayBuffer);
  });

  it('may be a form', async () => {
    const type: [string, string] = ['content-type', 'application/x-www-form-urlencoded'];
    const form = await request({ method: 'POST', headers: [type], body: make('a=1&b=gr%C3%BC') }).formData();
    expect([...form.entries()]).toEqual([
      ['a', '1'],
      ['b', 'grü'],
    ]);
  });

  it('may be a form of several parts', async () => {
    const parts =
      '--XX\r\ncontent-disposition: form-data; name="f"; filename="a.txt"\r\ncontent-type: text/plain\r\n\r\nhi\r\n--XX--\r\n';
    const type: [string, string] = ['content-type', 'multipart/form-data; boundary=XX'];
    const form = await request({ method: 'POST', headers: [type], body: make(parts) }).formData();
    expect(await (form.get('f') as File).text()).toBe('hi');
  });
});

describe('a request without a body', () => {
  it('reads as nothing', async () => {
    const req = request();
    expect(req.body).toBeNull();
    expect(req.contentLength).toBeNull();
    expect(await req.text()).toBe('');
    expect((await req.bytes()).byteLength).toBe(0);
  });

  it('is no JSON and no form', async () => {
    await expect(request().json()).rejects.toBeInstanceOf(BadRequestError);
    await expect(request().formData()).rejects.toBeInstanceOf(BadRequestError);
  });
});

describe('a body that is not what the handler wants', () => {
  it('rejects with an error that says so and is answered 400', async () => {
    const error: unknown = await request({ method: 'POST', body: '{' })
      .json()
      .catch((e: unknown) => e);
    expect(error).toBeInstanceOf(BadRequestError);
    expect(error).toBeInstanceOf(OffloopError);
    expect(error).toMatchObject({ code: 'OFFLOOP_BAD_REQUEST', status: 400, cause: expect.any(SyntaxError) });
    await expect(request({ method: 'POST', body: 'a' }).formData()).rejects.toMatchObject({
      code: 'OFFLOOP_BAD_REQUEST',
    });
  });

  it('keeps what cannot be UTF-8 as replacement characters', async () => {
    expect(await request({ method: 'POST', body: Uint8Array.of(0xff, 0x61) }).text()).toBe('\ufffda');
  });
});

describe('the signal of a request', () => {
  it('fires once when the client goes away, with a reason', () => {
    const req = request();
    let fired = 0;
    req.signal.addEventListener('abort', () => fired++);
    expect(req.signal.aborted).toBe(false);
    req._abort(clientGone());
    req._abort(new Error('again'));
    expect(fired).toBe(1);
    expect(req.signal.reason).toMatchObject({ code: 'OFFLOOP_ABORTED' });
    expect(req.signal).toBe(req.signal);
  });

  it('has fired already for who asks late', () => {
    const req = request();
    req._abort(clientGone());
    expect(req.signal.aborted).toBe(true);
  });
});

describe('a request handed on by a middleware', () => {
  it('may be changed with Object.create and keeps all the rest', async () => {
    const req = request({ method: 'POST', path: '/a', body: '{"a":1}', headers: [['x', 'y']] });
    const changed = Object.create(req, { path: { value: '/b' } }) as RingRequest;
    expect(changed.path).toBe('/b');
    expect(changed.method).toBe('POST');
    expect(changed.headers['x']).toBe('y');
    expect(await changed.json()).toEqual({ a: 1 });
    // One client, one signal: whoever asked first.
    const inner = changed.signal;
    req._abort(clientGone());
    expect(inner.aborted).toBe(true);
  });

  it('shows all but its body as JSON', () => {
    const shown = JSON.parse(
      JSON.stringify(request({ path: '/a', query: '?b', headers: [['host', 'c.test:9']] })),
    ) as object;
    expect(shown).toMatchObject({
      method: 'GET',
      path: '/a',
      query: 'b',
      serverName: 'c.test',
      serverPort: 9,
    });
    expect(shown).not.toHaveProperty('body');
  });
});

describe('calling a handler', () => {
  it('answers at once when it does, and later when it promises to', async () => {
    expect(invoke(() => ({ body: 'x' }), request())).toMatchObject({ payload: 'x' });
    const later = invoke(async () => ({ body: 'x' }), request());
    expect(later).toBeInstanceOf(Promise);
    expect(await later).toMatchObject({ payload: 'x' });
  });

  it('takes anything with a then for a promise', async () => {
    // biome-ignore lint/suspicious/noThenProperty: that is what is tested
    const thenable = { then: (resolve: (value: unknown) => void) => resolve({ body: 'x' }) };
    expect(await invoke(() => thenable as never, request())).toMatchObject({ payload: 'x' });
  });
});
