import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { file } from '../src/handlers/file.js';
import { Gather, isUnread } from '../src/handlers/gather.js';
import { html, json, redirect, text } from '../src/handlers/helpers.js';
import { encodeText, encode as encodeValue, type RequestInfo } from '../src/handlers/respond.js';
import { type Answer, FLAG_CLOSE, FLAG_NOTHING, FLAG_SERVER } from '../src/protocol.js';

const GET: RequestInfo = { isHead: false, method: 'GET', headers: {} };
const HEAD: RequestInfo = { isHead: true, method: 'HEAD', headers: {} };

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const asText = ({ payload }: Answer): string =>
  typeof payload === 'string' ? payload : Buffer.from(payload as Uint8Array).toString();

/** A small body that is there at once is an answer like any other. */
async function encode(value: unknown, request: RequestInfo): Promise<Answer> {
  const encoded = await encodeValue(value, request);
  const known = isUnread(encoded) ? await new Gather(encoded).run() : encoded;
  if ('unread' in known) throw new Error('the body is neither small nor there');
  return known;
}

async function refusal(value: unknown, request = GET): Promise<{ code: string; message: string }> {
  try {
    await encode(value, request);
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('it was taken');
}

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'offloop-respond-'));
  writeFileSync(join(directory, 'page.html'), '<p>page</p>');
  writeFileSync(join(directory, 'empty.txt'), '');
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('a handler that returns nothing', () => {
  it.each([null, undefined])('is a 404 of its own kind: %o', async (value) => {
    expect(await encode(value, GET)).toEqual({ status: 404, head: '', payload: 0, flags: FLAG_NOTHING });
  });
});

describe('what is no response', () => {
  it.each([
    ['a string', 'hello'],
    ['a number', 200],
    ['a boolean', true],
    ['a symbol', Symbol('x')],
    ['a bigint', 1n],
    ['a function', () => undefined],
    ['an array', [200, {}, 'x']],
  ])('is refused by name: %s', async (what, value) => {
    const { code, message } = await refusal(value);
    expect(code).toBe('OFFLOOP_BAD_RESPONSE');
    expect(message).toContain(what.replace(/^an? /, ''));
  });
});

describe('a status', () => {
  it('is 200 when none is given', async () => {
    expect(await encode({}, GET)).toMatchObject({ status: 200, payload: 0, head: '', flags: 0 });
    expect(await encode(Object.create(null), GET)).toMatchObject({ status: 200 });
  });

  it.each([200, 201, 299, 404, 418, 599])('may be %i', async (status) => {
    expect(await encode({ status }, GET)).toMatchObject({ status });
  });

  it.each([
    0,
    -200,
    100,
    101,
    199,
    600,
    1000,
    200.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '200',
    null,
    {},
    [200],
    200n,
  ])('may not be %s', async (status) => {
    if (status === null) return expect(await encode({ status }, GET)).toMatchObject({ status: 200 });
    expect(await refusal({ status })).toMatchObject({
      code: 'OFFLOOP_BAD_RESPONSE',
      message: expect.stringContaining('status'),
    });
  });
});

