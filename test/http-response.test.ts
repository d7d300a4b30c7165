import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, type RawResponse, WAYS } from './support/http-raw.js';
import { fixture, startServer, type TestServer, until } from './support/server.js';

const MODULE = fixture('http/response.mjs');

/** Path of a response that the client makes up. */
const say = (response: unknown): string => `/say?${encodeURIComponent(JSON.stringify(response))}`;

/** As `pattern` in the fixture. */
function pattern(size: number): Buffer {
  const all = Buffer.alloc(size);
  for (let i = 0; i < size; i += 4096) all.writeUInt32LE((i * 2654435761) >>> 0, Math.min(i, size - 4));
  return all;
}
const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const BODIES: Record<string, { body: string | number[]; type?: string; length?: false; chunked?: true }> = {
  string: { body: 'grüße €𝄞' },
  'empty-string': { body: '' },
  null: { body: '' },
  undefined: { body: '' },
  'lone-surrogate': { body: 'a\ufffdb' },
  'pool-slice': { body: 'from the pool' },
  'buffer-slice': { body: 'slice' },
  'empty-buffer': { body: '' },
  uint8: { body: [0, 1, 254, 255] },
  subarray: { body: [1, 2] },
  uint16: { body: [1, 2, 3, 4] },
  'uint16-subarray': { body: [1, 2, 3, 4] },
  dataview: { body: [1, 2, 3] },
  float64: { body: [0, 0, 0, 0, 0, 0, 240, 63] },
  arraybuffer: { body: [1, 2, 3] },
  'shared-view': { body: [3, 4, 5] },
  'shared-buffer-view': { body: [2, 3, 4, 5] },
  blob: { body: 'blöb', type: 'text/x-blob' },
  'blob-untyped': { body: 'blob' },
  'file-object': { body: 'file', type: 'text/x-file' },
  file: { body: 'hello from a file\n', type: 'text/plain; charset=utf-8' },
  'file-typed': { body: 'hello from a file\n', type: 'text/x-mine' },
  'file-unknown': { body: [1, 2, 3], type: 'application/octet-stream' },
  'file-empty': { body: '', type: 'text/plain; charset=utf-8' },
  // Streams and iterables are not read for HEAD, so nobody knows how long they are.
  'web-stream': { body: [1, 2, 3], length: false },
  'web-stream-text': { body: 'äb', length: false },
  'web-stream-empty': { body: '', length: false },
  'web-stream-buffers': { body: [1, 2, 3, 4], length: false },
  readable: { body: 'node stream', length: false },
  'readable-strings': { body: 'strïngs', length: false },
  array: { body: 'abc', length: false },
  'array-empty': { body: '', length: false },
  set: { body: 'xy', length: false },
  generator: { body: 'one two', length: false },
  'async-generator': { body: 'one two', length: false },
  'async-generator-slow': { body: 'one two', length: false, chunked: true },
};

const FAILING = [
  'generator-throws',
  'async-generator-throws',
  'web-stream-errors',
  'readable-errors',
  'bad-chunk-sync',
  'bad-chunk-async',
  'bad-chunk-null',
  'body-number',
  'body-zero',
  'body-boolean',
  'body-bigint',
  'body-symbol',
  'body-function',
  'body-object',
  'body-date',
  'body-promise',
  'body-shared-buffer',
  'body-response',
];

const BAD_VALUES = [
  'string',
  'number',
  'zero',
  'true',
  'false',
  'bigint',
  'symbol',
  'function',
  'array',
  'proxy',
  'headers-string',
  'headers-number',
  'headers-proxy',
  'headers-object-value',
  'headers-boolean-value',
  'web-error',
  'web-used',
  'web-locked',
  'json-undefined',
  'json-cycle',
];

