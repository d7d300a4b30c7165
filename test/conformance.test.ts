import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient } from './support/http-raw.js';
import { fixture, serve, startServer, type TestServer, until } from './support/server.js';

/** As `pattern` of the fixtures. */
function pattern(size: number): Buffer {
  const all = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) all.writeUInt32LE((at * 2654435761) >>> 0, at);
  return all;
}
const sha = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');

const MIB = 1024 * 1024;
const TEXT = 'grüße €𝄞';

/** The same handler three times. */
const STYLES = ['ring', 'fetch', 'node'] as const;
const WAYS = [
  { way: 'pooled', dispatch: true },
  { way: 'inline', dispatch: false },
] as const;
const ALL = STYLES.flatMap((style) => WAYS.map((way) => ({ style, ...way })));

interface About {
  method: string;
  path: string;
  query: string | null;
  type: string | null;
  many: string | null;
  cookie: string | null;
  size: number;
  sha: string;
}

interface State {
  asked: number;
  aborted: number;
  sent: number;
}

async function stateOf({ url }: TestServer): Promise<State> {
  return (await (await fetch(`${url}/state`)).json()) as State;
}

describe.each(ALL)('a handler in $style style, $way', ({ style, dispatch }) => {
  const module = fixture(`conformance/${style}.mjs`);
  let test: TestServer;
  beforeAll(async () => {
    // One worker, so that the state of the module is that of all requests.
    test = await startServer(module, { dispatch, nMin: 1, nMax: 1, maxBody: 64 * MIB });
  });
  afterAll(() => test.stop());

  const ask = (path: string, init?: RequestInit): Promise<Response> =>
    fetch(`${test.url}${path}`, { redirect: 'manual', ...init });
  const about = async (path: string, init?: RequestInit): Promise<About> =>
    (await (await ask(path, init)).json()) as About;
  const state = (): Promise<State> => stateOf(test);
  const read = async (answer: Response): Promise<Buffer> => Buffer.from(await answer.arrayBuffer());

  // ------------------------------------------------------------------------------------------------- the request

  it.each(['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])('sees the method %s', async (method) => {
    expect(await about('/about', { method })).toMatchObject({ method, size: 0 });
  });

  it.each([
    ['/about', null],
    ['/about?x=1', 'x=1'],
    ['/about?a=%20b&c=%C3%A4+d&a=2', 'a=%20b&c=%C3%A4+d&a=2'],
    ['/about?next=/x/../y', 'next=/x/../y'],
  ])('sees the query of %s as it came', async (target, query) => {
    expect(await about(target)).toMatchObject({ path: '/about', query });
  });

  it('sees header lines of one name as one, cookies as a list of cookies', async () => {
    const client = await RawClient.open(test.port);
    const lines = ['X-Many: a', 'X-MANY: b', 'Cookie: a=1', 'Cookie: b=2'];
    const { body } = await client.ask('GET', '/about', ...lines);
    expect(JSON.parse(body.toString())).toMatchObject({ many: 'a, b', cookie: 'a=1; b=2' });
  });

  const form = new FormData();
  form.set('name', 'wörld');
  form.set('file', new File([pattern(5000)], 'a.bin'));
  it.each<[string, string | Uint8Array<ArrayBuffer> | URLSearchParams, RegExp | undefined]>([
    ['text', 'wörld', /^text\/plain/],
    ['a form', new URLSearchParams({ a: '1 2', b: 'ä' }), /^application\/x-www-form-urlencoded/],
    ['one byte', new Uint8Array([0]), undefined],
    ['binary', new Uint8Array(pattern(70_000)), undefined],
    ['3 MiB', new Uint8Array(pattern(3 * MIB)), undefined],
  ])('reads a body: %s', async (_, body, type) => {
    const bytes = body instanceof Uint8Array ? body : String(body);
    const seen = await about('/about', { method: 'POST', body });
    expect(seen).toMatchObject({ size: Buffer.byteLength(bytes), sha: sha(bytes) });
    if (type === undefined) expect(seen.type).toBeNull();
    else expect(seen.type).toMatch(type);
  });

  it('reads a multipart body as it was sent', async () => {
    const raw = new Request('http://localhost', { method: 'POST', body: form });
    const bytes = new Uint8Array(await raw.clone().arrayBuffer());
    const type = String(raw.headers.get('content-type'));
    const seen = await about('/about', { method: 'POST', body: bytes, headers: { 'content-type': type } });
    expect(seen).toMatchObject({ type, sha: sha(bytes) });
  });

  it('reads a body that comes in chunks, of which nobody knows how many there are', async () => {
    const client = await RawClient.open(test.port);
    client.send('PUT /about HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n');
    const bytes = pattern(1.5 * MIB);
    for (let at = 0; at < bytes.length; at += 30_000) {
      const part = bytes.subarray(at, at + 30_000);
      await client.sent(
        Buffer.concat([Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from('\r\n')]),
      );
    }
    client.send('0\r\n\r\n');
    const { body } = await client.response();
    expect(JSON.parse(body.toString())).toMatchObject({ size: bytes.length, sha: sha(bytes) });
  });

  it('waits for a body whose client waits to be told that it may go on', async () => {
    const client = await RawClient.open(test.port);
    client.send(
      'POST /about HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n',
    );
    expect((await client.response()).status).toBe(100);
    client.send('hello');
    const { status, body } = await client.response();
    expect([status, (JSON.parse(body.toString()) as About).sha]).toEqual([200, sha('hello')]);
  });

  // ------------------------------------------------------------------------------------------------ the response

  it('sends text with its type and its length', async () => {
    const { header, body } = await (await RawClient.open(test.port)).ask('GET', '/text');
    expect(header('content-type')).toBe('text/plain; charset=utf-8');
    expect(header('content-length')).toBe(String(Buffer.byteLength(TEXT)));
    expect(body.toString()).toBe(TEXT);
  });

  it.each([0, 1, 16_384, 100_000, 3 * MIB])('sends %i bytes as they are', async (size) => {
    const answer = await ask(`/bytes?size=${size}`);
    expect((await read(answer)).equals(pattern(size))).toBe(true);
    expect(answer.headers.get('content-type')).toBe('application/octet-stream');
  });

  it.each([200, 201, 400, 404, 418, 500, 599])('sends the status %i with a body', async (code) => {
    const answer = await ask(`/status?code=${code}`);
    expect([answer.status, await answer.text()]).toEqual([code, `status ${code}`]);
  });

  it.each([204, 205, 304])(
    'sends the status %i without a body, and goes on with the connection',
    async (code) => {
      const client = await RawClient.open(test.port);
      const { status, body, header } = await client.ask('GET', `/status?code=${code}`);
      expect([status, body.length, header('transfer-encoding')]).toEqual([code, 0, undefined]);
      expect((await client.ask('GET', '/text')).body.toString()).toBe(TEXT);
    },
  );

  it('sends nothing with length 0', async () => {
    const { status, header } = await (await RawClient.open(test.port)).ask('GET', '/empty');
    expect([status, header('content-length')]).toEqual([200, '0']);
  });

  it('sends every cookie in a line of its own', async () => {
    const { all } = await (await RawClient.open(test.port)).ask('GET', '/cookies');
    expect(all('set-cookie')).toEqual([
      'a=1; Path=/',
      'b=2; HttpOnly',
      'c="x, y"; Expires=Wed, 21 Oct 2026 07:28:00 GMT',
    ]);
  });

  it('sends several values of a header, empty ones and numbers', async () => {
    const { headers } = await ask('/headers');
    expect([headers.get('x-many'), headers.get('x-empty'), headers.get('x-number')]).toEqual([
      'a, b',
      '',
      '7',
    ]);
  });

  it('sends one Date, one Server and no Connection, Keep-Alive or X-Powered-By of its own', async () => {
    const { lines } = await (await RawClient.open(test.port)).ask('GET', '/text');
    const names = lines.map(([name]) => name.toLowerCase()).filter((name) => !name.startsWith('uwebsockets'));
    expect(names.toSorted()).toEqual(['content-length', 'content-type', 'date', 'server']);
  });

  it('redirects', async () => {
    const answer = await ask('/redirect');
    expect([answer.status, answer.headers.get('location')]).toEqual([302, '/text?from=here']);
    const followed = await ask('/redirect', { redirect: 'follow' });
    expect([followed.url, await followed.text()]).toEqual([`${test.url}/text?from=here`, TEXT]);
  });

  it.each(['/text', '/bytes?size=100000', '/stream?size=100000', '/empty', '/nowhere'])(
    'answers a HEAD for %s without a body, and goes on with the connection',
    async (path) => {
      const client = await RawClient.open(test.port);
      const { status, header } = await client.ask('HEAD', path);
      expect(status).toBe(path === '/nowhere' ? 404 : 200);
      // What a stream holds nobody knows; nor does anybody know of a Response that it is none.
      if (path.startsWith('/bytes') && style !== 'fetch') expect(header('content-length')).toBe('100000');
      expect((await client.ask('GET', '/text')).body.toString()).toBe(TEXT);
    },
  );

  it('streams in chunks, and with a length where one is given', async () => {
    const size = 3 * MIB + 17;
    const client = await RawClient.open(test.port);
    const chunked = await client.ask('GET', `/stream?size=${size}`);
    expect(chunked.header('transfer-encoding')).toBe('chunked');
    expect(chunked.body.equals(pattern(size))).toBe(true);
    const sized = await client.ask('GET', `/length?size=${size}`);
    expect(sized.header('content-length')).toBe(String(size));
    expect(sized.body.equals(pattern(size))).toBe(true);
  });

  it('streams no faster than its client reads, and stops when that has gone', async () => {
    const size = 200 * MIB;
    const client = await RawClient.open(test.port);
    client.socket.pause();
    client.send(`GET /slow?size=${size} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    let before = -1;
    await until(
      async () => {
        const { sent } = await state();
        const stands = sent > 0 && sent === before;
        before = sent;
        return stands;
      },
      'it has come to a stand',
      30_000,
    );
    expect(before).toBeLessThan(size / 4);
    client.reset();
    expect((await ask('/text')).status).toBe(200);
    expect(test.errors).toEqual([]);
  });

  it('sends back what it gets while it gets it', async () => {
    const body = new Uint8Array(pattern(3 * MIB));
    const answer = await ask('/echo', { method: 'POST', body });
    expect((await read(answer)).equals(body)).toBe(true);
  });

  // --------------------------------------------------------------------------------------------------- what breaks

  it.each(['/throw', '/reject'])('answers 500 when it fails: %s', async (path) => {
    const client = await RawClient.open(test.port);
    const { status, body } = await client.ask('GET', path);
    expect([status, body.toString()]).toEqual([500, 'Internal Server Error']);
    expect((await client.ask('GET', '/text')).status).toBe(200);
    expect(test.errors.splice(0)).toMatchObject([
      { message: expect.stringContaining(`GET ${path}`), error: { message: 'on purpose' } },
    ]);
  });

  it('cuts a response whose body fails on its way', async () => {
    const client = await RawClient.open(test.port);
    client.send(`GET /broken?size=${MIB} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    expect(await client.head()).toMatch(/^HTTP\/1.1 200 /);
    await client.closed();
    expect(client.rest.endsWith('\r\n0\r\n\r\n')).toBe(false);
    await until(() => test.errors.length > 0, 'it has been logged');
    expect(test.errors.splice(0)).toMatchObject([{ error: { message: 'on purpose' } }]);
  });

  it('learns that its client has gone before it answered', async () => {
    const own = await serve(module, { dispatch, nMin: 1, nMax: 1 });
    const before = await stateOf(own);
    const client = await RawClient.open(own.port);
    client.send('GET /silent HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await until(async () => (await stateOf(own)).asked > before.asked, 'it has been asked');
    client.leave();
    await until(async () => (await stateOf(own)).aborted > before.aborted, 'it has been told', 15_000);
    expect(own.errors).toEqual([]);
  });

  it('survives a client that goes in the middle of its body', async () => {
    const client = await RawClient.open(test.port);
    client.send(`POST /about HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${4 * MIB}\r\n\r\n`);
    await client.sent(pattern(2 * MIB));
    client.reset();
    expect((await ask('/text')).status).toBe(200);
    expect(test.errors).toEqual([]);
  });

  it('is told when its time is up, and its client gets a 504', async () => {
    const short = await serve(module, { dispatch, nMin: 1, nMax: 1, handlerTimeout: 1000 });
    const before = await stateOf(short);
    expect((await fetch(`${short.url}/silent`)).status).toBe(504);
    await until(async () => (await stateOf(short)).aborted > before.aborted, 'it has been told');
  });
});
