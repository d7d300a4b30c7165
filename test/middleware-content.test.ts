import { Readable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import zlib from 'node:zlib';
import type { HttpRequest, HttpResponse } from 'offloop/handlers';
import { compress, contentType, notModified, writeErrors } from 'offloop/middleware';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, type RawResponse, WAYS } from './support/http-raw.js';
import { fixture, startServer, type TestServer, within } from './support/server.js';

const LONG = 'all work and no play makes a long text. '.repeat(100);
const HAS_ZSTD = 'zstdCompressSync' in zlib;
const BEST = HAS_ZSTD ? 'zstd' : 'br';

function decode(encoding: string | undefined, body: Buffer): string {
  if (encoding === 'gzip') return zlib.gunzipSync(body).toString();
  if (encoding === 'br') return zlib.brotliDecompressSync(body).toString();
  if (encoding === 'zstd')
    return (zlib as unknown as { zstdDecompressSync(b: Buffer): Buffer }).zstdDecompressSync(body).toString();
  return body.toString();
}

describe.each(WAYS)('around $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(fixture('middleware/content.mjs'), { dispatch, ...(dispatch && { nMax: 1 }) });
  });
  afterAll(() => test.stop());
  const ask = async (method: string, path: string, ...headers: string[]): Promise<RawResponse> =>
    (await RawClient.open(test.port)).ask(method, path, ...headers);
  const get = (path: string, ...headers: string[]): Promise<RawResponse> => ask('GET', path, ...headers);
  const ALL = 'Accept-Encoding: gzip, deflate, br, zstd';

  describe('compress', () => {
    it.each([
      ['string', LONG],
      ['surrogate', `${LONG}\ufffd`],
      ['bytes', LONG],
      ['large', LONG.repeat(200)],
      ['json', JSON.stringify([LONG])],
      ['frozen', LONG],
      ['cookies', LONG],
      ['readable', LONG + LONG],
      ['web', LONG],
      ['web-stream', LONG + LONG],
      ['blob', LONG],
      ['generator', LONG],
      ['later', LONG],
    ])('sends a %s in fewer bytes', async (name, text) => {
      const plain = await get(`/compress/${name}`);
      expect([plain.header('content-encoding'), plain.header('vary')]).toEqual([
        undefined,
        'Accept-Encoding',
      ]);
      expect(plain.body.toString()).toBe(text);
      for (const encoding of ['gzip', 'br', ...(HAS_ZSTD ? ['zstd'] : [])]) {
        const answer = await get(`/compress/${name}`, `Accept-Encoding: ${encoding}`);
        expect(answer.status).toBe(name === 'web' ? 201 : 200);
        expect([answer.header('content-encoding'), answer.header('vary')]).toEqual([
          encoding,
          'Accept-Encoding',
        ]);
        expect(answer.body.length).toBeLessThan(text.length / 5);
        expect(decode(encoding, answer.body)).toBe(text);
        if (name === 'web') expect(answer.header('x-web')).toBe('yes');
        if (name === 'cookies') expect(answer.all('set-cookie')).toEqual(['a=1', 'b=2']);
      }
    });

    it.each([
      ['gzip, br, zstd', BEST],
      ['gzip;q=1, br;q=0.5, zstd;q=0.4', 'gzip'],
      ['br;q=0, zstd;q=0, gzip', 'gzip'],
      ['*', BEST],
      ['*;q=0.5, gzip;q=0', BEST],
      ['deflate, compress', undefined],
      ['gzip;q=0, br;q=0, zstd;q=0', undefined],
      ['identity', undefined],
      ['', undefined],
      ['GZIP', 'gzip'],
      [';;;,,,q=1', undefined],
      [Array.from({ length: 1000 }, () => 'x;q=0.1').join(','), undefined],
    ])('goes by the weights in Accept-Encoding: %.60s', async (accept, encoding) => {
      const answer = await get('/compress/string', `Accept-Encoding: ${accept}`);
      expect(answer.header('content-encoding')).toBe(encoding);
      expect(decode(encoding, answer.body)).toBe(LONG);
    });

    it.each([
      'short',
      'untyped',
      'image',
      'encoded',
      'untouchable',
      'partial',
      'empty',
      'nothing',
      'redirect',
      'channel',
    ])('leaves alone what is %s', async (name) => {
      const answer = await get(`/compress/${name}`, ALL);
      expect(answer.header('content-encoding')).toBe(name === 'encoded' ? 'x-mine' : undefined);
      expect(answer.header('vary')).toBe(undefined);
      expect(answer.body.toString()).toBe((await get(`/compress/${name}`)).body.toString());
    });

    it.each(['short-stream', 'web-short'])('does not blow up a short stream: %s', async (name) => {
      const answer = await get(`/compress/${name}`, ALL);
      expect([answer.body.toString(), answer.header('content-encoding')]).toEqual(['short', undefined]);
    });

    it('sends as it is what would not become smaller', async () => {
      const answer = await get('/compress/random', ALL);
      expect([answer.body.length, answer.header('content-encoding')]).toEqual([2000, undefined]);
    });

    it('makes strong tags weak, and adds to Vary what is not there', async () => {
      const tagged = await get('/compress/tagged', ALL);
      expect([tagged.header('etag'), tagged.header('vary')]).toEqual(['W/"v1"', 'Origin, Accept-Encoding']);
      expect((await get('/compress/tagged')).header('etag')).toBe('"v1"');
      const weak = await get('/compress/weak', ALL);
      expect([weak.header('etag'), weak.all('vary')]).toEqual(['W/"v1"', ['accept-encoding']]);
      expect((await get('/compress/starred', ALL)).header('vary')).toBe('*');
    });

    it.each(['string', 'blob', 'web', 'readable'])(
      'answers HEAD of a %s with the head of GET',
      async (name) => {
        const answer = await ask('HEAD', `/compress/${name}`, ALL);
        expect([answer.header('content-encoding'), answer.header('vary')]).toEqual([BEST, 'Accept-Encoding']);
        expect(answer.header('content-length')).toBe(undefined);
        const plain = await ask('HEAD', '/compress/string');
        expect(plain.header('content-length')).toBe(String(LONG.length));
      },
    );

    it('leaves files to their encoded siblings', async () => {
      const answer = await get('/compress/file', ALL);
      expect([answer.status, answer.header('content-encoding')]).toEqual([200, undefined]);
      expect(answer.body.toString()).toContain('all work and no play');
    });

    it('does as it is told', async () => {
      expect((await get('/gzip/image', ALL)).header('content-encoding')).toBe('gzip');
      expect((await get('/gzip/string', ALL)).header('content-encoding')).toBe(undefined);
    });

    it.each(['fails-early', 'bad-chunk'])('fails as the source fails: %s', async (name) => {
      expect((await get(`/compress/${name}`, ALL)).status).toBe(500);
      expect((await get('/compress/string', ALL)).status).toBe(200);
    });

    it('goes on serving behind a source that fails half way', async () => {
      const client = await RawClient.open(test.port);
      await client.ask('GET', '/compress/fails-late', ALL).catch(() => undefined);
      expect((await get('/compress/string', ALL)).status).toBe(200);
      expect(test.server.status).toBe('running');
    });

    it.each(['bad', 'bad-headers'])(
      'leaves it to the server to refuse what is no response: %s',
      async (name) => {
        expect((await get(`/compress/${name}`, ALL)).status).toBe(500);
        await expect.poll(() => test.errors.at(-1)?.error).toMatchObject({ code: 'OFFLOOP_BAD_RESPONSE' });
      },
    );
  });

  describe('notModified', () => {
    it('answers 304 to who has it, without what belongs to the content', async () => {
      const first = await get('/conditional/made');
      const etag = String(first.header('etag'));
      expect(etag).toMatch(/^"[\w-]{27}"$/);
      expect(first.body.toString()).toBe('made');
      for (const method of ['GET', 'HEAD']) {
        const again = await ask(method, '/conditional/made', `If-None-Match: "x", W/${etag}`);
        expect([again.status, again.body.length, again.header('content-length')]).toEqual([
          304,
          0,
          undefined,
        ]);
        expect([again.header('etag'), again.header('cache-control')]).toEqual([etag, 'no-cache']);
        expect([again.header('content-type'), again.header('content-language')]).toEqual([
          undefined,
          undefined,
        ]);
        expect(again.header('set-cookie')).toBe('a=1');
      }
      expect((await get('/conditional/made', 'If-None-Match: "other"')).status).toBe(200);
      expect((await get('/conditional/made', 'If-None-Match: *')).status).toBe(304);
      expect((await get('/conditional/made', 'If-Match: "other"')).status).toBe(412);
      expect((await ask('POST', '/conditional/made', 'If-None-Match: *', 'Content-Length: 0')).status).toBe(
        200,
      );
    });

    it('goes by Last-Modified too', async () => {
      const since = (date: string): Promise<RawResponse> =>
        get('/untagged/modified', `If-Modified-Since: ${date}`);
      expect((await since('Wed, 21 Oct 2015 07:28:00 GMT')).status).toBe(304);
      expect((await since('Wed, 21 Oct 2015 07:27:59 GMT')).status).toBe(200);
      expect((await since('yesterday')).status).toBe(200);
      expect((await get('/untagged/modified')).header('etag')).toBe(undefined);
      // If-None-Match counts alone.
      const both = await get(
        '/conditional/modified',
        'If-None-Match: "x"',
        'If-Modified-Since: Wed, 21 Oct 2025 07:28:00 GMT',
      );
      expect(both.status).toBe(200);
    });

    it('compares tags the handler has set, of streams too, and lets go of the stream', async () => {
      expect((await get('/conditional/modified-stream')).body.toString()).toBe('streamed');
      expect((await get('/conditional/modified-stream', 'If-None-Match: "s"')).status).toBe(304);
      expect((await get('/conditional/readable')).header('etag')).toBe(undefined);
    });

    it('leaves other statuses, channels and nothing alone', async () => {
      expect((await get('/conditional/failed', 'If-None-Match: *')).status).toBe(500);
      expect((await get('/conditional/nothing', 'If-None-Match: *')).status).toBe(404);
      expect((await get('/conditional/channel', 'If-None-Match: *')).body.toString()).toBe(LONG);
    });

    it.each(['"', '"a', 'W/', ',,,,', `${'"a",'.repeat(1500)}`, `"${' '.repeat(4000)}`, '""'])(
      'reads what is no list of tags as far as it is one: %.20s',
      async (value) => {
        expect((await get('/conditional/made', `If-None-Match: ${value}`)).status).toBe(200);
      },
    );

    it('inside of compress has tags that come back weak', async () => {
      const first = await get('/both/string', ALL);
      expect(first.header('content-encoding')).toBe(BEST);
      expect(first.header('etag')).toMatch(/^W\/"/);
      const again = await get('/both/string', ALL, `If-None-Match: ${first.header('etag')}`);
      expect([again.status, again.header('etag'), again.header('vary')]).toEqual([
        304,
        first.header('etag'),
        'Accept-Encoding',
      ]);
    });
  });

  describe('contentType', () => {
    it.each([
      ['/type/a.html', 'text/html; charset=utf-8'],
      ['/type/a.b/c.PNG', 'image/png'],
      ['/type/a.json?x.html', 'application/json; charset=utf-8'],
      ['/type/a.foo', 'text/x-foo'],
      ['/type/a.js', 'text/x-mine'],
      ['/type/a', undefined],
      ['/type/a.unknown', undefined],
      ['/type/a.constructor', undefined],
      ['/type/a.__proto__', undefined],
      ['/type/.html/x', undefined],
      [`/type/${'.a'.repeat(3000)}`, undefined],
    ])('goes by the extension of the path: %.40s', async (path, type) => {
      const answer = await get(path);
      expect([answer.status, answer.header('content-type')]).toEqual([200, type]);
    });

    it('leaves the type of a handler, and what has no body', async () => {
      expect((await get('/type-own/json')).header('content-type')).toBe('application/vnd.api+json');
    });
  });

  it('compress sends each event of a stream on as soon as it is there', async () => {
    const client = await RawClient.open(test.port);
    client.send(`GET /events HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n`);
    // Each is asked for when the one before has come.
    for (const _ of [1, 2, 3]) {
      const before = client.received;
      await expect
        .poll(async () => {
          await get('/next');
          return client.received;
        })
        .toBeGreaterThan(before);
    }
    expect(await client.head()).toMatch(/content-encoding: gzip/i);
  });

  describe('writeErrors', () => {
    const told = async (): Promise<unknown> => JSON.parse((await get('/told')).body.toString());
    const fail = async (path: string): Promise<void> => {
      const client = await RawClient.open(test.port);
      await client.ask('GET', path).catch(() => undefined);
    };

    it.each([
      ['fails-late', ['the middleware', 'as asked', '/writes/fails-late', 200]],
      ['fails-early', ['the middleware', 'as asked', '/writes/fails-early', 200]],
      ['web', ['the middleware', 'as asked', '/writes/web', 202]],
      ['own', ['the response', 'as asked', '/writes/own', 200]],
    ])('is told of a body that fails: %s', async (name, expected) => {
      await fail(`/writes/${name}`);
      await expect.poll(told).toEqual([expected]);
    });

    it('is told of nothing else', async () => {
      for (const name of ['string', 'nothing', 'channel', 'file', 'web-stream', 'bad'])
        await get(`/writes/${name}`);
      expect(await told()).toEqual([]);
    });
  });

  it('head answers HEAD with what GET would be answered', async () => {
    const answer = await ask('HEAD', '/head');
    expect([answer.status, answer.header('content-length')]).toEqual([200, '7']);
    expect((await get('/head')).body.toString()).toBe('got GET');
    expect((await ask('HEAD', '/headless')).status).toBe(405);
  });
});

