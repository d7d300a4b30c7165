import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, WAYS } from './support/http-raw.js';
import { gate, WORK } from './support/pool-client.js';
import { fixture, serve, startServer, type TestServer, until } from './support/server.js';

interface Seen {
  method: string;
  path: string;
  query: string | null;
  headers: Record<string, string>;
  scheme: string;
  protocol: string;
  serverName: string;
  serverPort: number;
  remoteAddr: string;
  contentType: string | null;
  contentLength: number | null;
  isWebSocket: boolean;
  context: string;
  pathInfo: string;
  body: string | null;
  aborted: boolean;
}

describe.each(WAYS)('what $way sees of a request', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(fixture('http/request.mjs'), { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
    await test.server.mount(fixture('http/request.mjs'), { path: '/mounted/here', dispatch });
  });
  afterAll(() => test.stop());

  /** Send a request head as it is, and a body, and show what the handler saw. */
  async function raw(lines: string[], body = ''): Promise<Seen> {
    const client = await RawClient.open(test.port);
    client.send(`${lines.join('\r\n')}\r\n\r\n${body}`);
    const response = await client.response();
    expect(response.status).toBe(200);
    return JSON.parse(response.body.toString()) as Seen;
  }

  async function post(path: string, body: NonNullable<RequestInit['body']>, type?: string): Promise<unknown> {
    const headers = type === undefined ? {} : { 'content-type': type };
    const response = await fetch(test.url + path, { method: 'POST', body, headers });
    expect(response.status).toBe(200);
    return response.json();
  }

  it('is every field of a plain GET', async () => {
    const seen = await raw(['GET /some/path?x=1&y=2 HTTP/1.1', 'Host: example.org:8081', 'X-A: b']);
    expect(seen).toEqual({
      method: 'GET',
      path: '/some/path',
      query: 'x=1&y=2',
      headers: { host: 'example.org:8081', 'x-a': 'b' },
      scheme: 'http',
      protocol: 'HTTP/1.1',
      serverName: 'example.org',
      serverPort: 8081,
      remoteAddr: '127.0.0.1',
      contentType: null,
      contentLength: null,
      isWebSocket: false,
      context: '',
      pathInfo: '/some/path',
      body: null,
      aborted: false,
    });
  });

  it.each(['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])(
    'is the method %s, in upper case',
    async (method) => {
      const response = await fetch(`${test.url}/`, { method });
      expect(((await response.json()) as Seen).method).toBe(method);
    },
  );

  it('is the method HEAD, and the answer has the length of the body and no body', async () => {
    const client = await RawClient.open(test.port);
    const get = await client.ask('GET', '/log');
    const head = await client.ask('HEAD', '/log');
    expect(JSON.parse(get.body.toString())).toMatchObject({ method: 'GET' });
    // HEAD is one letter longer than GET, and the handler answers with the method it saw.
    expect(Number(head.header('content-length'))).toBe(get.body.length + 1);
    expect((await client.ask('GET', '/log')).status).toBe(200);
  });

  it.each(['/a%20b', '/%C3%A9', '/a//b', '/a/../b', '/%2e%2e/%2f', '/%', '/~a;p=1,2!$&', '/[]|^`{}'])(
    'is the path %s as the client wrote it',
    async (path) => {
      expect(await raw([`GET ${path} HTTP/1.1`, 'Host: h'])).toMatchObject({
        path,
        pathInfo: path,
        query: null,
      });
    },
  );

  it.each([
    ['/a', null],
    ['/a?', ''],
    ['/a?b', 'b'],
    ['/a?b=%20+c', 'b=%20+c'],
    ['/a??b', '?b'],
    ['/a?b?c', 'b?c'],
  ])('is the query of %s: %j', async (target, query) => {
    expect(await raw([`GET ${target} HTTP/1.1`, 'Host: h'])).toMatchObject({ path: '/a', query });
  });

  it('is header names in lower case and values without the white space around them', async () => {
    const seen = await raw(['GET / HTTP/1.1', 'HOST: h', 'X-MiXeD:  a b \t', 'X-Empty:', 'x-nospace:v']);
    expect(seen.headers).toEqual({ host: 'h', 'x-mixed': 'a b', 'x-empty': '', 'x-nospace': 'v' });
  });

  it('is one value for a header that came twice: a list, and for cookies a cookie string', async () => {
    const seen = await raw([
      'GET / HTTP/1.1',
      'Host: h',
      'X-A: 1',
      'Cookie: a=1',
      'x-a: 2, 3',
      'cookie: b=2',
      'X-A:',
    ]);
    expect(seen.headers).toEqual({ host: 'h', 'x-a': '1, 2, 3, ', cookie: 'a=1; b=2' });
  });

  it('is a header named __proto__ or constructor like any other', async () => {
    const client = await RawClient.open(test.port);
    const response = await client.ask('GET', '/prototype', 'constructor: c', 'hasownproperty: h');
    expect(JSON.parse(response.body.toString())).toEqual({ prototype: null, polluted: null });
    expect((await raw(['GET / HTTP/1.1', 'Host: h', 'constructor: c'])).headers).toEqual({
      host: 'h',
      constructor: 'c',
    });
  });

  it.each([
    ['h', 'h', 80],
    ['h:8080', 'h', 8080],
    ['h:', 'h', 80],
    ['127.0.0.1', '127.0.0.1', 80],
    ['127.0.0.1:1', '127.0.0.1', 1],
    ['[::1]', '[::1]', 80],
    ['[::1]:65535', '[::1]', 65535],
    ['Ex-ample.ORG:443', 'Ex-ample.ORG', 443],
  ])('is serverName and serverPort of Host: %s', async (host, serverName, serverPort) => {
    expect(await raw(['GET / HTTP/1.1', `Host: ${host}`])).toMatchObject({ serverName, serverPort });
  });

  it('is the address of each client, also on a connection that asks many times', async () => {
    const client = await RawClient.open(test.port);
    for (let i = 0; i < 5; i++) {
      const seen = JSON.parse((await client.ask('GET', '/')).body.toString()) as Seen;
      expect(seen.remoteAddr).toBe('127.0.0.1');
    }
  });

  it('is not the address a client claims to have', async () => {
    const seen = await raw([
      'GET / HTTP/1.1',
      'Host: h',
      'X-Forwarded-For: 1.2.3.4',
      'Forwarded: for=1.2.3.4',
    ]);
    expect(seen.remoteAddr).toBe('127.0.0.1');
  });

  it('is contentType with its parameters and contentLength of the bytes that came', async () => {
    const lines = [
      'POST / HTTP/1.1',
      'Host: h',
      'Content-Type: text/plain; charset="UTF-8"',
      'Content-Length: 5',
    ];
    expect(await raw(lines, 'hello')).toMatchObject({
      contentType: 'text/plain; charset="UTF-8"',
      contentLength: 5,
      body: '[object ReadableStream]',
    });
  });

  it('is contentLength of a chunked body too, and no sign of the chunks', async () => {
    const seen = await raw(
      ['POST / HTTP/1.1', 'Host: h', 'Transfer-Encoding: chunked'],
      '3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n',
    );
    expect(seen).toMatchObject({ contentLength: 5, body: '[object ReadableStream]' });
  });

  it.each([
    ['without a body', ['GET / HTTP/1.1', 'Host: h'], ''],
    ['with Content-Length: 0', ['POST / HTTP/1.1', 'Host: h', 'Content-Length: 0'], ''],
    ['with an empty chunked body', ['POST / HTTP/1.1', 'Host: h', 'Transfer-Encoding: chunked'], '0\r\n\r\n'],
  ])('is a null body and a null contentLength for a request %s', async (_, lines, body) => {
    expect(await raw(lines, body)).toMatchObject({ body: null, contentLength: null });
  });

  it.each([
    [['Upgrade: websocket', 'Connection: Upgrade'], true],
    [['Upgrade: foo, WebSocket', 'Connection: Upgrade'], true],
    [['Upgrade: h2c', 'Connection: Upgrade'], false],
    [['Connection: Upgrade'], false],
  ])('is isWebSocket of %j: %s', async (headers, isWebSocket) => {
    expect(await raw(['GET / HTTP/1.1', 'Host: h', ...headers])).toMatchObject({ isWebSocket });
  });

  it.each([
    ['/mounted/here', '/mounted/here', '/'],
    ['/mounted/here/', '/mounted/here', '/'],
    ['/mounted/here/a%2Fb/c?q', '/mounted/here', '/a%2Fb/c'],
    ['/mounted/hereafter', '', '/mounted/hereafter'],
    ['/mounted', '', '/mounted'],
    ['/', '', '/'],
  ])('is context and pathInfo of %s', async (target, context, pathInfo) => {
    const path = target.split('?')[0];
    expect(await raw([`GET ${target} HTTP/1.1`, 'Host: h'])).toMatchObject({ path, context, pathInfo });
  });

  it('is a body as text, bytes, JSON and a stream', async () => {
    const text = 'grüße €𝄞\u0000';
    expect(await post('/text', text)).toEqual({ text });
    expect(await post('/stream', text)).toEqual({ text });
    expect(await post('/json', JSON.stringify({ text, list: [1, null] }))).toEqual({
      json: { text, list: [1, null] },
    });
    const bytes = await fetch(`${test.url}/bytes`, { method: 'POST', body: Buffer.from([0, 255, 128]) });
    expect([...new Uint8Array(await bytes.arrayBuffer())]).toEqual([0, 255, 128]);
  });

  it.each([1, 4095, 4096, 4097, 200_000, 3_000_000])(
    'is a body of %i bytes, byte for byte, in memory of its own',
    async (size) => {
      const body = Buffer.alloc(size);
      for (let i = 0; i < size; i++) body[i] = (i * 31) & 255;
      const response = await fetch(`${test.url}/bytes`, { method: 'POST', body });
      expect(Buffer.from(await response.arrayBuffer()).equals(body)).toBe(true);
      expect(response.headers.get('x-class')).toBe('Uint8Array');
      expect(response.headers.get('x-shared')).toBe('false');
    },
  );

  it('is an urlencoded form', async () => {
    const form = new URLSearchParams([
      ['a', '1'],
      ['a', 'ü &='],
      ['empty', ''],
    ]);
    expect(await post('/form', form)).toEqual({ entries: [...form] });
  });

  it('is a multipart form with files', async () => {
    const form = new FormData();
    form.append('field', 'välue');
    form.append('upload', new Blob(['content\r\n--x'], { type: 'text/plain' }), 'näme.txt');
    expect(await post('/form', form)).toEqual({
      entries: [
        ['field', 'välue'],
        ['upload', { file: 'näme.txt', type: 'text/plain', text: 'content\r\n--x' }],
      ],
    });
  });

  it('is the same body each time it is read, in every form', async () => {
    const body = JSON.stringify({ a: 'b'.repeat(5000) });
    expect(await post('/twice', body)).toEqual({
      same: true,
      text: [body, body],
      json: JSON.parse(body) as unknown,
      stream: [body, body],
      textAfterStream: body,
    });
  });

  it('is still there when a consumer has transferred its stream away', async () => {
    const body = 'x'.repeat(10_000);
    expect(await post('/transferred', body)).toEqual({ text: body });
  });

  it('is empty text, empty bytes and a null stream without a body', async () => {
    expect(await (await fetch(`${test.url}/text`)).json()).toEqual({ text: '' });
    expect(await (await fetch(`${test.url}/stream`)).json()).toEqual({ text: null });
    expect((await (await fetch(`${test.url}/bytes`)).arrayBuffer()).byteLength).toBe(0);
  });

  it.each(['', '{', 'nope', '{"a":1}}'])(
    'is no JSON in %j: uncaught that is a 400 and no error in the log',
    async (body) => {
      test.errors.length = 0;
      const response = await fetch(`${test.url}/json`, { method: 'POST', body });
      expect(response.status).toBe(400);
      expect(await response.text()).toBe('Bad Request');
      expect(test.errors).toEqual([]);
    },
  );

  it('is no JSON that a handler can catch', async () => {
    expect(await post('/json-caught', 'nope')).toEqual({
      caught: 'OFFLOOP_BAD_REQUEST',
      name: 'BadRequestError',
      status: 400,
    });
  });

  it.each(['multipart/form-data; boundary=x', 'multipart/form-data', 'text/plain', undefined])(
    'is no form in a body of type %s: uncaught that is a 400',
    async (type) => {
      const headers = type === undefined ? {} : { 'content-type': type };
      const response = await fetch(`${test.url}/form`, {
        method: 'POST',
        body: Buffer.from('nope'),
        headers,
      });
      expect(response.status).toBe(400);
    },
  );

  it('can be handed on with a field changed', async () => {
    const client = await RawClient.open(test.port);
    const response = await client.ask('GET', '/derived', 'X-A: b');
    expect(JSON.parse(response.body.toString())).toEqual({ path: '/changed', method: 'GET', header: 'b' });
  });

  it('prints as JSON with everything but the body', async () => {
    const seen = JSON.parse(await (await fetch(`${test.url}/log?x`)).text()) as Seen;
    expect(seen).toMatchObject({ method: 'GET', path: '/log', query: 'x', remoteAddr: '127.0.0.1' });
    expect(seen).not.toHaveProperty('body');
  });

  it('does not depend on where the packets of a chunked body are cut', async () => {
    const head = 'POST /text HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n';
    const wire = `${head}4\r\nwiki\r\n6\r\npedia \r\nA\r\n0123456789\r\n0\r\n\r\n`;
    const cuts = async (at: number): Promise<string> => {
      const client = await RawClient.open(test.port);
      client.send(wire.slice(0, at));
      await new Promise((resolve) => setImmediate(resolve));
      client.send(wire.slice(at));
      const response = await client.response();
      client.socket.destroy();
      return (JSON.parse(response.body.toString()) as { text: string }).text;
    };
    const all = await Promise.all(Array.from({ length: wire.length - 1 }, (_, i) => cuts(i + 1)));
    expect(new Set(all)).toEqual(new Set(['wikipedia 0123456789']));
  });

  it('does not depend on packets: one byte each will do, for head and body', async () => {
    const wire = 'POST /text?q HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello';
    const client = await RawClient.open(test.port);
    for (const byte of wire) {
      client.send(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(JSON.parse((await client.response()).body.toString())).toEqual({ text: 'hello' });
  });
});

describe('how long a request has waited', () => {
  const FIELDS = fixture('http/request.mjs');

  it('is nothing inline', async () => {
    const test = await serve(FIELDS, { dispatch: false });
    expect(await (await fetch(`${test.url}/queue-time`)).json()).toBe(0);
  });

  it('is what it waited for a thread, in the queue or in a batch', async () => {
    const test = await serve(FIELDS, { nMin: 1, nMax: 1 });
    await test.server.mount(WORK, { path: '/work' });
    const { path, open } = gate();
    const blocked = fetch(`${test.url}/work?block=${path}`);
    await until(() => test.server.stats().pool?.running === 1, 'the worker is taken');
    const sent = performance.now();
    const later = fetch(`${test.url}/queue-time`);
    await until(() => test.server.stats().pool?.queued === 1, 'the other waits');
    const queued = performance.now();
    await until(() => performance.now() - queued > 60, 'it has waited');
    open();
    await blocked;
    const waited = await (await later).json();
    expect(waited).toBeGreaterThanOrEqual(59);
    expect(waited).toBeLessThanOrEqual(performance.now() - sent + 1);
  });
});
