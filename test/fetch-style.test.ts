import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { fetchHandler } from '../src/handlers/fetch.js';
import { clientGone } from '../src/handlers/reasons.js';
import { BadRequestError, RingRequest } from '../src/handlers/request.js';

/** Taken before there was a handler, as the modules do that it imports. */
const { Request: Before } = globalThis;
/** Whether Node keeps the inside of a Request where our requests can have one: up to Node 22. */
const isOpen = Object.getOwnPropertySymbols(new Before('http://localhost')).length > 0;
class Derived extends Before {}

interface Parts {
  method?: string;
  path?: string;
  query?: string;
  scheme?: string;
  headers?: [string, string][];
  body?: string;
}

/** What a Fetch-style handler gets for a request, and that request. */
function requested({
  method = 'GET',
  path = '/',
  query = '',
  scheme = 'http',
  headers = [['host', 'example.org']],
  body,
}: Parts = {}): { request: Request; ring: RingRequest } {
  const ring = new RingRequest({
    isHead: method === 'HEAD',
    head: [method, path, query, '', scheme, '', ...headers.flat()].join('\n'),
    body: body === undefined ? null : new TextEncoder().encode(body),
    addressOf: () => '',
  });
  let request: Request | undefined;
  void fetchHandler({
    fetch: (given) => {
      request = given;
      return new Response();
    },
  })(ring);
  return { request: request as Request, ring };
}