describe('a stream that is compressed', () => {
  const request = { method: 'GET', headers: { 'accept-encoding': 'gzip' } } as unknown as HttpRequest;
  const headers = { 'content-type': 'text/event-stream' };
  const through = async (body: HttpResponse['body']): Promise<HttpResponse> =>
    (await compress()(() => ({ headers, body }))(request)) as HttpResponse;

  it('sends on each piece as soon as no more is there', async () => {
    let send: (text: string) => void = () => undefined;
    let wait = new Promise<string>((resolve) => {
      send = resolve;
    });
    async function* events(): AsyncGenerator<string> {
      for (;;) {
        const text = await wait;
        if (text === '') return;
        wait = new Promise((resolve) => {
          send = resolve;
        });
        yield text;
      }
    }
    const { body, headers: sent } = await within(through(events()), 'the head, before the first event');
    expect(sent).toMatchObject({ 'Content-Encoding': 'gzip' });
    const out = (body as Readable).pipe(zlib.createGunzip())[Symbol.asyncIterator]();
    for (const text of ['data: 1\n\n', 'data: 2\n\n', `data: ${'x'.repeat(5000)}\n\n`]) {
      const next = out.next() as Promise<IteratorResult<Buffer>>;
      await turn();
      send(text);
      let { value } = await within(next, 'an event');
      while (value.length < text.length)
        value = Buffer.concat([value, (await within(out.next(), 'the rest')).value as Buffer]);
      expect(value.toString()).toBe(text);
    }
    send('');
    expect((await out.next()).done).toBe(true);
  });

  it('lets go of its source when its reader goes away', async () => {
    let cancelled: unknown;
    const endless = new ReadableStream({
      start: (controller) => controller.enqueue('data: 1\n\n'.repeat(200)),
      cancel: (reason) => {
        cancelled = reason ?? 'yes';
      },
    });
    const { body } = await through(endless as never);
    (body as Readable).destroy();
    await expect.poll(() => cancelled).toBe('yes');

    const readable = new Readable({ read() {} });
    readable.push('x');
    const second = await through(readable);
    (second.body as Readable).destroy();
    await expect.poll(() => readable.destroyed).toBe(true);
  });

  it('waits for a slow reader', async () => {
    let made = 0;
    async function* much(): AsyncGenerator<Uint8Array> {
      for (; made < 1000; made++) yield crypto.getRandomValues(new Uint8Array(65536));
    }
    const { body } = await through(much());
    (body as Readable).read(0);
    for (let i = 0; i < 200; i++) await turn();
    expect(made).toBeLessThan(50);
    (body as Readable).destroy();
  });

  it('fails its reader when its source fails', async () => {
    async function* broken(): AsyncGenerator<string> {
      yield LONG;
      await turn();
      throw new Error('as asked');
    }
    const { body } = await through(broken());
    for (let i = 0; i < 10; i++) await turn();
    await expect(
      (async () => {
        for await (const _ of body as Readable);
      })(),
    ).rejects.toThrow('as asked');
  });
});