describe('headers', () => {
  const head = async (headers: unknown): Promise<string> => (await encode({ headers }, GET)).head;

  it('are written in the order they are given, as they are spelt', async () => {
    expect(await head({ 'X-One': '1', 'x-two': '2' })).toBe('X-One: 1\r\nx-two: 2');
  });

  it('may be strings, numbers, arrays of them, and null for none', async () => {
    expect(await head({ a: 1, b: ['x', 2], c: null, d: undefined, e: [], f: '' })).toBe(
      'a: 1\r\nb: x\r\nb: 2\r\nf: ',
    );
  });

  it('may come in a Headers, with each Set-Cookie on its own line', async () => {
    const headers = new Headers({ 'X-A': 'b' });
    headers.append('set-cookie', 'a=1');
    headers.append('set-cookie', 'b=2');
    expect((await head(headers)).split('\r\n').sort()).toEqual([
      'set-cookie: a=1',
      'set-cookie: b=2',
      'x-a: b',
    ]);
  });

  it('may come in a Map', async () => {
    expect(await head(new Map([['a', 'b']]))).toBe('a: b');
  });

  it.each(['content-length', 'Transfer-Encoding', 'KEEP-ALIVE', 'Date'])(
    'leave %s to the server',
    async (name) => {
      expect(await head({ [name]: '5', x: 'y' })).toBe('x: y');
    },
  );

  it.each([
    ['close', FLAG_CLOSE],
    ['Close', FLAG_CLOSE],
    ['keep-alive, close', FLAG_CLOSE],
    ['keep-alive', 0],
    ['closed', 0],
  ])('take Connection: %s as a wish', async (value, flags) => {
    expect(await encode({ headers: { Connection: value } }, GET)).toMatchObject({ head: '', flags });
  });

  it('let a handler call the server what it likes', async () => {
    expect(await encode({ headers: { Server: 'mine' } }, GET)).toMatchObject({
      head: 'Server: mine',
      flags: FLAG_SERVER,
    });
    expect(await encode({ headers: { Server: null } }, GET)).toMatchObject({ head: '', flags: 0 });
  });

  it.each([1, 'a: b', true])('may not be %o', async (headers) => {
    expect((await refusal({ headers })).code).toBe('OFFLOOP_BAD_RESPONSE');
  });

  it.each([{ a: {} }, { a: true }, { a: Symbol('x') }, { a: () => 'x' }, { a: [['x', {}]] }, { a: 1n }])(
    'may not have a value like %o',
    async (headers) => {
      expect(await refusal({ headers })).toMatchObject({
        code: 'OFFLOOP_BAD_RESPONSE',
        message: expect.stringContaining('header a'),
      });
    },
  );

  it.each(['', ' ', 'a b', 'a:', 'a\r\nb', 'a\n', 'é', 'a\0', '"', '(', 'a/b', '\u212a'])(
    'may not be called %j',
    async (name) => {
      expect((await refusal({ headers: { [name]: 'x' } })).code).toBe('OFFLOOP_BAD_RESPONSE');
      // Nor the second time, when it has been seen before.
      expect((await refusal({ headers: { [name]: 'x' } })).code).toBe('OFFLOOP_BAD_RESPONSE');
    },
  );

  it.each(['constructor', '__proto__', 'toString', 'hasOwnProperty'])('may be called %s', async (name) => {
    expect(await head(new Map([[name, 'x']]))).toBe(`${name}: x`);
  });

  it.each(['a\r\nset-cookie: x=1', 'a\nb', 'a\rb', 'a\0b', '\x01', 'a\x7f', '\x0b', '\x1b[0m'])(
    'may not have the value %j, which could end the line',
    async (value) => {
      for (const headers of [
        { a: value },
        { a: [value] },
        new Map([['a', value]]),
        { 'content-type': value },
        { date: value },
      ]) {
        expect((await refusal({ headers })).code).toBe('OFFLOOP_BAD_RESPONSE');
      }
    },
  );

  it('never let CR, LF, NUL or another control character out, whatever they are made of', async () => {
    let seed = 12345;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
      return seed % n;
    };
    const nasty = [
      0, 9, 10, 11, 13, 27, 32, 58, 127, 133, 160, 255, 0x10a, 0x10d, 0x2028, 0x2029, 0xd800, 0xdc0a, 0xfeff,
      0xff0a,
    ];
    const character = (): string => {
      const kind = random(4);
      if (kind === 0) return String.fromCharCode(nasty[random(nasty.length)] as number);
      if (kind === 1) return String.fromCharCode(random(0x110));
      return String.fromCharCode(kind === 2 ? 97 + random(26) : random(0x10000));
    };
    const word = (most: number): string => Array.from({ length: random(most) }, character).join('');
    let taken = 0;
    for (let i = 0; i < 20_000; i++) {
      const headers = new Map<string, string | string[]>([
        [random(3) === 0 ? word(6) : `x-${i % 50}`, random(5) === 0 ? [word(8), word(8)] : word(8)],
      ]);
      try {
        const { head: written } = (await encode({ headers }, GET)) as Answer;
        taken++;
        for (const line of written.split('\r\n')) {
          // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
          expect(line).not.toMatch(/[\0-\x08\x0a-\x1f\x7f]/);
          // What the engine makes of it on the wire: no byte of the UTF-8 form may end the line either.
          expect(Buffer.from(line).toString('latin1')).not.toMatch(/[\0\r\n]/);
        }
      } catch (error) {
        expect(error).toMatchObject({ code: 'OFFLOOP_BAD_RESPONSE' });
      }
    }
    expect(taken).toBeGreaterThan(1000);
  });
});