const EMPTY_GET = { status: 200, text: '' };
const VALUES: Record<string, { status: number; text: string; headers?: Record<string, string | string[]> }> =
  {
    nothing: { status: 404, text: '' },
    null: { status: 404, text: '' },
    empty: EMPTY_GET,
    'no-prototype': { status: 201, text: 'bare' },
    frozen: { status: 202, text: 'frozen', headers: { 'x-a': 'b' } },
    instance: { status: 203, text: 'instance' },
    'headers-nested-arrays': { ...EMPTY_GET, headers: { 'x-a': ['1', '2', '3'] } },
    'headers-nan': { ...EMPTY_GET, headers: { 'x-a': 'NaN' } },
    'headers-instance': { status: 200, text: 'x', headers: { 'x-a': '1, 2' } },
    'headers-map': { status: 200, text: 'x', headers: { 'x-a': '1', 'x-b': ['2', '3'] } },
    'web-response': {
      status: 201,
      text: 'wëb',
      headers: { 'x-web': 'yes', 'content-type': 'text/plain;charset=UTF-8' },
    },
    'web-cookies': {
      status: 200,
      text: 'cookies',
      headers: {
        'set-cookie': ['a=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT', 'b=2'],
        'x-list': '1, 2',
        'content-type': 'text/plain',
      },
    },
    'web-empty': { status: 204, text: '' },
    'web-null-200': EMPTY_GET,
    'web-json': { status: 200, text: '{"a":1}', headers: { 'content-type': 'application/json' } },
    'web-redirect': { status: 303, text: '', headers: { location: 'http://example.org/next' } },
    'web-stream': { status: 200, text: 'hi' },
    json: {
      status: 201,
      text: '{"a":"ü"}',
      headers: { 'content-type': 'application/json; charset=utf-8', 'x-a': 'b' },
    },
    'json-typed': { status: 200, text: '[]', headers: { 'content-type': 'application/problem+json' } },
    'json-typed-case': { status: 200, text: '[]', headers: { 'content-type': 'application/problem+json' } },
    text: { status: 200, text: 'tëxt', headers: { 'content-type': 'text/plain; charset=utf-8' } },
    html: { status: 200, text: '<p>html', headers: { 'content-type': 'text/html; charset=utf-8' } },
    redirect: { status: 302, text: '', headers: { location: '/next?a=b' } },
    'redirect-308': { status: 308, text: '', headers: { location: 'http://example.org/x' } },
  };

/** What holds for every answer of the server, whatever the handler did. */
function expectSound(response: RawResponse): void {
  expect(response.all('date')).toHaveLength(1);
  expect(Date.parse(response.header('date') as string)).not.toBeNaN();
  expect(response.all('server')).toHaveLength(1);
  expect(response.all('content-length').length).toBeLessThanOrEqual(1);
  expect(
    response.all('content-length').length + response.all('transfer-encoding').length,
  ).toBeLessThanOrEqual(1);
  expect(response.headText).not.toMatch(/uwebsockets/i);
}

const expectFailure = (response: RawResponse): void => {
  expect(response.status).toBe(500);
  expect(response.body.toString()).toBe('Internal Server Error');
  expect(response.header('content-type')).toBe('text/plain; charset=utf-8');
  expectSound(response);
};

