import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { pathToFileURL } from 'node:url';
import { createWorkerPool } from 'offloop';
import {
  nativeHandler,
  type RunInput,
  type RunOptions,
  type RunResult,
  run,
  server,
  stop,
  type WebServer,
} from 'offloop/web';
import { describe, expect, it, onTestFinished } from 'vitest';
import { RawClient } from './support/http-raw.js';
import { fixture, until } from './support/server.js';

const named = (name: string): URL => new URL(`?${name}`, pathToFileURL(fixture('http/named.mjs')));
const quiet = { errorLogger: () => undefined, warnLogger: () => undefined };

/** `run` on a free port of 127.0.0.1, undone when the test ends. */
async function start(handler: Parameters<typeof run>[0], options: RunInput = {}): Promise<RunResult> {
  const result = await run(handler, { host: '127.0.0.1', port: 0, nMax: 1, ...quiet, ...options });
  onTestFinished(async () => void (await stopped(result)));
  return result;
}
const stopped = (result: RunResult): Promise<boolean> => stop({ ...result, timeout: 0 } as RunInput);

const only = (result: RunResult): WebServer => server(result) as WebServer;

/** The name of the handler that answers, with the context it sees; or the status, when that is not 200. */
async function at({ port }: { port: number }, path = '/', host = 'h'): Promise<string | number> {
  const client = await RawClient.open(port);
  client.send(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  const { status, body } = await client.response();
  if (status !== 200) return status;
  const { name, context } = JSON.parse(body.toString()) as { name: string; context: string };
  return name + context;
}

async function refuses(port: number, host = '127.0.0.1'): Promise<boolean> {
  const socket = connect(port, host);
  try {
    await once(socket, 'connect');
    return false;
  } catch {
    return true;
  } finally {
    socket.destroy();
  }
}

describe('run', () => {
  it('returns its options with the defaults filled in', async () => {
    const result = await run(named('a'), { autoStart: false });
    expect(result).toMatchObject({
      host: 'localhost',
      port: 8080,
      path: '/',
      virtualHost: null,
      dispatch: true,
      autoStart: false,
    });
    expect([...result.contexts.values()]).toEqual([[{ path: '/', virtualHost: null }]]);
    expect(server()).toMatchObject({ host: 'localhost', port: 8080, isRunning: false, instance: null });
    expect(server(result)).toBe(server());
    expect(await stop()).toBe(true);
    expect(await stop()).toBe(false);
    expect(server()).not.toBe(server(result));
  });

  it('takes any free port for 0, and returns it', async () => {
    const one = await start(named('one'));
    const two = await start(named('two'));
    expect(one.port).toBeGreaterThan(0);
    expect(two.port).not.toBe(one.port);
    expect([await at(one), await at(two)]).toEqual(['one', 'two']);
  });

  it('listens on the loopback only, unless it is told to do otherwise', async () => {
    const result = await start(named('a'), { host: 'localhost' });
    expect(new URL(String(server({ host: 'localhost', port: result.port }).instance?.url)).hostname).toBe(
      'localhost',
    );
    expect(await (await fetch(`http://localhost:${result.port}/`)).json()).toMatchObject({ name: 'a' });
  });

  it('takes text for values, and names as on a command line', async () => {
    const { port, ...rest } = await start(named('a'), {
      ...({ '--virtual-host': 'a.test', '--path': '/x', 'auto-start': 'true' } as RunOptions),
      port: '0',
      dispatch: 'true',
      maxBody: 'Infinity',
      queueTimeout: '1000',
      prefix: '7',
    });
    expect(rest).toMatchObject({
      virtualHost: 'a.test',
      path: '/x',
      autoStart: true,
      dispatch: true,
      maxBody: Number.POSITIVE_INFINITY,
      queueTimeout: 1000,
      prefix: '7',
    });
    expect(await at({ port }, '/x', 'a.test')).toBe('a/x');
  });

  it.each([
    [
      { nonsense: 1 },
      'run: there is no option nonsense (its value was 1 (number)); allowed: host, port, queueTimeout',
    ],
    [{ ip: '::1' }, 'run: there is no option ip'],
    [{ unix: '/tmp/x' }, 'run: there is no option unix'],
    [{ port: '80a' }, 'run: option port is "80a" (string)'],
    [{ port: '-1' }, 'run: option port is "-1" (string)'],
    [{ port: '' }, 'run: option port is "" (string)'],
    [{ host: 'example.com' }, 'run: option host is "example.com" (string)'],
    [{ dispatch: 'yes' }, 'run: option dispatch is "yes" (string)'],
    [{ path: 'x' }, 'run: option path is "x" (string)'],
    [{ virtualHost: 'a:80' }, 'run: option virtualHost is "a:80" (string)'],
    [{ contexts: {} }, 'run: option contexts is {} (object)'],
    [{ nMin: 3, nMax: 2 }, 'run: option nMin is 3'],
    [[], 'run: option object is [] (array)'],
    ['x', 'run: option object is "x" (string)'],
  ])('refuses %j', async (options, message) => {
    const refused = run(named('a'), options as RunInput);
    await expect(refused).rejects.toMatchObject({ code: 'OFFLOOP_BAD_OPTION' });
    await expect(refused).rejects.toThrow(message);
  });

  it('refuses what is no handler, whether it starts the server or not', async () => {
    for (const autoStart of [true, false]) {
      const options = { host: '127.0.0.1', port: 0, autoStart };
      await expect(run(() => null, options)).rejects.toMatchObject({ code: 'OFFLOOP_FUNCTION_NEEDS_INLINE' });
      await expect(run(() => null, options)).rejects.toThrow("run('./handler.js')");
      await expect(run(7 as never, options)).rejects.toMatchObject({ code: 'OFFLOOP_NO_HANDLER' });
      await expect(run('./none.js', options)).rejects.toMatchObject({ code: 'OFFLOOP_MODULE_NOT_FOUND' });
    }
  });

  it('leaves nothing behind when the handler does not load, or the port is taken', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    onTestFinished(() => void taken.close());
    const { port } = taken.address() as { port: number };
    const place = { host: '127.0.0.1', port, nMax: 1, ...quiet };
    await expect(run(named('a'), place)).rejects.toMatchObject({ code: 'EADDRINUSE' });
    await new Promise((resolve) => taken.close(resolve));
    await expect(run(fixture('http/child-throws.mjs'), place)).rejects.toThrow('cannot be loaded');
    expect(await refuses(port)).toBe(true);
    expect(await stop({ host: '127.0.0.1', port })).toBe(false);
    // With other options than those that failed.
    const result = await run(named('a'), { ...place, nMax: 2 });
    expect(await at(result)).toBe('a');
    expect(await stopped(result)).toBe(true);
  });

  it('replaces the handler that is there, and keeps it when the new one does not load', async () => {
    const result = await start(named('old'));
    expect(await at(result)).toBe('old');
    await run(named('new'), result);
    expect(await at(result)).toBe('new');
    await expect(run(fixture('http/child-throws.mjs'), result)).rejects.toThrow('cannot be loaded');
    expect(await at(result)).toBe('new');
    expect(await stopped(result)).toBe(true);
    expect(await refuses(result.port)).toBe(true);
  });

  it('lets what is in flight finish on the handler it began with', async () => {
    const result = await start(named('old'));
    const slow = fetch(`http://127.0.0.1:${result.port}/slow`);
    await until(() => only(result).instance?.stats().open === 1, 'it runs');
    await run(named('new'), result);
    expect(await (await slow).text()).toBe('old');
  });

  it('adds to what it is given back: several paths and servers, one result to stop them all', async () => {
    const a = await start(named('a'));
    const b = await run(named('b'), { ...a, path: '/b' });
    const c = await start(named('c'), { ...b, port: 0 });
    expect([b.port === a.port, c.port === a.port]).toEqual([true, false]);
    expect([...c.contexts.values()]).toEqual([
      [
        { path: '/', virtualHost: null },
        { path: '/b', virtualHost: null },
      ],
      [{ path: '/b', virtualHost: null }],
    ]);
    expect([await at(a), await at(a, '/b/x'), await at(c, '/b'), await at(c)]).toEqual([
      'a',
      'b/b',
      'c/b',
      404,
    ]);
    expect(server(c)).toHaveLength(2);
    expect(await stopped(c)).toBe(true);
    expect([await refuses(a.port), await refuses(c.port)]).toEqual([true, true]);
    expect(await stopped(c)).toBe(false);
  });

  it('takes the promise of another run for its options', async () => {
    const result = await run(named('b'), run(named('a'), { host: '127.0.0.1', port: 0, nMax: 1, ...quiet }));
    expect(await at(result)).toBe('b');
    expect(await stop(Promise.resolve(result))).toBe(true);
  });

  it('runs several handlers that are asked for at the same time on one server', async () => {
    const { port } = await start(named('root'));
    const place = { host: '127.0.0.1', port };
    const all = await Promise.all(
      ['/a', '/b', '/c'].map((path) => run(named(path.slice(1)), { ...place, path })),
    );
    expect(await Promise.all(all.map(({ path }) => at({ port }, path)))).toEqual(['a/a', 'b/b', 'c/c']);
    const twice = [run(named('first'), place), run(named('second'), place)];
    await Promise.all(twice);
    expect(await at({ port })).toBe('second');
  });

  it('gives each handler limits and a pool of its own', async () => {
    const pool = createWorkerPool({ nMax: 1, prefix: 'own-' });
    onTestFinished(() => pool.close());
    const a = await start(named('a'), { maxBody: 5, handlerTimeout: 10 });
    const b = await run(named('b'), {
      ...a,
      path: '/b',
      workerPool: pool,
      maxBody: 10,
      handlerTimeout: 0,
      nMax: undefined,
    });
    const post = async (path: string): Promise<number> =>
      (await fetch(`http://127.0.0.1:${a.port}${path}`, { method: 'POST', body: '1234567' })).status;
    expect([await post('/'), await post('/b')]).toEqual([413, 200]);
    expect([await at(a, '/slow'), (await fetch(`http://127.0.0.1:${a.port}/b/slow`)).status]).toEqual([
      504, 200,
    ]);
    expect(pool.stats.accepted).toBe(2);
    await expect(run(named('b'), { ...b, nMax: 1 })).rejects.toThrow('nothing beside workerPool');
  });

  it('refuses other options for a server that is there, and takes the same', async () => {
    const a = await start(named('a'), { queueSize: 7 });
    const place = { host: '127.0.0.1', port: a.port };
    await expect(run(named('b'), { ...place, queueSize: 8 })).rejects.toThrow(
      `run: option queueSize is 8 (number); allowed: 7, as for the server that is at 127.0.0.1 port ${a.port} already; or another port.`,
    );
    await expect(run(named('b'), { ...place, nMin: 1, serverHeader: null })).rejects.toThrow(
      'option serverHeader',
    );
    await run(named('b'), { ...place, path: '/b', queueSize: 7, serverHeader: 'offloop' });
    expect([await at(a), await at(a, '/b')]).toEqual(['a', 'b/b']);
  });

  it('runs functions, objects with fetch and native handlers on the I/O thread', async () => {
    const a = await start(() => ({ body: 'ring' }), { dispatch: false });
    const inline = { ...a, dispatch: false };
    await run({ fetch: () => new Response('fetch') }, { ...inline, path: '/fetch' });
    await run(
      nativeHandler((res) => res.end('native')),
      { ...a, path: '/native', dispatch: true },
    );
    await run(named('module'), { ...inline, path: '/module' });
    const text = async (path: string): Promise<string> =>
      (await fetch(`http://127.0.0.1:${a.port}${path}`)).text();
    expect([await text('/'), await text('/fetch'), await text('/native')]).toEqual([
      'ring',
      'fetch',
      'native',
    ]);
    expect(await at(a, '/module')).toBe('module/module');
    expect(only(a).instance?.stats().pool).toBe(null);
  });
});

