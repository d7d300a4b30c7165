import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { fetchHandler } from '../src/handlers/fetch.js';
import { encode } from '../src/handlers/respond.js';

/** Node's own, taken before there was a handler. */
const Native = globalThis.Response;
class Before extends Native {}
fetchHandler({ fetch: () => new Response() });
const Light = globalThis.Response;

const GET = { isHead: false, method: 'GET', headers: {} };

/** What can be seen of a Response, or what making it throws. */
async function seen(make: (Response: typeof Native) => Response, Class: typeof Native): Promise<unknown> {
  let made: Response;
  try {
    made = make(Class);
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
  const { status, statusText, ok, type, url, redirected, bodyUsed, body } = made;
  const copy = made.clone();
  const bytes = Buffer.from(await made.arrayBuffer()).toString('hex');
  return {
    ...{ status, statusText, ok, type, url, redirected, bodyUsed, hasBody: body !== null },
    headers: [...made.headers],
    bytes,
    copied: [copy.status, [...copy.headers], await copy.text()],
    usedNow: made.bodyUsed,
    again: await made.text().catch((error: Error) => error.name),
    isOne: [made instanceof Native, made instanceof Light, made.constructor === Response, String(made)],
  };
}

const MAKERS: ((Response: typeof Native) => Response)[] = [
  (R) => new R(),
  (R) => new R(null),
  (R) => new R(''),
  (R) => new R('hello'),
  (R) => new R('grüße \ud800'),
  (R) => new R(undefined, undefined),
  (R) => new R('x', null as never),
  (R) => new R('x', 5 as never),
  (R) => new R('x', {}),
  (R) => new R('x', { status: 404 }),
  (R) => new R('x', { status: 599, statusText: 'Odd' }),
  (R) => new R('x', { status: 199 }),
  (R) => new R('x', { status: 600 }),
  (R) => new R('x', { status: 200.5 }),
  (R) => new R('x', { status: '201' as never }),
  (R) => new R('x', { status: 204 }),
  (R) => new R(null, { status: 204 }),
  (R) => new R(null, { status: 304, headers: { etag: '"a"' } }),
  (R) => new R('x', { statusText: 'no\nline' }),
  (R) => new R('x', { headers: { 'content-type': 'text/html', 'x-a': '1' } }),
  (R) =>
    new R('x', {
      headers: [
        ['set-cookie', 'a=1'],
        ['set-cookie', 'b=2'],
        ['X-A', ' 1 '],
      ],
    }),
  (R) => new R('x', { headers: new Headers({ 'x-a': '1' }) }),
  (R) => new R('x', { headers: { 'bad name': '1' } }),
  (R) => new R('x', { headers: { 'x-a': 'two\nlines' } }),
  (R) => new R('x', { headers: null as never }),
  (R) => new R('x', new R('y', { status: 201, headers: { 'x-a': '1' } })),
  (R) => new R(new R('y').body, { status: 202 }),
  (R) => new R(new Uint8Array([1, 2, 255])),
  (R) => new R(new Uint8Array([1, 2, 3, 4]).subarray(1, 3)),
  (R) => new R(new Uint8Array([1, 2, 3]).buffer),
  (R) => new R(new DataView(new ArrayBuffer(3))),
  (R) => new R(new Blob(['x'], { type: 'text/css' })),
  (R) => new R(new URLSearchParams({ a: '1' })),
  (R) => new R(5 as never),
  (R) => new R({ toString: () => 'an object' } as never),
  (R) => R.json({ a: 1 }),
  (R) => R.json(null, { status: 201 }),
  (R) => R.json([], { headers: { 'content-type': 'application/problem+json' } }),
  (R) => R.json({}, { headers: { 'x-a': '1' }, status: 500 }),
  (R) => R.json(undefined),
  (R) => R.json(1n),
  (R) => R.json({}, { status: 204 }),
  (R) => R.redirect('http://a.test/b', 307),
  (R) => R.redirect('no url', 302),
];

describe('a Response on a thread with Fetch-style handlers', () => {
  it.each(MAKERS.map((make) => [String(make).replace(/\s+/g, ' '), make] as const))(
    'is like that of the platform: %s',
    async (_, make) => {
      expect(await seen(make, Light)).toEqual(await seen(make, Native));
    },
  );

  it('has its own copy of bytes, and of headers', async () => {
    const bytes = new Uint8Array([1, 2, 3]);
    const headers = new Headers({ 'x-a': '1' });
    const response = new Response(bytes, { headers });
    bytes.fill(9);
    headers.set('x-a', '2');
    expect([...new Uint8Array(await response.arrayBuffer())]).toEqual([1, 2, 3]);
    expect(response.headers.get('x-a')).toBe('1');
  });

  it('has headers that can be changed, before and after its body is asked for', async () => {
    const response = new Response('x');
    const { headers } = response;
    headers.set('x-a', '1');
    expect(response.body).toBeInstanceOf(ReadableStream);
    headers.set('x-b', '2');
    const wanted = [
      ['content-type', 'text/plain;charset=UTF-8'],
      ['x-a', '1'],
      ['x-b', '2'],
    ];
    expect([...response.headers]).toEqual(wanted);
    expect([...response.clone().headers]).toEqual(wanted);
    expect([...new Response(response.body, response).headers]).toEqual(wanted);
    await response.text();
    expect(() => encode(response, GET)).toThrow('read already');
  });

  it('may be derived from, also by classes from before', async () => {
    class Derived extends Response {
      get twice(): number {
        return this.status * 2;
      }
    }
    const derived = new Derived('x', { status: 201 });
    expect([derived.twice, await derived.text()]).toEqual([402, 'x']);
    expect(derived).toBeInstanceOf(Response);
    expect(await new Before('y').text()).toBe('y');
    expect(new Before('y')).toBeInstanceOf(Response);
  });

  it('is sent as it is, once', () => {
    const response = new Response('hello', { status: 201, headers: { 'x-a': '1' } });
    expect(encode(response, GET)).toMatchObject({
      status: 201,
      head: expect.stringContaining('x-a: 1'),
      payload: 'hello',
    });
    expect(response.bodyUsed).toBe(true);
    expect(() => encode(response, GET)).toThrow('read already');
    expect(encode(new Response('x'), GET)).toMatchObject({
      head: expect.stringContaining('content-type: text/plain;charset=UTF-8'),
    });
    const empty = new Response(null, { status: 202 });
    for (let i = 0; i < 2; i++) expect(encode(empty, GET)).toMatchObject({ status: 202, payload: 0 });
  });

  it('cannot be read any more when it has been sent', async () => {
    const response = new Response('hello');
    void encode(response, GET);
    await expect(response.text()).rejects.toThrow(TypeError);
  });

  it('is shown as a Response', () => {
    expect(Object.prototype.toString.call(new Response('x'))).toBe('[object Response]');
    expect(inspect(new Response('x'))).toContain('Response');
  });
});