describe.each(
  WAYS.flatMap((way) => [
    { ...way, how: 'at once', prefix: '' },
    { ...way, how: 'with a promise', prefix: '/async' },
  ]),
)('what $way answers $how', ({ dispatch, prefix }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(MODULE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
  });
  afterAll(() => test.stop());

  const open = (): Promise<RawClient> => RawClient.open(test.port);
  const get = async (path: string): Promise<RawResponse> => (await open()).ask('GET', prefix + path);

  it.each(Object.entries(BODIES))(
    'is a body made as %s, with its true length if that is known in time',
    async (name, { body, type, chunked }) => {
      const client = await open();
      const response = await client.ask('GET', `${prefix}/body/${name}`);
      const expected = typeof body === 'string' ? Buffer.from(body) : Buffer.from(body);
      expect(response.status).toBe(200);
      expect(response.body.toString('hex')).toBe(expected.toString('hex'));
      expect(response.header('content-length')).toBe(chunked ? undefined : String(expected.length));
      expect(response.header('transfer-encoding')).toBe(chunked ? 'chunked' : undefined);
      expect(response.header('content-type')).toBe(type);
      expectSound(response);
      // Nothing is left over on the connection, and it is good for another request.
      expect((await client.ask('GET', `${prefix}/body/string`)).status).toBe(200);
      expect(client.rest).toBe('');
    },
  );

  it.each(Object.entries(BODIES))(
    'is to HEAD the same head and not a byte of a body made as %s',
    async (name, { body, type, length }) => {
      const client = await open();
      const response = await client.ask('HEAD', `${prefix}/body/${name}`);
      expect(response.status).toBe(200);
      expect(response.header('content-length')).toBe(
        length === false ? undefined : String(Buffer.from(body as string).length),
      );
      expect(response.header('content-type')).toBe(type);
      expectSound(response);
    },
  );

  it.each(['string', 'empty-string', 'web-stream', 'array', 'file', 'uint8'])(
    'leaves the connection usable behind a HEAD of a body made as %s',
    async (name) => {
      const client = await open();
      for (let i = 0; i < 3; i++) {
        expect((await client.ask('HEAD', `${prefix}/body/${name}`)).status).toBe(200);
        const again = await client.ask('GET', `${prefix}/body/${name}`);
        expect(again.status).toBe(200);
        expect(client.rest).toBe('');
      }
    },
  );

  it.each(['blob', 'file', 'file-object', 'string'])(
    'keeps the Content-Type the handler set over that of a body made as %s',
    async (name) => {
      expect((await get(`/typed/${name}`)).all('content-type')).toEqual(['text/x-own']);
    },
  );

  it.each(['/body/file-missing', '/body/file-folder'])(
    'is 404 for a file that is not there: %s',
    async (path) => {
      const response = await get(path);
      expect(response.status).toBe(404);
      expect(response.body.toString()).toBe('Not Found');
      const head = await (await open()).ask('HEAD', prefix + path);
      expect([head.status, head.header('content-length')]).toEqual([404, '9']);
    },
  );

  it.each([
    '/body/file-missing',
    '/file?%2Fnowhere%2Fat%2Fall',
    `/file?${encodeURIComponent(`${MODULE}/below-a-file`)}`,
    `/file?${'a'.repeat(300)}`,
  ])('tells nobody the path of a file that is not there: %s', async (path) => {
    const response = await get(path);
    expect(response.status).toBe(404);
    expect(`${response.lines.map(([, value]) => value).join()}${response.body}`).not.toMatch(
      /\/nowhere|fixtures|aaaa|none/,
    );
  });

  it.each(Object.entries(VALUES))(
    'is what the handler returned: %s',
    async (name, { status, text, headers = {} }) => {
      const client = await open();
      const response = await client.ask('GET', `${prefix}/value/${name}`);
      expect(response.status).toBe(status);
      expect(response.body.toString()).toBe(text);
      for (const [header, value] of Object.entries(headers))
        expect(response.all(header)).toEqual([value].flat());
      expectSound(response);
      expect((await client.ask('GET', `${prefix}/body/string`)).status).toBe(200);
      expect(client.rest).toBe('');
    },
  );

  it.each(BAD_VALUES)('is a 500 when the handler returned no response: %s', async (name) => {
    const client = await open();
    expectFailure(await client.ask('GET', `${prefix}/value/${name}`));
    expectFailure(await client.ask('GET', `${prefix}/value/${name}`));
    expect((await client.ask('GET', `${prefix}/body/string`)).status).toBe(200);
  });

  it.each(FAILING)('is a 500 and nothing of the body when that fails: %s', async (name) => {
    const client = await open();
    const before = test.errors.length;
    const response = await client.ask('GET', `${prefix}/body/${name}`);
    expectFailure(response);
    expect(test.errors.slice(before).map((e) => e.message)).toEqual([`GET ${prefix}/body/${name}`]);
    expect((await client.ask('GET', `${prefix}/body/string`)).status).toBe(200);
  });

  it.each(['endless-generator', 'endless-async-generator', 'endless-web-stream'])(
    'is as much as its client wants of a body that never ends: %s',
    async (name) => {
      const client = await open();
      client.send(`GET ${prefix}/body/${name} HTTP/1.1\r\nHost: a\r\n\r\n`);
      expect(await client.head()).toMatch(/^HTTP\/1.1 200 OK\r\n/);
      await until(() => client.received > 10_000_000, 'there is a lot of it');
      client.reset();
      const other = await open();
      await until(async () => {
        const { body } = await other.ask('GET', '/cleaned');
        return (JSON.parse(body.toString()) as string[]).includes(name);
      }, 'its source is told to stop');
      expect(test.errors.filter(({ message }) => message.includes(name))).toEqual([]);
    },
  );

  it('lets the sources finish that have failed', async () => {
    const client = await open();
    await client.ask('GET', `${prefix}/body/generator-throws`);
    await client.ask('GET', `${prefix}/body/async-generator-throws`);
    const cleaned = JSON.parse((await client.ask('GET', '/cleaned')).body.toString()) as string[];
    expect(cleaned).toEqual(expect.arrayContaining(['generator-throws', 'async-generator-throws']));
  });

  it('is a large file as a whole, and its size to HEAD costs no reading', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'offloop-'));
    try {
      const path = join(folder, 'large.bin');
      const size = 64 * 1024 * 1024 + 1;
      writeFileSync(path, '');
      truncateSync(path, size);
      const head = await (await open()).ask('HEAD', `${prefix}/file?${encodeURIComponent(path)}`);
      expect([head.status, head.header('content-length')]).toEqual([200, String(size)]);
      const client = await open();
      client.send(`GET ${prefix}/file?${encodeURIComponent(path)} HTTP/1.1\r\nHost: a\r\n\r\n`);
      const text = await client.head();
      expect(text).toMatch(new RegExp(`content-length: ${size}$`, 'im'));
      await until(() => client.received === text.length + 4 + size, 'all of it has come', 15_000);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  // ------------------------------------------------------------------------------------------------------- statuses

  it.each([200, 201, 299, 301, 400, 404, 418, 431, 500, 599])(
    'is status %i with a reason',
    async (status) => {
      const response = await get(say({ status, body: 'x' }));
      expect(response.status).toBe(status);
      expect(response.reason).not.toBe('');
      expect(response.body.toString()).toBe('x');
    },
  );

  it.each(
    [
      0,
      99,
      100,
      101,
      103,
      199,
      600,
      999,
      200.5,
      -200,
      1e21,
      '200',
      '200 OK\r\nx: y',
      true,
      [200],
      { $: 'nan' },
      { $: 'infinity' },
      { $: 'bigint' },
    ].map((status) => ({ status })),
  )('is a 500 for $status as status', async ({ status }) => {
    const client = await open();
    expectFailure(await client.ask('GET', prefix + say({ status, body: 'x' })));
    expect((await client.ask('GET', prefix + say({ body: 'x' }))).status).toBe(200);
    expect(client.rest).toBe('');
  });

  it('is status 200 when the handler gave none', async () => {
    expect((await get(say({ status: { $: 'undefined' }, body: 'x' }))).status).toBe(200);
  });

  it.each([204, 304])(
    'has no body and no length with status %i, and the connection goes on',
    async (status) => {
      const client = await open();
      for (const method of ['GET', 'HEAD', 'POST']) {
        const response = await client.ask(
          method,
          prefix + say({ status, headers: { 'content-length': 5, etag: '"e"' }, body: 'hello' }),
        );
        expect(response.status).toBe(status);
        expect(response.header('etag')).toBe('"e"');
        expect(response.all('content-length')).toEqual([]);
        expect(response.all('transfer-encoding')).toEqual([]);
        const next = await client.ask('GET', prefix + say({ body: 'next' }));
        expect(next.body.toString()).toBe('next');
        expect(client.rest).toBe('');
      }
    },
  );

  it('has no body and Content-Length: 0 with status 205', async () => {
    const client = await open();
    for (const method of ['GET', 'HEAD', 'POST']) {
      const response = await client.ask(method, prefix + say({ status: 205, body: 'hello' }));
      expect([response.status, response.header('content-length')]).toEqual([205, '0']);
      expect((await client.ask('GET', prefix + say({ body: 'next' }))).body.toString()).toBe('next');
      expect(client.rest).toBe('');
    }
  });

  // -------------------------------------------------------------------------------------------------------- headers

  it('has header names as the handler wrote them, one line for each value of a list, and none for null', async () => {
    const response = await get(
      say({
        headers: {
          'X-CamelCase': 'a',
          ETag: '"e"',
          'x-list': ['1', 2, 'a, b'],
          'x-null': null,
          'x-number': 1.5,
          'x-none': [],
          'x-empty': '',
        },
      }),
    );
    expect(response.lines.filter(([name]) => /^(x-|etag)/i.test(name))).toEqual([
      ['X-CamelCase', 'a'],
      ['ETag', '"e"'],
      ['x-list', '1'],
      ['x-list', '2'],
      ['x-list', 'a, b'],
      ['x-number', '1.5'],
      ['x-empty', ''],
    ]);
  });

  it('has every character in a header value that HTTP allows, others than ASCII as UTF-8', async () => {
    const value = ` !"#$%&'()*+,-./09:;<=>?@AZ[\\]^_\`az{|}~\tü€𝄞`;
    const response = await get(say({ headers: { 'x-a': value } }));
    expect(Buffer.from(response.header('x-a') as string, 'latin1').toString()).toBe(value.trim());
  });

  it.each(['', ' ', 'a b', 'a:', ':a', 'a\r\nb', 'a\n', 'a\0', 'ä', 'a"', 'a/b', '(a)', 'a\x7f', '€'])(
    'is a 500 for the header name %j',
    async (name) => {
      const response = await get(say({ headers: { [name]: 'v' } }));
      expectFailure(response);
    },
  );

  const controls = Array.from({ length: 32 }, (_, code) => code).filter((code) => code !== 9);
  it.each([...controls, 127])(
    'is a 500 for a header value with character %i, and nothing of it is sent',
    async (code) => {
      for (const headers of [
        { 'x-a': `before${String.fromCharCode(code)}x-evil: 1` },
        { 'x-a': ['fine', `before${String.fromCharCode(code)}x-evil: 1`] },
        { 'content-type': `${String.fromCharCode(code)}` },
      ]) {
        const response = await get(say({ headers }));
        expectFailure(response);
        expect(response.headText).not.toContain('x-evil');
      }
    },
  );

  it.each([
    'x-a',
    'content-type',
    'location',
    'server',
    'connection',
    'content-length',
    'date',
    'transfer-encoding',
    'keep-alive',
    'set-cookie',
  ])('cannot be split by way of the header %s', async (name) => {
    const client = await open();
    for (const end of ['\r\n', '\n', '\r', '\r\n\r\n', '\u010d\u010a', '\u560d\u560a', '\u2028', '\u0085']) {
      const value = `a${end}set-cookie: evil=1${end}${end}<html>`;
      const response = await client.ask('GET', prefix + say({ headers: { [name]: value }, body: 'x' }));
      if (/[\r\n]/.test(end)) expectFailure(response);
      expect(response.all('set-cookie').filter((line) => line.startsWith('evil'))).toEqual([]);
      expect(response.headText).not.toMatch(/^<html>|^set-cookie: evil/m);
      expect(client.rest).toBe('');
    }
  });

  it.each([
    [{ 'Content-Length': '3' }, 'hello'],
    [{ 'content-length': 500 }, 'hello'],
    [{ 'content-length': ['1', '2'] }, 'hello'],
    [{ 'Transfer-Encoding': 'chunked' }, 'hello'],
    [{ 'transfer-encoding': 'gzip, chunked', 'content-length': '1' }, 'hello'],
    [{ 'content-length': '5', 'keep-alive': 'timeout=100' }, ''],
  ])('replaces framing of the handler, such as %j, by the true one', async (headers, body) => {
    const client = await open();
    const response = await client.ask('GET', prefix + say({ headers, body }));
    expect(response.all('content-length')).toEqual([String(body.length)]);
    expect(response.all('keep-alive')).toEqual([]);
    expect(response.body.toString()).toBe(body);
    expectSound(response);
    expect((await client.ask('GET', prefix + say({ body: 'next' }))).body.toString()).toBe('next');
    expect(client.rest).toBe('');
  });

  it('has the length a handler gives to HEAD without a body, when it is one', async () => {
    const client = await open();
    const lengthOf = async (value: unknown): Promise<string | undefined> =>
      (await client.ask('HEAD', prefix + say({ headers: { 'content-length': value } }))).header(
        'content-length',
      );
    expect(await lengthOf('1234')).toBe('1234');
    expect(await lengthOf(77)).toBe('77');
    expect(await lengthOf('-1')).toBe('0');
    expect(await lengthOf('abc')).toBe('0');
  });

  it.each(['date', 'Date', 'DATE'])('has one Date, ours, when the handler sets %s', async (name) => {
    const response = await get(say({ headers: { [name]: 'Thu, 01 Jan 1970 00:00:00 GMT' } }));
    expectSound(response);
    expect(Date.parse(response.header('date') as string)).toBeGreaterThan(Date.parse('2020-01-01'));
  });

  it('has the Server header of the handler when that sets one', async () => {
    const client = await open();
    expect((await client.ask('GET', prefix + say({ body: 'a' }))).all('server')).toEqual(['offloop']);
    expect(
      (await client.ask('GET', prefix + say({ headers: { SERVER: 'mine/1' }, body: 'a' }))).all('server'),
    ).toEqual(['mine/1']);
    expect(
      (await client.ask('GET', prefix + say({ headers: { 'x-a': 'server: no' }, body: 'a' }))).all('server'),
    ).toEqual(['offloop']);
  });

  it('has no Content-Type of its own invention', async () => {
    expect((await get('/body/string')).all('content-type')).toEqual([]);
  });

  // ----------------------------------------------------------------------------------------------------- connections

  const SHAPES: [string, string, string][] = [
    ['a body', 'GET', say({ body: 'x' })],
    ['an empty body', 'GET', say({})],
    ['a 204', 'GET', say({ status: 204 })],
    ['a 304', 'GET', say({ status: 304 })],
    ['a 205', 'GET', say({ status: 205 })],
    ['a 404 for nothing', 'GET', '/value/nothing'],
    ['a 500', 'GET', '/value/string'],
    ['HEAD of a body', 'HEAD', say({ body: 'x' })],
    ['HEAD of an empty body', 'HEAD', say({})],
    ['HEAD of a stream', 'HEAD', '/body/web-stream'],
    ['a large body', 'GET', '/pattern/300000'],
  ];

  it.each(SHAPES)('keeps the connection open behind %s', async (_, method, path) => {
    const client = await open();
    for (let i = 0; i < 3; i++) {
      const response = await client.ask(method, prefix + path);
      expect(response.header('connection')?.toLowerCase()).not.toBe('close');
    }
    expect(client.ended).toBe(undefined);
  });

  it.each(SHAPES)('closes the connection behind %s when the client asked for it', async (_, method, path) => {
    const values = ['close', 'Close', 'keep-alive, close', 'close ,foo', 'foo,close'];
    const outcomes = await Promise.all(
      values.map(async (value) => {
        const client = await open();
        const response = await client.ask(method, prefix + path, `Connection: ${value}`);
        const said = response.all('connection').map((v) => v.toLowerCase());
        const closed = await client.closed().then(
          () => true,
          () => false,
        );
        // The engine does not repeat what the client has said in so many letters.
        if (value.length === 5 && said.length === 0) said.push('close');
        return { value, said, closed, rest: client.rest };
      }),
    );
    expect(outcomes).toEqual(values.map((value) => ({ value, said: ['close'], closed: true, rest: '' })));
  });

  it('closes the connection when one of several Connection lines says so', async () => {
    const client = await open();
    await client.ask('GET', prefix + say({ body: 'x' }), 'Connection: keep-alive', 'Connection: close');
    await client.closed();
  });

  it.each(['keep-alive', 'foo', 'closed', 'not-close', 'Upgrade'])(
    'keeps the connection for Connection: %s',
    async (value) => {
      const client = await open();
      for (let i = 0; i < 2; i++) {
        const response = await client.ask('GET', prefix + say({ body: 'x' }), `Connection: ${value}`);
        expect(response.status).toBe(200);
      }
    },
  );

  it.each([
    ['a body', { body: 'x' }],
    ['an empty body', {}],
    ['a 204', { status: 204 }],
    ['a 304', { status: 304 }],
    ['a 205', { status: 205 }],
  ])('closes the connection behind %s when the handler says Connection: close', async (_, response) => {
    const cases = ['GET', 'HEAD'].flatMap((method) =>
      ['close', 'Close', 'keep-alive, close'].map((value) => ({ method, value })),
    );
    const outcomes = await Promise.all(
      cases.map(async ({ method, value }) => {
        const client = await open();
        const got = await client.ask(method, prefix + say({ ...response, headers: { Connection: value } }));
        const said = got.all('connection').map((v) => v.toLowerCase());
        const closed = await client.closed().then(
          () => true,
          () => false,
        );
        return { method, value, said, closed };
      }),
    );
    expect(outcomes).toEqual(cases.map((one) => ({ ...one, said: ['close'], closed: true })));
  });

  it('closes the connection behind a large body when the handler says Connection: close', async () => {
    const client = await open();
    const response = await client.ask('GET', `${prefix}/pattern/300000?close`);
    expect(hash(response.body)).toBe(hash(pattern(300_000)));
    expect(response.all('connection').map((v) => v.toLowerCase())).toEqual(['close']);
    await client.closed();
  });

  it('sends no other Connection header of the handler', async () => {
    const response = await get(say({ headers: { connection: 'keep-alive, x-secret' } }));
    expect(response.all('connection')).toEqual([]);
  });

  // ---------------------------------------------------------------------------------------------------- large bodies

  it.each([131_071, 131_072, 131_073, 1_000_000, 5_000_000])(
    'is a body of %i bytes, byte for byte, again and again',
    async (size) => {
      const client = await open();
      for (let i = 0; i < 3; i++) {
        const response = await client.ask('GET', `${prefix}/pattern/${size}`);
        expect(response.header('content-length')).toBe(String(size));
        expect(hash(response.body)).toBe(hash(pattern(size)));
      }
      expect(client.rest).toBe('');
      await until(() => test.server.stats().open === 0, 'no request is open');
    },
  );

  it('is a large text with the length of its bytes, not of its characters', async () => {
    const response = await get('/pattern-text/60000');
    expect(response.header('content-length')).toBe(String(60_000 * 6));
    expect(response.body.toString()).toBe('ü€x'.repeat(60_000));
    const small = await get('/pattern-text/21846');
    expect(small.body.toString()).toBe('ü€x'.repeat(21_846));
  });

  it('is to HEAD the length of a large body', async () => {
    const client = await open();
    for (let i = 0; i < 3; i++) {
      const response = await client.ask('HEAD', `${prefix}/pattern/5000000`);
      expect(response.header('content-length')).toBe('5000000');
    }
    expect(client.rest).toBe('');
  });
});