describe('a body', () => {
  const text_ = 'grüße';
  const kinds: [string, () => unknown][] = [
    ['a string', () => text_],
    ['a Uint8Array', () => new TextEncoder().encode(text_)],
    ['a Buffer', () => Buffer.from(text_)],
    [
      'a view on part of a buffer',
      () => new Uint8Array(new TextEncoder().encode(`ab${text_}cd`).buffer, 2, 7),
    ],
    ['an ArrayBuffer', () => new TextEncoder().encode(text_).buffer],
    [
      'shared memory',
      () => {
        const shared = new Uint8Array(new SharedArrayBuffer(7));
        shared.set(new TextEncoder().encode(text_));
        return shared;
      },
    ],
    ['a DataView', () => new DataView(new TextEncoder().encode(text_).buffer)],
    ['an array of chunks', () => ['gr', new TextEncoder().encode('üß'), 'e']],
    ['a Set of chunks', () => new Set(['grü', 'ße'])],
    [
      'a generator',
      () =>
        (function* () {
          yield 'grü';
          yield 'ße';
        })(),
    ],
    [
      'an async generator',
      () =>
        (async function* () {
          yield 'grü';
          await Promise.resolve();
          yield new TextEncoder().encode('ße');
        })(),
    ],
    ['a web stream', () => new Blob([text_]).stream()],
    ['a Node stream', () => Readable.from(['grü', Buffer.from('ße')])],
    ['a Blob', () => new Blob([text_])],
  ];

  it.each(kinds)('may be %s', async (_, make) => {
    const answer = await encode({ body: make() }, GET);
    expect(asText(answer)).toBe(text_);
    expect(answer.status).toBe(200);
  });

  it.each(kinds)('may be %s, of which HEAD is sent no byte', async (_, make) => {
    const { payload } = await encode({ body: make() }, HEAD);
    expect(payload === null || payload === 7).toBe(true);
  });

  it.each(kinds)('is not sent with 204, 205 and 304: %s', async (_, make) => {
    expect((await encode({ status: 204, body: make() }, GET)).payload).toBeNull();
    expect((await encode({ status: 304, body: make() }, GET)).payload).toBeNull();
    expect((await encode({ status: 205, body: make() }, GET)).payload).toBe(0);
  });

  it.each([null, undefined, ''])('that is %o is empty', async (body) => {
    expect((await encode({ body }, GET)).payload).toBe(0);
  });

  it('in bytes never drags the buffer around it along', async () => {
    const large = new Uint8Array(1 << 20);
    const { payload } = await encode({ body: large.subarray(10, 20) }, GET);
    expect((payload as Uint8Array).buffer.byteLength).toBe(10);
    const pooled = (await encode({ body: Buffer.from('abc') }, GET)).payload as Uint8Array;
    expect(pooled.buffer.byteLength).toBe(3);
  });

  it.each([
    ['a number', 5],
    ['a boolean', true],
    ['an object', { a: 1 }],
    ['a Date', new Date()],
    ['a Map of pairs', new Map([['a', 1]])],
    ['an array of numbers', [1, 2]],
    ['a function', () => 'x'],
    ['a promise', Promise.resolve('x')],
  ])('may not be %s', async (_, body) => {
    expect((await refusal({ body })).code).toBe('OFFLOOP_BAD_RESPONSE');
  });

  it('that fails on the way is the error of its source', async () => {
    const failing = async function* (): AsyncGenerator<string> {
      yield 'a';
      throw new RangeError('dry');
    };
    await expect(encode({ body: failing() }, GET)).rejects.toThrow(new RangeError('dry'));
  });

  it('that HEAD does not need is let go', async () => {
    let cancelled = false;
    const stream = new ReadableStream({
      cancel: () => {
        cancelled = true;
      },
    });
    await encode({ body: stream }, HEAD);
    expect(cancelled).toBe(true);
    const readable = new Readable({ read: () => undefined });
    await encode({ body: readable }, HEAD);
    expect(readable.destroyed).toBe(true);
  });
});

describe('a HEAD answer', () => {
  it('has the length of the body it stands for', async () => {
    expect((await encode({ body: 'grüße' }, HEAD)).payload).toBe(7);
    expect((await encode({ body: bytes(1, 2, 3) }, HEAD)).payload).toBe(3);
    expect((await encode({}, HEAD)).payload).toBe(0);
  });

  it('has the length the handler gives when there is no body', async () => {
    expect((await encode({ headers: { 'Content-Length': '123' } }, HEAD)).payload).toBe(123);
    expect((await encode({ headers: { 'Content-Length': 7 } }, HEAD)).payload).toBe(7);
    for (const value of ['-1', '1e3', 'x', '', '1, 2', ' 5', '9'.repeat(30)]) {
      expect((await encode({ headers: { 'content-length': value } }, HEAD)).payload).toBe(0);
    }
  });
});