describe('the options', () => {
  it.each([
    [
      `compress: option encodings is ["deflate"] (array)`,
      () => compress({ encodings: ['deflate' as never] }),
    ],
    ['compress: option encodings is [] (array)', () => compress({ encodings: [] })],
    ['compress: option minSize is -1 (number)', () => compress({ minSize: -1 })],
    ['compress: option filter is {} (object)', () => compress({ filter: {} as never })],
    ['compress: option level is {"br":12} (object)', () => compress({ level: { br: 12 } })],
    ['compress: option level is 6 (number)', () => compress({ level: 6 as never })],
    ['compress: there is no option threshold', () => compress({ threshold: 1 } as never)],
    ['notModified: option etag is "weak" (string)', () => notModified({ etag: 'weak' as never })],
    ['writeErrors: option handle is undefined; allowed: a function', () => writeErrors(undefined as never)],
    ['contentType: option types is {".x":"a/b"} (object)', () => contentType({ types: { '.x': 'a/b' } })],
  ])('are refused with their value and its type: %s', (message, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_OPTION' }));
    expect(make).toThrow(message);
  });

  it.skipIf(HAS_ZSTD)('say that this Node has no zstd', () => {
    expect(() => compress({ encodings: ['zstd'] })).toThrow("this Node has no 'zstd'");
  });
});
