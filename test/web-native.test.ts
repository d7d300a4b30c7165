import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { type NativeFunction, type NativeResponse, nativeHandler } from 'offloop/web';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { curl, curlIsHere } from './support/curl.js';
import { RawClient } from './support/http-raw.js';
import { fixture, serve, type TestServer, until } from './support/server.js';

const native = (handle: NativeFunction, options = {}): Promise<TestServer> =>
  serve(nativeHandler(handle), options);
const textOf = (buffer: ArrayBuffer): string => Buffer.from(buffer).toString();

/** One request on a connection of its own, and the same connection for another behind it. */
async function ask(
  port: number,
  request: string,
): Promise<{ status: number; text: string; client: RawClient }> {
  const client = await RawClient.open(port);
  client.send(request);
  const { status, body } = await client.response();
  return { status, text: body.toString(), client };
}
const get = (path: string, method = 'GET'): string => `${method} ${path} HTTP/1.1\r\nHost: h\r\n\r\n`;

describe('a native handler', () => {
  it('answers as in uWebSockets.js', async () => {
    const test = await native((res, req) => {
      res
        .writeStatus('201 Made Here')
        .writeHeader('X-A', '1')
        .writeHeader('x-a', Buffer.from('2'))
        .end(`${req.getCaseSensitiveMethod()} ${req.getUrl()}`);
    });
    const client = await RawClient.open(test.port);
    client.send(get('/a%20b?q'));
    const response = await client.response();
    expect(response.headText).toMatch(/^HTTP\/1\.1 201 Created\r\n/);
    expect(response.all('x-a')).toEqual(['1', '2']);
    expect(response.header('server')).toBe('offloop');
    expect(response.header('content-length')).toBe('10');
    expect(response.body.toString()).toBe('GET /a%20b');
    expect(test.server.stats()).toMatchObject({ answers: { 201: 1 }, open: 0, pool: null });
  });

  it('reads the request, and may keep it', async () => {
    const test = await native(async (res, req) => {
      await new Promise((resolve) => setImmediate(resolve));
      const fields: string[] = [];
      req.forEach((name, value) => void fields.push(`${name}=${value}`));
      res.end(
        JSON.stringify({
          method: req.getMethod(),
          url: req.getUrl(),
          query: req.getQuery(),
          x: req.getQuery('x'),
          none: req.getQuery('none') ?? null,
          header: req.getHeader('X-One'),
          missing: req.getHeader('x-two'),
          fields,
          address: textOf(res.getRemoteAddressAsText()),
        }),
      );
    });
    await test.server.mount(
      nativeHandler((res, req) => res.end(`[${req.getQuery()}]`)),
      { path: '/m' },
    );
    const { text } = await ask(
      test.port,
      'GET /p?x=%20a&y HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nx-one: 2\r\n\r\n',
    );
    expect(JSON.parse(text)).toEqual({
      method: 'get',
      url: '/p',
      query: 'x=%20a&y',
      x: ' a',
      none: null,
      header: '1',
      missing: '',
      fields: ['host=h', 'x-one=1', 'x-one=2'],
      address: '127.0.0.1',
    });
    expect((await ask(test.port, get('/m'))).text).toBe('[]');
  });

  it('knows HEAD, and statuses without a body', async () => {
    const test = await native((res, req) => {
      const [, kind, status = '200'] = req.getUrl().split('/');
      res.writeStatus(status);
      if (kind === 'end') res.end('body');
      else if (kind === 'bare') res.endWithoutBody(7);
      else if (kind === 'try') res.tryEnd('body', 4);
      else {
        res.write('bo');
        res.write('dy');
        res.end();
      }
    });
    const client = await RawClient.open(test.port);
    const heads: unknown[] = [];
    for (const path of ['/end', '/bare', '/try', '/write', '/end/204', '/write/304', '/end/205'])
      for (const method of ['HEAD', 'GET']) {
        client.send(get(path, method));
        const { body, header } = await client.response(method === 'HEAD');
        heads.push([path, header('content-length') ?? header('transfer-encoding') ?? null, body.toString()]);
      }
    expect(heads).toEqual([
      ['/end', '4', ''],
      ['/end', '4', 'body'],
      ['/bare', '7', ''],
      ['/bare', '0', ''],
      ['/try', '4', ''],
      ['/try', '4', 'body'],
      ['/write', null, ''],
      ['/write', 'chunked', 'body'],
      ['/end/204', null, ''],
      ['/end/204', null, ''],
      ['/write/304', null, ''],
      ['/write/304', null, ''],
      ['/end/205', '0', ''],
      ['/end/205', '0', ''],
    ]);
  });

  it('is given the body as it comes, and may stop it', async () => {
    const seen: string[] = [];
    let response: NativeResponse | undefined;
    const test = await native(
      (res, req) => {
        if (req.getUrl() === '/none') {
          res.onData((chunk, isLast) => res.end(`${chunk.byteLength} ${isLast}`));
          return;
        }
        response = res;
        res.onData((chunk, isLast) => {
          seen.push(textOf(chunk));
          if (seen.length === 1) res.pause();
          if (isLast) res.end(seen.join(''));
        });
      },
      { streamBody: true },
    );
    expect((await ask(test.port, get('/none'))).text).toBe('0 true');
    const client = await RawClient.open(test.port);
    client.send('POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n');
    await until(() => seen.length === 1, 'the first chunk is there');
    client.send('3\r\ntwo\r\n');
    await (await fetch(`${test.url}/none`)).text();
    expect(seen).toEqual(['one']);
    response?.resume();
    await until(() => seen.length === 2, 'the second is');
    client.send('0\r\n\r\n');
    expect((await client.response()).body.toString()).toBe('onetwo');
  });

  it('gets large bodies whole, and none that are too large', async () => {
    const test = await native(
      (res) => {
        let size = 0;
        res.onAborted(() => undefined);
        res.onData((chunk, isLast) => {
          size += chunk.byteLength;
          if (isLast) res.end(String(size));
        });
      },
      { maxBody: 5_000_000 },
    );
    const post = (bytes: number, duplex = false): Promise<Response> =>
      fetch(test.url, {
        method: 'POST',
        body: duplex ? new Blob([new Uint8Array(bytes)]).stream() : new Uint8Array(bytes),
        ...(duplex && { duplex: 'half' }),
      } as RequestInit);
    for (const bytes of [1, 5000, 1_000_000, 5_000_000])
      expect(await (await post(bytes)).text()).toBe(String(bytes));
    expect(await (await post(3_000_000, true)).text()).toBe('3000000');
    expect((await post(5_000_001)).status).toBe(413);
    expect((await post(6_000_000, true).catch(() => ({ status: 413 }))).status).toBe(413);
    expect(await (await post(2)).text()).toBe('2');
  });

  it('writes as fast as the client reads, of known and of unknown length', async () => {
    const chunk = new Uint8Array(100_000).fill(97);
    const COUNT = 100;
    const test = await native((res, req) => {
      const total = req.getUrl() === '/known' ? COUNT * chunk.length : null;
      let waited = 0;
      const more = (): boolean => {
        for (;;) {
          const offset = res.getWriteOffset();
          if (total === null && offset === COUNT * chunk.length) {
            res.end(waited > 0 ? '!' : '?');
            return true;
          }
          const [ok, done] = total === null ? [res.write(chunk), false] : res.tryEnd(chunk, total);
          if (done) return true;
          if (!ok) {
            waited++;
            return false;
          }
        }
      };
      res.onWritable(more);
      more();
    });
    const known = await (await fetch(`${test.url}/known`)).text();
    expect(known.length).toBe(COUNT * chunk.length);
    const client = await RawClient.open(test.port);
    client.socket.pause();
    client.send(get('/'));
    await until(() => test.server.stats().open === 1, 'it is answered');
    client.socket.resume();
    const { body } = await client.response();
    expect(body.length).toBe(COUNT * chunk.length + 1);
    expect(body.at(-1)).toBe('!'.charCodeAt(0));
    await until(() => test.server.stats().open === 0, 'it is over');
  });

  it('is cut when it writes on and on to a client that does not read', async () => {
    let refused = false;
    const test = await native((res) => {
      const chunk = new Uint8Array(1_000_000);
      for (let i = 0; i < 64; i++) res.write(chunk);
      res.onAborted(() => undefined);
      refused = res.write(chunk);
    });
    const client = await RawClient.open(test.port);
    client.socket.pause();
    client.send(get('/'));
    await until(() => test.errors.length > 0, 'it is logged');
    expect(test.errors[0]?.error).toMatchObject({ code: 'OFFLOOP_BODY_TOO_LARGE' });
    expect(refused).toBe(false);
    await until(() => test.server.stats().open === 0, 'it is over');
  });

  it('is told when its client has gone, before and while it answers', async () => {
    const gone: string[] = [];
    const test = await native((res, req) => {
      const url = req.getUrl();
      res.onAborted(() => gone.push(url));
      if (url === '/while') res.write('begun');
    });
    for (const url of ['/before', '/while']) {
      const client = await RawClient.open(test.port);
      client.send(get(url));
      await until(() => test.server.stats().open === 1, 'it runs');
      client.socket.destroy();
      await until(() => gone.at(-1) === url, 'it is told');
      await until(() => test.server.stats().open === 0, 'it is over');
    }
    expect(gone).toEqual(['/before', '/while']);
  });

  it('may close the connection, with an answer and without', async () => {
    const test = await native((res, req) => {
      if (req.getUrl() === '/cut') res.close();
      else if (req.getUrl() === '/later') setImmediate(() => res.close());
      else if (req.getUrl() === '/begun') {
        res.write('begun');
        setImmediate(() => res.close());
      } else res.end('bye', true);
    });
    const { text, client } = await ask(test.port, get('/'));
    expect(text).toBe('bye');
    await until(() => client.ended !== undefined, 'the connection is closed');
    for (const path of ['/cut', '/later', '/begun']) {
      const cut = await RawClient.open(test.port);
      cut.send(get(path));
      await until(() => cut.ended !== undefined, `${path} cuts the connection`);
      await until(() => test.server.stats().open === 0, 'it is over');
    }
    expect(test.errors).toEqual([]);
  });

  it('has a time limit, if it is given one', async () => {
    let told = 0;
    const test = await native(
      (res, req) => {
        res.onAborted(() => told++);
        if (req.getUrl() === '/begun') {
          res.write('begun');
          setTimeout(() => res.end(), 60);
        }
        // And an end that comes too late.
        else setTimeout(() => res.end('late'), 60);
      },
      { handlerTimeout: 20 },
    );
    expect((await ask(test.port, get('/'))).status).toBe(504);
    expect(told).toBe(1);
    expect(await ask(test.port, get('/begun'))).toMatchObject({ status: 200, text: 'begun' });
  });

  it('waits its turn behind another request of the connection', async () => {
    const test = await native((res, req) => void setTimeout(() => res.end(req.getUrl()), 5));
    const client = await RawClient.open(test.port);
    client.send(get('/1'));
    await until(() => test.server.stats().open === 1, 'the first runs');
    client.send(get('/2'));
    const texts: string[] = [];
    for (let i = 0; i < 2; i++) texts.push((await client.response()).body.toString());
    expect(texts).toEqual(['/1', '/2']);
  });

  it('answers a request for a WebSocket, and closes the connection behind it', async () => {
    const test = await native((res, req) => res.writeStatus('426').end(req.getHeader('upgrade')));
    const client = await RawClient.open(test.port);
    const fields = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n';
    client.send(`GET / HTTP/1.1\r\nHost: h\r\n${fields}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`);
    const { status, body } = await client.response();
    expect([status, body.toString()]).toEqual([426, 'websocket']);
    await until(() => client.ended !== undefined, 'the connection is closed');
  });

  it.runIf(curlIsHere)('pleases curl', async () => {
    const test = await native((res, req) => {
      res.writeHeader('x-url', req.getUrl());
      res.write('one ');
      setImmediate(() => res.cork(() => res.end('two')));
    });
    const printed = await curl('-i', `${test.url}/x`);
    expect(printed).toMatch(/^HTTP\/1.1 200 OK\r\n.*x-url: \/x\r\n.*\r\n\r\none two200 7$/s);
  });

  it('is nothing but a function', () => {
    expect(() => nativeHandler('x' as never)).toThrow(
      'nativeHandler takes a function (res, req) => ..., not a value of type string',
    );
  });
});