describe('the request of a Fetch-style handler', () => {
  it.each([
    ['/', ''],
    ['/a/b.c/~d', '?x=1&y=%20+z'],
    ['/a//b', '?'],
    ['//a', '?a?b/c'],
    ['/a/../b', ''],
    ['/a/./b/%2e%2E/c', ''],
    ['/.hidden', ''],
    ['/a/..', ''],
    ['/a\\b', '?\\'],
    ['/ä', '?ä'],
    ['/"<>`{}|^', '?"<>`{}|^'],
    ["/it's", "?it's"],
    ['/a;b=1,2:3@4', '?a[]=1&b={}|'],
    ['/%', '?%'],
  ])('has the URL a Request has for %s%s', (path, query) => {
    const { request } = requested({ path, query });
    expect(request.url).toBe(new Before(`http://example.org${path}${query}`).url);
  });

  it.each([
    ['http', 'EXAMPLE.org:80', 'http://example.org/'],
    ['https', 'example.org:443', 'https://example.org/'],
    ['https', 'example.org:80', 'https://example.org:80/'],
    ['http', '[::1]:8090', 'http://[::1]:8090/'],
    ['http', '127.1:8090', 'http://127.0.0.1:8090/'],
    ['http', 'bücher.example', 'http://xn--bcher-kva.example/'],
  ])('makes a URL of %s and the host %s', (scheme, host, url) => {
    expect(requested({ scheme, headers: [['host', host]] }).request.url).toBe(url);
  });

  it('has a URL without a Host header, too', () => {
    expect(requested({ headers: [] }).request.url).toBe('http://localhost/');
  });

  it.each([
    '',
    'a b',
    'user@example.org',
    'example.org/path',
    'a?b',
    'a#b',
    'a:b',
    'a:99999',
    '[::1',
    '1.2.3.999',
    'a\\b',
  ])('is a bad request with the host %j', (host) => {
    const { request } = requested({ headers: [['host', host]] });
    expect(() => request.url).toThrow(BadRequestError);
    expect(() => request.clone()).toThrow(BadRequestError);
  });

  it('passes for a Request', () => {
    const { request } = requested({ method: 'POST', body: 'x' });
    expect(request).toBeInstanceOf(Request);
    expect(request).toBeInstanceOf(Before);
    expect(Object.prototype.toString.call(request)).toBe('[object Request]');
    expect(inspect(request)).toContain("method: 'POST'");
    expect([request.mode, request.credentials, request.destination]).toEqual(['cors', 'same-origin', '']);
    expect(request.clone()).toBeInstanceOf(Request);
    expect(new Request('http://localhost')).toBeInstanceOf(Before);
    expect([Request.name, request.constructor]).toEqual(['Request', Request]);
  });

  it('leaves the globals what they are', async () => {
    expect([typeof fetch, fetch.name, Request.length]).toEqual(['function', 'fetch', Before.length]);
    await expect(fetch('data:,hello').then((answer) => answer.text())).resolves.toBe('hello');
  });

  it('is no Request to whom it does not belong', () => {
    const { request } = requested();
    const prototype = Object.getPrototypeOf(request) as Request;
    expect(() => prototype.mode).toThrow(TypeError);
    expect(() => Reflect.get(prototype, 'clone').call({})).toThrow(TypeError);
  });

  it('gives what it has to others that are made of it', async () => {
    const parts: Parts = {
      method: 'PUT',
      path: '/x',
      headers: [
        ['host', 'a'],
        ['x-a', '1'],
      ],
      body: 'body',
    };
    for (const Class of isOpen ? [Request, Before, Derived] : [Request]) {
      const copy = new Class(requested(parts).request, { headers: { 'x-b': '2' } });
      expect([copy.method, copy.url, copy.headers.get('x-a'), copy.headers.get('x-b')]).toEqual([
        'PUT',
        'http://a/x',
        null,
        '2',
      ]);
      expect(await copy.text()).toBe('body');
    }
  });

  it('has headers that can be changed, before and behind a real one', () => {
    const { request } = requested({
      headers: [
        ['host', 'a'],
        ['x-a', '1'],
      ],
    });
    expect(request.headers).toBe(request.headers);
    request.headers.set('x-b', '2');
    expect(Object.fromEntries(request.clone().headers)).toEqual({ host: 'a', 'x-a': '1', 'x-b': '2' });
    request.headers.set('x-c', '3');
    expect(new Request(request).headers.get('x-c')).toBe('3');
  });

  it('aborts when its request does, and so does what was made of it', () => {
    const { request, ring } = requested();
    const { signal } = request;
    const clone = request.clone();
    const reason = clientGone();
    ring._abort(reason);
    expect([signal.aborted, request.signal.aborted, clone.signal.aborted]).toEqual([true, true, true]);
    expect([signal.reason, clone.signal.reason]).toEqual([reason, reason]);
  });

  it.each(['text', 'json', 'arrayBuffer', 'bytes', 'blob'] as const)(
    'has a body that %s() reads once',
    async (how) => {
      const { request } = requested({ method: 'POST', body: '{"a":1}' });
      expect(request.bodyUsed).toBe(false);
      const read = (await (request as Request & { bytes(): Promise<Uint8Array> })[how]()) as unknown;
      const text =
        typeof read === 'string'
          ? read
          : how === 'json'
            ? JSON.stringify(read)
            : await new Response(read as never).text();
      expect(text).toBe('{"a":1}');
      expect(request.bodyUsed).toBe(true);
      await expect(request.text()).rejects.toThrow(TypeError);
      expect(() => request.clone()).toThrow(TypeError);
    },
  );

  it('has a body that can be changed by who reads it, without changing it for others', async () => {
    const { request, ring } = requested({ method: 'POST', body: 'abc' });
    new Uint8Array(await request.arrayBuffer()).fill(0);
    expect(await ring.text()).toBe('abc');
  });

  it('says what is no JSON as the platform does', async () => {
    const { request } = requested({ method: 'POST', body: '{' });
    await expect(request.json()).rejects.toThrow(SyntaxError);
  });

  it('has no body to read with GET, and none that is used up', async () => {
    const { request } = requested({ body: 'ignored' });
    expect([await request.text(), await request.text(), request.body, request.bodyUsed]).toEqual([
      '',
      '',
      null,
      false,
    ]);
  });
});