describe('stop', () => {
  it('undoes one path of a server, and the server with the last', async () => {
    const a = await start(named('a'));
    await run(named('howdy'), { ...a, path: '/howdy' });
    const place = { host: '127.0.0.1', port: a.port };
    expect(await at(a, '/howdy')).toBe('howdy/howdy');
    expect(await stop({ ...place, path: '/howdy/' })).toBe(true);
    expect(await stop({ ...place, path: '/howdy' })).toBe(false);
    expect(await at(a, '/howdy')).toBe('a');
    expect(await stop({ host: '127.0.0.1', port: String(a.port) })).toBe(true);
    expect(await refuses(a.port)).toBe(true);
    expect(await stop(place)).toBe(false);
    // Afterwards there is room for another.
    await start(named('b'), { ...place, nMax: 2 });
    expect(await at(a)).toBe('b');
  });

  it('undoes one of several virtual hosts', async () => {
    const a = await start(named('a'), { virtualHost: ['one.test', 'Two.test', '*.three.test'] });
    const place = { host: '127.0.0.1', port: a.port };
    const all = async (): Promise<unknown[]> =>
      Promise.all(['one.test', 'two.test', 'x.three.test', 'h'].map((host) => at(a, '/', host)));
    expect(await all()).toEqual(['a', 'a', 'a', 404]);
    expect(await stop({ ...place, virtualHost: 'two.test' })).toBe(true);
    expect(await stop(place)).toBe(false);
    expect(await all()).toEqual(['a', 404, 'a', 404]);
    expect(await stop({ ...place, virtualHost: ['one.test', 'none.test'] })).toBe(true);
    expect(await all()).toEqual([404, 404, 'a', 404]);
    expect(await stopped(a)).toBe(true);
    expect(await refuses(a.port)).toBe(true);
  });

  it('lets what is in flight finish, unless that takes too long', async () => {
    const a = await start(named('a'));
    const slow = fetch(`http://127.0.0.1:${a.port}/slow`);
    await until(() => only(a).instance?.stats().open === 1, 'it runs');
    expect(await stop(a)).toBe(true);
    expect(await (await slow).text()).toBe('a');
    const b = await start(() => new Promise(() => undefined), { dispatch: false });
    const never = expect(fetch(`http://127.0.0.1:${b.port}/`)).rejects.toThrow('fetch failed');
    await until(() => only(b).instance?.stats().open === 1, 'it runs');
    expect(await stopped(b)).toBe(true);
    await never;
  });

  it('refuses what it does not know', async () => {
    await expect(stop({ nonsense: 1 } as never)).rejects.toThrow('stop: there is no option nonsense');
    await expect(stop({ timeout: -1 })).rejects.toThrow('stop: option timeout is -1');
  });
});

