import { pathToFileURL } from 'node:url';
import { createWorkerPool } from 'offloop';
import { describe, expect, it, vi } from 'vitest';
import { contextOf, type Mount, Router } from '../src/io/router.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, until } from './support/server.js';

const mount = (name: string): Mount =>
  ({ context: name, dispatcher: { close: () => undefined } }) as unknown as Mount;

/** A router with a mount of its own name for each of `keys`: '/path' or 'host/path'. */
function routerOf(...keys: string[]): (host: string, path: string) => string | undefined {
  const router = new Router();
  for (const key of keys) {
    const at = key.indexOf('/');
    router.set(at === 0 ? undefined : key.slice(0, at), key.slice(at), mount(key));
  }
  return (host, path) => router.match(host, path)?.context;
}

describe('the router', () => {
  it('finds the longest prefix that ends on a segment boundary', () => {
    const match = routerOf('/', '/a', '/a/b', '/a/b/c/d');
    for (const [path, found] of [
      ['/', '/'],
      ['/x', '/'],
      ['/a', '/a'],
      ['/a/', '/a'],
      ['/a/x', '/a'],
      ['/ab', '/'],
      ['/a/b', '/a/b'],
      ['/a/bc', '/a'],
      ['/a/b/', '/a/b'],
      ['/a/b/c', '/a/b'],
      ['/a/b/c/', '/a/b'],
      ['/a/b/c/d/e/f', '/a/b/c/d'],
      ['/a//b', '/a'],
      ['//a', '/'],
      ['/A', '/'],
    ] as const) {
      expect([path, match('h', path)]).toEqual([path, found]);
    }
  });

  it('finds nothing where nothing is mounted', () => {
    const match = routerOf('/a');
    expect(match('h', '/')).toBe(undefined);
    expect(match('h', '/ab')).toBe(undefined);
    expect(match('h', '')).toBe(undefined);
    expect(routerOf()('h', '/')).toBe(undefined);
  });

  it('compares paths as they are sent, undecoded', () => {
    const match = routerOf('/', '/a%20b', '/ä');
    expect(match('h', '/a%20b/c')).toBe('/a%20b');
    expect(match('h', '/a b')).toBe('/');
    expect(match('h', '/%61%20b')).toBe('/');
    expect(match('h', '/%C3%A4')).toBe('/');
  });

  it('takes /a and /a/ for the same mount', () => {
    expect(['/', '//', '/a', '/a/', '/a//', '/a/b/'].map(contextOf)).toEqual([
      '',
      '',
      '/a',
      '/a',
      '/a',
      '/a/b',
    ]);
    const router = new Router();
    router.set(undefined, '/a', mount('first'));
    router.set(undefined, '/a/', mount('second'));
    expect(router.match('h', '/a')?.context).toBe('second');
    expect(router.delete(undefined, '/a')).toBe(true);
    expect(router.match('h', '/a')).toBe(undefined);
  });

  it('finds virtual hosts in any case, with a port and without', () => {
    const match = routerOf('/', 'Example.org/', '[::1]/');
    for (const [host, found] of [
      ['example.org', 'Example.org/'],
      ['EXAMPLE.ORG', 'Example.org/'],
      ['example.org:8090', 'Example.org/'],
      ['example.org:', 'Example.org/'],
      ['[::1]', '[::1]/'],
      ['[::1]:80', '[::1]/'],
      ['sub.example.org', '/'],
      ['example.org.', '/'],
      ['example', '/'],
      ['', '/'],
    ] as const) {
      expect([host, match(host, '/x')]).toEqual([host, found]);
    }
  });

  it('finds nothing in a virtual host that has no such path, though there is one without a host', () => {
    const match = routerOf('/', '/b', 'example.org/a');
    expect(match('example.org', '/a/x')).toBe('example.org/a');
    expect(match('example.org', '/b')).toBe(undefined);
    expect(match('example.org', '/')).toBe(undefined);
    expect(match('other.org', '/b')).toBe('/b');
  });

  it('finds wildcards for every name below, at any depth', () => {
    const match = routerOf('/', '*.Example.com/');
    for (const [host, found] of [
      ['a.example.com', '*.Example.com/'],
      ['A.EXAMPLE.COM:8090', '*.Example.com/'],
      ['b.a.example.com', '*.Example.com/'],
      [`${'x.'.repeat(2000)}example.com`, '*.Example.com/'],
      ['example.com', '/'],
      ['.example.com', '/'],
      ['badexample.com', '/'],
      ['a.example.com.evil.test', '/'],
      ['com', '/'],
      ['[::1]', '/'],
      ['', '/'],
    ] as const) {
      expect([host, match(host, '/x')]).toEqual([host, found]);
    }
  });

  it('prefers the name itself to a wildcard, and a longer wildcard to a shorter one', () => {
    const match = routerOf('/', '*.com/', '*.b.example.com/', '*.example.com/', 'a.example.com/');
    for (const [host, found] of [
      ['a.example.com', 'a.example.com/'],
      ['c.example.com', '*.example.com/'],
      ['a.b.example.com', '*.b.example.com/'],
      ['b.example.com', '*.example.com/'],
      ['x.a.example.com', '*.example.com/'],
      ['example.com', '*.com/'],
      ['example.org', '/'],
    ] as const) {
      expect([host, match(host, '/')]).toEqual([host, found]);
    }
  });

  it('finds nothing in a wildcard that has no such path, nor goes on to a shorter one', () => {
    const match = routerOf('/', '*.com/b', '*.example.com/a');
    expect(match('x.example.com', '/a')).toBe('*.example.com/a');
    expect(match('x.example.com', '/b')).toBe(undefined);
    expect(match('x.example.com', '/')).toBe(undefined);
    expect(match('example.com', '/b')).toBe('*.com/b');
  });

  it('forgets wildcards that are gone, and how deep they were', () => {
    const router = new Router();
    router.set(undefined, '/', mount('any'));
    router.set('*.a.b.c', '/', mount('deep'));
    router.set('*.c', '/', mount('shallow'));
    expect(router.list().map(({ virtualHost }) => virtualHost)).toEqual([null, '*.a.b.c', '*.c']);
    expect(router.match('x.a.b.c', '/')?.context).toBe('deep');
    expect(router.delete('*.A.b.c', '/')).toBe(true);
    expect(router.match('x.a.b.c', '/')?.context).toBe('shallow');
    expect(router.delete('*.c', '/')).toBe(true);
    expect(router.delete('*.c', '/')).toBe(false);
    expect(router.match('x.a.b.c', '/')?.context).toBe('any');
  });

  it('finds prefixes of any depth when deeper ones come and go', () => {
    const router = new Router();
    router.set(undefined, '/a', mount('a'));
    expect(router.match('h', '/a/b/c/d')?.context).toBe('a');
    router.set(undefined, '/a/b/c', mount('abc'));
    expect(router.match('h', '/a/b/c/d')?.context).toBe('abc');
    expect(router.match('h', '/a/b')?.context).toBe('a');
    expect(router.delete(undefined, '/a/b/c')).toBe(true);
    expect(router.match('h', '/a/b/c/d')?.context).toBe('a');
    expect(router.delete(undefined, '/a')).toBe(true);
    expect(router.match('h', '/a/b/c/d')).toBe(undefined);
  });

  it('looks up no more segments than its longest prefix has', () => {
    const router = new Router();
    for (let i = 0; i < 1000; i++) router.set(undefined, `/${i}/x`, mount(String(i)));
    let looks = 0;
    const get = vi.spyOn(Map.prototype, 'get').mockImplementation(function (
      this: Map<unknown, unknown>,
      key,
    ) {
      looks++;
      return [...this].find(([k]) => k === key)?.[1];
    });
    try {
      expect(router.match('h', `/7/x${'/b'.repeat(4000)}`)?.context).toBe('7');
      expect(router.match('h', '/b'.repeat(4000))).toBe(undefined);
    } finally {
      get.mockRestore();
    }
    expect(looks).toBeLessThanOrEqual(4);
  });

  it('falls back to the mounts without a host when the last one of a virtual host is gone', () => {
    const router = new Router();
    router.set(undefined, '/', mount('any'));
    router.set('h', '/a', mount('a'));
    expect(router.match('h', '/')).toBe(undefined);
    expect(router.delete('H', '/a/')).toBe(true);
    expect(router.match('h', '/')?.context).toBe('any');
    expect(router.delete('h', '/a')).toBe(false);
    expect(router.delete(undefined, '/none')).toBe(false);
  });

  it('is not confused by paths and hosts that look like members of objects', () => {
    const match = routerOf('/x');
    expect(match('constructor', '/__proto__/toString')).toBe(undefined);
    expect(match('__proto__', '/x')).toBe('/x');
  });

  it('needs no time to speak of for a path of many segments', () => {
    const match = routerOf('/', '/a');
    expect(match('h', '/b'.repeat(30_000))).toBe('/');
  });
});