describe.each(WAYS)('large bodies of $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(MODULE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
  });
  afterAll(() => test.stop());

  it.each([5_000_000, 50_000_000])('come to a slow reader byte for byte: %i bytes', async (size) => {
    const client = await RawClient.open(test.port);
    client.socket.pause();
    client.send(`GET /pattern/${size} HTTP/1.1\r\nHost: h\r\n\r\n`);
    await until(() => test.server.stats().open === 1, 'the request is open');
    const digest = createHash('sha256');
    let got = 0;
    let head = true;
    await new Promise<void>((resolve, reject) => {
      client.socket.removeAllListeners('data');
      client.socket.on('close', () => reject(new Error(`closed after ${got} bytes`)));
      client.socket.on('data', (chunk: Buffer) => {
        let body = chunk;
        if (head) {
          head = false;
          body = chunk.subarray(chunk.indexOf('\r\n\r\n') + 4);
        }
        digest.update(body);
        got += body.length;
        if (got >= size) return resolve();
        // Slower than the server: let it fill all buffers between two reads.
        client.socket.pause();
        setImmediate(() => setImmediate(() => client.socket.resume()));
      });
      client.socket.resume();
    });
    expect(got).toBe(size);
    expect(digest.digest('hex')).toBe(hash(pattern(size)));
    await until(() => test.server.stats().open === 0, 'the request is over');
  });

  it('are let go when their clients leave in the middle', async () => {
    const clients = await Promise.all(Array.from({ length: 10 }, () => RawClient.open(test.port)));
    for (const client of clients) {
      client.socket.pause();
      client.send('GET /pattern/20000000 HTTP/1.1\r\nHost: h\r\n\r\n');
    }
    await until(
      () => test.server.stats().answers['200'] !== undefined && test.server.stats().open === 10,
      'ten are being written',
    );
    for (const [i, client] of clients.entries()) i % 2 === 0 ? client.socket.destroy() : client.reset();
    await until(() => test.server.stats().open === 0, 'no request is open');
    expect((await fetch(`${test.url}/body/string`)).status).toBe(200);
    expect(test.errors).toEqual([]);
  });

  it('keep other clients from nothing while nobody reads them', async () => {
    const slow = await RawClient.open(test.port);
    slow.socket.pause();
    slow.send('GET /pattern/20000000 HTTP/1.1\r\nHost: h\r\n\r\n');
    await until(() => test.server.stats().open >= 1, 'the large answer is under way');
    for (let i = 0; i < 20; i++) expect((await fetch(`${test.url}/body/string`)).status).toBe(200);
    slow.socket.destroy();
    await until(() => test.server.stats().open === 0, 'no request is open');
  });
});

describe.each(WAYS)('the Server header of $way', ({ dispatch }) => {
  it.each([
    [undefined, ['offloop']],
    ['acme/1.0 (x)', ['acme/1.0 (x)']],
    [null, []],
  ])('with option serverHeader %j is %j', async (serverHeader, expected) => {
    const test = await startServer(MODULE, {
      dispatch,
      ...(serverHeader === undefined ? {} : { serverHeader }),
    });
    try {
      const client = await RawClient.open(test.port);
      for (const path of [
        '/body/string',
        '/value/nothing',
        '/value/string',
        say({ status: 204 }),
        '/pattern/200000',
      ]) {
        expect((await client.ask('GET', path)).all('server')).toEqual(expected);
      }
      expect((await client.ask('GET', say({ headers: { server: 'mine' } }))).all('server')).toEqual(['mine']);
      client.send('GET / HTTP/1.1\r\nHost: a b\r\n\r\n');
      const refused = await client.response();
      expect([refused.status, refused.all('server')]).toEqual([400, expected]);
    } finally {
      await test.stop();
    }
  });
});