describe('server', () => {
  it('is started when it is told to be, with what has been run by then', async () => {
    const a = await start(named('a'), { autoStart: false });
    expect(a.port).toBeGreaterThan(0);
    const handle = server({ host: '127.0.0.1', port: a.port });
    expect(handle.isRunning).toBe(false);
    expect(await refuses(a.port)).toBe(true);
    await run(named('b'), { ...a, path: '/b' });
    expect(await handle.start()).toBe(true);
    expect(await handle.start()).toBe(false);
    expect([handle.isRunning, handle.port]).toEqual([true, a.port]);
    expect([await at(a), await at(a, '/b')]).toEqual(['a', 'b/b']);
  });

  it('keeps its handlers and its port while it is stopped', async () => {
    const a = await start(named('a'), { virtualHost: ['one.test', 'two.test'] });
    const handle = server({ host: '127.0.0.1', port: a.port });
    for (let i = 0; i < 2; i++) {
      expect(await handle.stop({ timeout: 0 })).toBe(true);
      expect(await handle.stop()).toBe(false);
      expect([handle.isRunning, handle.instance, await refuses(a.port)]).toEqual([false, null, true]);
      expect(await handle.start()).toBe(true);
      expect(await at(a, '/', 'two.test')).toBe('a');
    }
    expect(handle.instance?.stats().mounts).toHaveLength(2);
    // What is replaced while it is stopped is there when it starts; run starts it, too.
    await handle.stop({ timeout: 0 });
    await run(named('b'), { ...a, autoStart: false });
    expect(await refuses(a.port)).toBe(true);
    await run(named('c'), { ...a, path: '/c', autoStart: true });
    expect([await at(a, '/', 'one.test'), await at(a, '/c', 'two.test')]).toEqual(['b', 'c/c']);
  });

  it('keeps what was there when it cannot start', async () => {
    const a = await start(named('a'));
    const handle = server({ host: '127.0.0.1', port: a.port });
    await handle.stop({ timeout: 0 });
    const taken = createServer().listen(a.port, '127.0.0.1');
    await once(taken, 'listening');
    await expect(handle.start()).rejects.toMatchObject({ code: 'EADDRINUSE' });
    expect(handle.isRunning).toBe(false);
    await new Promise((resolve) => taken.close(resolve));
    expect(await handle.start()).toBe(true);
    expect(await at(a)).toBe('a');
  });

  it('is one and the same for the same address', () => {
    const place = { host: '127.0.0.1', port: 1 };
    expect(server(place)).toBe(server({ host: '127.0.0.1', port: '1' }));
    expect(server(place)).not.toBe(server({ ...place, port: 2 }));
    expect(server({ port: 0 })).not.toBe(server({ port: 0 }));
  });

  it('can be stopped and started by several at the same time', async () => {
    const a = await start(named('a'));
    const handle = server({ host: '127.0.0.1', port: a.port });
    const done = await Promise.all([
      handle.stop({ timeout: 0 }),
      handle.start(),
      run(named('b'), a),
      stop({ ...a, timeout: 0 } as RunInput),
      run(named('c'), a),
    ]);
    expect([done[0], done[1], done[3]]).toEqual([true, true, true]);
    expect(await at(a)).toBe('c');
    expect(await stopped(done[4])).toBe(true);
    expect(await refuses(a.port)).toBe(true);
  });
});