describe('native handlers that do what must not be done', () => {
  let child: ChildProcess;
  let port: number;
  const said: string[] = [];
  beforeAll(async () => {
    child = fork(fixture('http/native-server.mjs'));
    [port] = (await once(child, 'message')) as [number];
    child.on('message', (message: string) => said.push(message));
  });
  afterAll(() => void child.kill('SIGKILL'));

  const isWell = async (): Promise<void> => {
    expect((await ask(port, get('/'))).text).toBe('ok');
    expect([child.exitCode, child.signalCode]).toEqual([null, null]);
  };

  it.each([
    ['/throws', 500, 'GET /throws: thrown by a native handler'],
    ['/rejects', 500, 'GET /rejects: rejected by a native handler'],
    ['/upgrades', 500, 'GET /upgrades: res.upgrade is not a function'],
    ['/splits', 500, 'GET /splits: header x has a control character in its value "a\\r\\nb: c"'],
    ['/later-splits', 500, 'GET /later-splits: header name "x y" is not a token'],
    ['/status', 500, 'GET /status: status "banana" does not begin with a number from 200 to 599'],
    ['/switch', 500, 'GET /switch: status "101 Switching Protocols" does not begin with'],
    ['/types', 500, 'GET /types: {"no":"bytes"} (object) is neither a string nor bytes'],
  ])('%s is answered %d, and logged', async (path, status, message) => {
    expect((await ask(port, get(path))).status).toBe(status);
    await until(() => said.some((line) => line.startsWith(message)), `"${message}" is logged`);
    await isWell();
  });

  it('answers the first time only', async () => {
    const { text, client } = await ask(port, get('/twice') + get('/'));
    expect(text).toBe('once');
    expect((await client.response()).body.toString()).toBe('ok');
    await isWell();
  });

  it('cuts a response that is shorter than it says', async () => {
    const client = await RawClient.open(port);
    client.send(get('/short'));
    await until(() => client.ended !== undefined, 'the connection is closed');
    await until(
      () => said.some((line) => line.includes('the response ends after 3 of 10 bytes')),
      'it is logged',
    );
    await isWell();
  });

  it('is not hurt by answers to clients that have gone', async () => {
    const client = await RawClient.open(port);
    client.send(get('/after'));
    client.socket.end();
    await until(() => said.includes('answered after the abort'), 'it has answered');
    await isWell();
  });

  it('is not hurt by callbacks that throw', async () => {
    const client = await RawClient.open(port);
    client.send('POST /hooks HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx');
    expect((await client.response()).status).toBe(500);
    const other = await RawClient.open(port);
    other.send(get('/nothing'));
    other.socket.destroy();
    await isWell();
  });

  it('is not held up by one that never answers', async () => {
    const never = await RawClient.open(port);
    never.send(get('/nothing'));
    await isWell();
    expect((await ask(port, get('/late'))).text).toBe('late');
    expect(never.ended).toBe(undefined);
  });
});