describe('a file', () => {
  it('is sent with the type of its name', async () => {
    const answer = await encode({ body: file(join(directory, 'page.html')) }, GET);
    expect(asText(answer)).toBe('<p>page</p>');
    expect(answer.head.split('\r\n')).toContain('content-type: text/html; charset=utf-8');
  });

  it('is sent with the type the handler gives', async () => {
    const types = async (response: object): Promise<string[] | null> =>
      (await encode(response, GET)).head.match(/content-type: .*/gi);
    const body = file(join(directory, 'page.html'));
    expect(await types({ body, headers: { 'Content-Type': 'x/y' } })).toEqual(['Content-Type: x/y']);
    const other = file(join(directory, 'page.html'), { contentType: 'a/b' });
    expect(await types({ body: other })).toEqual(['content-type: a/b']);
  });

  it('has its size told to HEAD', async () => {
    expect((await encode({ body: file(join(directory, 'page.html')) }, HEAD)).payload).toBe(11);
  });

  it('may be empty', async () => {
    const { payload } = await encode({ body: file(join(directory, 'empty.txt')) }, GET);
    expect(payload === 0 || (payload as Uint8Array).byteLength === 0).toBe(true);
  });

  it.each(['nowhere.txt', 'page.html/inside', '', 'x'.repeat(300)])(
    'that is not there is a 404: %j',
    async (name) => {
      expect(await encode({ body: file(join(directory, name)) }, GET)).toMatchObject({ status: 404 });
    },
  );
});

describe('a web Response', () => {
  it('is sent with its status, headers and body', async () => {
    const answer = await encode(new Response('hi', { status: 201, headers: { 'x-a': 'b' } }), GET);
    expect(answer.status).toBe(201);
    expect(answer.head.split('\r\n').sort()).toEqual(['content-type: text/plain;charset=UTF-8', 'x-a: b']);
    expect(asText(answer)).toBe('hi');
  });

  it('may be without a body, a redirect, or JSON', async () => {
    expect(await encode(new Response(null, { status: 204 }), GET)).toMatchObject({
      status: 204,
      payload: null,
    });
    expect(await encode(Response.redirect('http://a.test/', 302), GET)).toMatchObject({
      status: 302,
      head: 'location: http://a.test/',
    });
    expect(asText(await encode(Response.json({ a: 1 }), GET))).toBe('{"a":1}');
  });

  it('is refused when it is an error or has been read', async () => {
    expect((await refusal(Response.error())).code).toBe('OFFLOOP_BAD_RESPONSE');
    const read = new Response('x');
    await read.text();
    expect((await refusal(read)).code).toBe('OFFLOOP_BAD_RESPONSE');
  });

  it('is let go when HEAD does not need it', async () => {
    let cancelled = false;
    const stream = new ReadableStream({
      cancel: () => {
        cancelled = true;
      },
    });
    expect((await encode(new Response(stream), HEAD)).payload).toBeNull();
    expect(cancelled).toBe(true);
  });
});

describe('the short ways', () => {
  it('write JSON, text, HTML and redirects', async () => {
    expect(await encode(json({ a: 1 }, { status: 201 }), GET)).toMatchObject({
      status: 201,
      head: 'content-type: application/json; charset=utf-8',
      payload: '{"a":1}',
    });
    expect((await encode(text('x'), GET)).head).toBe('content-type: text/plain; charset=utf-8');
    expect((await encode(html('x', { headers: { a: 'b' } }), GET)).head).toBe(
      'content-type: text/html; charset=utf-8\r\na: b',
    );
    expect(await encode(redirect('/there'), GET)).toMatchObject({
      status: 302,
      head: 'location: /there',
      payload: 0,
    });
    expect(await encode(redirect(new URL('http://a.test/é'), 308), GET)).toMatchObject({
      status: 308,
      head: 'location: http://a.test/%C3%A9',
    });
  });

  it('refuse what has no JSON', () => {
    expect(() => json(undefined)).toThrow(TypeError);
    expect(() => json(() => 1)).toThrow(TypeError);
  });

  it('cannot be made to split a response', async () => {
    expect((await refusal(redirect('/a\r\nset-cookie: x=1'))).code).toBe('OFFLOOP_BAD_RESPONSE');
  });

  it('have one for the server itself', () => {
    expect(encodeText(400, 'Bad Request', true)).toEqual({
      status: 400,
      head: 'content-type: text/plain; charset=utf-8',
      payload: 11,
      flags: 0,
    });
  });
});