describe.each(WAYS)('a server with mounts of $way', ({ dispatch }) => {
  const named = (name: string): URL => new URL(`?${name}`, pathToFileURL(fixture('http/named.mjs')));
  const pool = dispatch ? { nMax: 1 } : {};

  it('gives each request to the mount of its path and host', async () => {
    const test = await serve(named('root'), { dispatch, ...pool });
    await test.server.mount(named('api'), { path: '/api', dispatch });
    await test.server.mount(named('vhost'), { virtualHost: ['one.test', 'two.test'], path: '/v', dispatch });
    const at = async (host: string, path: string): Promise<unknown> => {
      const client = await RawClient.open(test.port);
      client.send(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
      const response = await client.response();
      return response.status === 200 ? JSON.parse(response.body.toString()) : response.status;
    };
    expect(await at('h', '/x')).toEqual({ name: 'root', context: '', pathInfo: '/x' });
    expect(await at('h', '/api')).toEqual({ name: 'api', context: '/api', pathInfo: '/' });
    expect(await at('h', '/api/a%2Fb?q')).toEqual({ name: 'api', context: '/api', pathInfo: '/a%2Fb' });
    expect(await at('h', '/apis')).toEqual({ name: 'root', context: '', pathInfo: '/apis' });
    expect(await at('ONE.test:81', '/v/w')).toEqual({ name: 'vhost', context: '/v', pathInfo: '/w' });
    expect(await at('two.test', '/v')).toEqual({ name: 'vhost', context: '/v', pathInfo: '/' });
    await test.server.mount(named('below'), { virtualHost: '*.two.test', dispatch });
    expect(await at('a.b.two.test', '/%20/x')).toEqual({ name: 'below', context: '', pathInfo: '/%20/x' });
    expect(test.server.stats().mounts.map(({ virtualHost }) => virtualHost)).toContain('*.two.test');
    expect(test.server.unmount({ virtualHost: '*.two.test' })).toBe(true);
    expect(await at('two.test', '/api')).toBe(404);
    expect(test.server.unmount({ virtualHost: ['one.test', 'two.test'], path: '/v' })).toBe(true);
    expect(await at('two.test', '/api')).toEqual({ name: 'api', context: '/api', pathInfo: '/' });
    expect(test.server.unmount({ path: '/api/' })).toBe(true);
    expect(test.server.unmount({ path: '/api' })).toBe(false);
    expect(await at('h', '/api')).toEqual({ name: 'root', context: '', pathInfo: '/api' });
    expect(test.server.unmount()).toBe(true);
    expect(await at('h', '/')).toBe(404);
  });

  it('swaps a handler between two requests, never in one and never with a gap', async () => {
    const test = await serve(named('v0'), { dispatch, ...pool });
    const answers: string[] = [];
    let swapping = true;
    const load = Promise.all(
      Array.from({ length: 4 }, async () => {
        const client = await RawClient.open(test.port);
        while (swapping)
          answers.push(JSON.parse((await client.ask('GET', '/')).body.toString()).name as string);
      }),
    );
    for (let i = 1; i <= 5; i++) {
      await test.server.mount(named(`v${i}`), { dispatch });
      const client = await RawClient.open(test.port);
      expect(JSON.parse((await client.ask('GET', '/')).body.toString())).toMatchObject({ name: `v${i}` });
    }
    swapping = false;
    await load;
    expect(answers.length).toBeGreaterThan(20);
    expect(answers.filter((name) => !/^v[0-5]$/.test(name))).toEqual([]);
    expect(Object.keys(test.server.stats().answers)).toEqual(['200']);
  });

  it('lets a request finish on the handler it began with', async () => {
    const test = await serve(named('old'), { dispatch, ...pool });
    await test.server.mount(named('new'), { path: '/warm', dispatch });
    const client = await RawClient.open(test.port);
    client.send('GET /slow HTTP/1.1\r\nHost: h\r\n\r\n');
    const slow = client.response();
    while (test.server.stats().open === 0) await new Promise((resolve) => setImmediate(resolve));
    await test.server.mount(named('new'), { dispatch });
    expect((await slow).body.toString()).toBe('old');
    expect(JSON.parse((await client.ask('GET', '/')).body.toString())).toMatchObject({ name: 'new' });
  });

  it('keeps what was mounted when a new handler cannot be loaded', async () => {
    const test = await serve(named('good'), { dispatch, ...pool });
    await expect(test.server.mount(fixture('http/child-throws.mjs'), { dispatch })).rejects.toThrow(
      'cannot be loaded',
    );
    await expect(test.server.mount(fixture('http/none.mjs'), { dispatch })).rejects.toMatchObject({
      code: 'OFFLOOP_MODULE_NOT_FOUND',
    });
    expect(await (await fetch(test.url)).json()).toMatchObject({ name: 'good' });
  });
});

describe('mounting', () => {
  const held = (event: string): URL => new URL(`?${event}`, pathToFileURL(fixture('http/held.mjs')));
  const release = async (event: string): Promise<void> => {
    await until(() => process.listenerCount(event) > 0, `held.mjs waits for ${event}`);
    process.emit(event as 'exit', 0);
  };
  const where = { path: '/a', virtualHost: ['one.test', '*.two.test'], dispatch: false };

  it('leaves what was asked for last, however long the others take to load', async () => {
    const { server, port } = await serve(() => null, { dispatch: false });
    const first = server.mount(held('first'), where);
    await server.mount(() => ({ body: 'second' }), where);
    await release('first');
    await first;
    const client = await RawClient.open(port);
    client.send('GET /a HTTP/1.1\r\nHost: x.two.test\r\n\r\n');
    expect((await client.response()).body.toString()).toBe('second');
  });

  it('is refused when the server has stopped meanwhile', async () => {
    const { server } = await serve(() => null, { dispatch: false });
    const mounted = server.mount(held('late'), where);
    await server.stop({ timeout: 0 });
    await release('late');
    await expect(mounted).rejects.toMatchObject({ code: 'OFFLOOP_STOPPED' });
  });

  it('is refused on a pool that it would not use', async () => {
    const pool = createWorkerPool({ nMax: 1 });
    try {
      const { server } = await serve(() => null, { dispatch: false });
      await expect(
        server.mount(() => null, { path: '/a', dispatch: false, workerPool: pool }),
      ).rejects.toThrow('mount: option dispatch is false (boolean); allowed: true beside workerPool');
    } finally {
      await pool.close();
    }
  });
});
