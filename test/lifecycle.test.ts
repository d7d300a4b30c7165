import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createWorkerPool, runServer } from 'offloop';
import { Agent, request } from 'undici';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { adviceOn, cannotListen } from '../src/io/place.js';
import { RawClient } from './support/http-raw.js';
import { fixture, serve, startServer, until, within } from './support/server.js';

const SLOW = fixture('http/slow.mjs');
const get = (path: string, file = ''): string =>
  `GET ${path}?${encodeURIComponent(file)} HTTP/1.1\r\nHost: h\r\n\r\n`;
const QUIET = { errorLogger: () => undefined, warnLogger: () => undefined };
const HERE = { ip: '127.0.0.1', port: 0, ...QUIET };

/** Listens, and takes nothing. */
const BUSY = `require('node:net').createServer().listen({ path: process.argv[1], backlog: 1 }, () => {
  require('node:fs').writeSync(1, 'listens');
  for (;;);
})`;

let folder: string;
let count = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offloop-'));
});
afterAll(() => rmSync(folder, { recursive: true }));
const fresh = (): string => join(folder, String(count++));

/** Whether somebody listens there. */
const listens = (to: number | string): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = typeof to === 'number' ? connect(to, '127.0.0.1') : connect(to);
    probe.on('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.on('error', () => resolve(false));
  });

const ipv6 = await new Promise<boolean>((resolve) => {
  const probe = createServer();
  probe.on('error', () => resolve(false));
  probe.listen(0, '::1', () => probe.close(() => resolve(true)));
});

describe('a server that starts', () => {
  it.each([
    ['pooled', SLOW, {}],
    ['inline', () => ({ body: 'x' }), { dispatch: false }],
  ] as const)('%s knows its port, url and status', async (_, handler, options) => {
    const server = await runServer(handler, { ...HERE, ...options });
    expect(server.port).toBeGreaterThan(0);
    expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
    expect(server.status).toBe('running');
    expect((await fetch(server.url)).status).toBe(200);
    expect(await server.stop()).toBe(true);
    expect(server.status).toBe('stopped');
    expect(await listens(server.port)).toBe(false);
  });

  it.each(['127.0.0.1', 'localhost', '0.0.0.0', ...(ipv6 ? ['::1', '::'] : [])])(
    'on %s is reached by its url',
    async (ip) => {
      const test = await serve((req) => ({ body: req.remoteAddr }), { dispatch: false, ip, port: 0 });
      const response = await fetch(test.url);
      expect(response.status).toBe(200);
      expect(await response.text()).toMatch(/^(127\.0\.0\.1|::1|::ffff:127\.0\.0\.1|0000:.*)$/);
    },
  );

  it('on one address is not reached by another', async () => {
    const test = await serve(() => ({ body: 'x' }), { dispatch: false, ip: '127.0.0.1' });
    const other = new Promise<boolean>((resolve) => {
      const probe = connect(test.port, '127.0.0.2');
      probe.on('connect', () => {
        probe.destroy();
        resolve(true);
      });
      probe.on('error', () => resolve(false));
    });
    expect(await other).toBe(false);
  });

  it('is refused a port that another program has, with EADDRINUSE and a sentence that says what to do', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void other.close());
    const { port } = other.address() as { port: number };
    const error = await runServer(() => undefined, { ...HERE, port, dispatch: false }).catch(
      (e: unknown) => e,
    );
    expect(error).toMatchObject({ code: 'EADDRINUSE', name: 'OffloopError' });
    expect(String(error)).toContain(`127.0.0.1 port ${port}`);
    expect(String(error)).toContain('port: 0');
  });

  it('is refused the port of another offloop server, which goes on, until that has stopped', async () => {
    const probe = createServer();
    await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
    const { port } = probe.address() as { port: number };
    await new Promise((resolve) => probe.close(resolve));
    const first = await serve((req) => ({ body: `first ${req.path}` }), { dispatch: false, port });
    for (const [handler, options] of [
      [(): undefined => undefined, { dispatch: false }],
      [SLOW, {}],
    ] as const) {
      await expect(runServer(handler, { ...HERE, ...options, port })).rejects.toMatchObject({
        code: 'EADDRINUSE',
      });
    }
    for (let i = 0; i < 20; i++) expect(await (await fetch(`${first.url}/${i}`)).text()).toBe(`first /${i}`);
    // With connections of clients still open: the port is free again at once all the same.
    await first.stop();
    const second = await serve(() => ({ body: 'second' }), { dispatch: false, port });
    expect(await (await fetch(second.url)).text()).toBe('second');
  });

  it('is refused an address this machine does not have', async () => {
    await expect(
      runServer(() => undefined, { ...HERE, ip: '203.0.113.1', dispatch: false }),
    ).rejects.toMatchObject({
      code: 'EADDRNOTAVAIL',
    });
  });

  it('rejects with the own error of a module that cannot be loaded', async () => {
    const module = fixture('http/child-throws.mjs');
    for (const dispatch of [true, false]) {
      await expect(runServer(module, { ...HERE, dispatch })).rejects.toThrow('this module cannot be loaded');
    }
  });
});

describe('an address that cannot be had', () => {
  it('is named, with what to do', () => {
    const say = (code: string, address: Parameters<typeof adviceOn>[1]): string =>
      cannotListen(address, code, adviceOn(code, address)).message;
    expect(say('EACCES', { kind: 'tcp', ip: '0.0.0.0', port: 443, shared: false })).toMatch(
      /^offloop cannot listen on 0\.0\.0\.0 port 443: EACCES; .* choose one from 1024 on, .* CAP_NET_BIND_SERVICE$/,
    );
    expect(say('EACCES', { kind: 'unix', path: '/x/s', mode: undefined })).toMatch(
      /\/x\/s: EACCES; .*folder/,
    );
    expect(say('EADDRINUSE', { kind: 'tcp', ip: '::1', port: 80, shared: false })).toMatch(
      /::1 port 80: EADDRINUSE; .*port: 0/,
    );
  });
});

describe('a server on a Unix domain socket', () => {
  const over = async (path: string): Promise<string> => {
    const agent = new Agent({ connect: { socketPath: path } });
    try {
      return await (await request('http://h/x', { dispatcher: agent })).body.text();
    } finally {
      await agent.destroy();
    }
  };

  it.each([true, false])(
    'serves, says so, and takes its socket away when it stops (dispatch: %s)',
    async (dispatch) => {
      const unix = fresh();
      const server = await runServer(SLOW, { unix, dispatch, ...QUIET });
      expect([server.port, server.url]).toEqual([0, `unix:${unix}`]);
      expect(await over(unix)).toBe('fast /x');
      expect(await server.stop()).toBe(true);
      expect(existsSync(unix)).toBe(false);
    },
  );

  it('sees no address of its peers', async () => {
    const unix = fresh();
    await serve((req) => ({ body: JSON.stringify([req.remoteAddr, req.serverName, req.serverPort]) }), {
      unix,
      dispatch: false,
    });
    expect(JSON.parse(await over(unix))).toEqual(['', 'h', 80]);
  });

  it('sees a client go away from it', async () => {
    const unix = fresh();
    const file = fresh();
    const test = await serve(SLOW, { unix, dispatch: false });
    const client = await RawClient.open(unix);
    client.send(get('/hang', file));
    await until(() => existsSync(file), 'the handler runs');
    client.leave();
    await until(() => readFileSync(file, 'utf8').includes('aborted'), 'its signal aborts', 15_000);
    expect(test.server.stats().open).toBe(0);
  });

  it('is refused the path of another server, which goes on', async () => {
    const unix = fresh();
    await serve(() => ({ body: 'first' }), { unix, dispatch: false });
    const error = await runServer(() => undefined, { unix, dispatch: false, ...QUIET }).catch(
      (e: unknown) => e,
    );
    expect(error).toMatchObject({ code: 'EADDRINUSE' });
    expect(String(error)).toContain(unix);
    expect(await over(unix)).toBe('first');
  });

  it('is refused the path of a file, which is left as it is', async () => {
    const unix = fresh();
    writeFileSync(unix, 'precious');
    await expect(runServer(() => undefined, { unix, dispatch: false, ...QUIET })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
    expect(readFileSync(unix, 'utf8')).toBe('precious');
    const link = fresh();
    symlinkSync(unix, link);
    await expect(runServer(() => undefined, { unix: link, dispatch: false, ...QUIET })).rejects.toMatchObject(
      { code: 'EADDRINUSE' },
    );
    expect(readFileSync(unix, 'utf8')).toBe('precious');
  });

  it('is refused a folder that does not exist', async () => {
    const unix = join(folder, 'none', 'socket');
    await expect(runServer(() => undefined, { unix, dispatch: false, ...QUIET })).rejects.toMatchObject({
      code: expect.stringMatching(/^E(NOENT|ACCES)$/) as string,
    });
  });

  it('takes over the socket of a server that was killed', async () => {
    const unix = fresh();
    const child = spawn(process.execPath, [fixture('http/child.mjs'), 'unixForEver', unix], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await until(() => listens(unix), 'the child listens');
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    expect(existsSync(unix)).toBe(true);
    await serve(() => ({ body: 'heir' }), { unix, dispatch: false });
    expect(await over(unix)).toBe('heir');
  });

  it.each([0o600, 0o660, 0o777])(
    'has the permissions it is given from its first moment: %o',
    async (unixMode) => {
      const unix = fresh();
      const mask = process.umask();
      await serve(() => ({ body: 'x' }), { unix, unixMode, dispatch: false });
      expect(statSync(unix).mode & 0o777).toBe(unixMode);
      expect(process.umask()).toBe(mask);
      expect(await over(unix)).toBe('x');
    },
  );

  it('is refused the path of a server that is too busy to take a connection', async () => {
    const unix = fresh();
    // Its loop stands still, and the queue of the kernel is full.
    const child = spawn(process.execPath, ['-e', BUSY, unix], { stdio: ['ignore', 'pipe', 'inherit'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    await within(new Promise((resolve) => child.stdout.once('data', resolve)), 'the child listens');
    const waiting = Array.from({ length: 4 }, () => connect(unix).on('error', () => undefined));
    onTestFinished(() => {
      for (const socket of waiting) socket.destroy();
    });
    const error: unknown = await runServer(() => undefined, { unix, dispatch: false, ...QUIET }).catch(
      (e: unknown) => e,
    );
    expect(error).toMatchObject({ code: 'EADDRINUSE' });
    expect(existsSync(unix)).toBe(true);
  });

  it('leaves alone what a successor has put in the place of its socket', async () => {
    const unix = fresh();
    const first = await runServer(() => ({ body: 'first' }), { unix, dispatch: false, ...QUIET });
    rmSync(unix);
    await serve(() => ({ body: 'second' }), { unix, dispatch: false });
    await first.stop();
    expect(await over(unix)).toBe('second');
  });
});

describe('a server that stops', () => {
  it('is running, then stopping, then stopped; the second stop is false and join resolves', async () => {
    const release = fresh();
    const server = await runServer(SLOW, { ...HERE, dispatch: false });
    const answer = fetch(`${server.url}/until?${encodeURIComponent(release)}`);
    await until(() => server.stats().open === 1, 'a request is open');
    const joined = server.join();
    const stopped = server.stop();
    expect(server.status).toBe('stopping');
    expect(await server.stop()).toBe(false);
    writeFileSync(release, '');
    expect((await answer).status).toBe(200);
    expect(await stopped).toBe(true);
    await joined;
    expect(server.status).toBe('stopped');
    expect(await server.stop()).toBe(false);
    await server.join();
    await expect(server.mount(() => undefined, { dispatch: false })).rejects.toMatchObject({
      code: 'OFFLOOP_STOPPED',
    });
  });

  it('waits for what runs and what waits in its pool, and these answers close their connections', async () => {
    const release = fresh();
    const test = await serve(SLOW, { nMax: 1 });
    const clients = await Promise.all(Array.from({ length: 4 }, () => RawClient.open(test.port)));
    (clients[0] as RawClient).send(get('/block-until', release));
    await until(() => test.server.stats().pool?.running === 1, 'the only worker is busy');
    for (const client of clients.slice(1)) client.send(get('/queued'));
    await until(() => test.server.stats().open === 4, 'all requests are open');
    const stopped = test.server.stop();
    expect(await listens(test.port)).toBe(false);
    writeFileSync(release, '');
    for (const [i, client] of clients.entries()) {
      const response = await client.response();
      expect(response.body.toString()).toBe(i === 0 ? 'blocked' : 'fast /queued');
      expect(response.header('connection')?.toLowerCase()).toBe('close');
      await client.closed();
    }
    expect(await stopped).toBe(true);
    expect(test.errors).toEqual([]);
  });

  it('waits for inline handlers, and these answers close their connections', async () => {
    const release = fresh();
    const test = await serve(SLOW, { dispatch: false });
    const client = await RawClient.open(test.port);
    client.send(get('/until', release));
    await until(() => test.server.stats().open === 1, 'the request is open');
    const stopped = test.server.stop();
    writeFileSync(release, '');
    const response = await client.response();
    expect([response.body.toString(), response.header('connection')?.toLowerCase()]).toEqual([
      'waited',
      'close',
    ]);
    await client.closed();
    expect(await stopped).toBe(true);
  });

  it.each([true, false])(
    'refuses requests on connections that are still open, with a text and an event of their own (dispatch: %s)',
    async (dispatch) => {
      const release = fresh();
      const test = await serve(SLOW, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
      const idle = await RawClient.open(test.port);
      expect((await idle.ask('GET', '/fast')).status).toBe(200);
      const busy = await RawClient.open(test.port);
      busy.send(get('/until', release));
      await until(() => test.server.stats().open === 1, 'a request is open');
      const stopped = test.server.stop();
      const refused = await idle.ask('GET', '/fast');
      expect([refused.status, refused.body.toString()]).toEqual([503, 'Server is shutting down']);
      expect(refused.header('connection')?.toLowerCase()).toBe('close');
      await idle.closed();
      writeFileSync(release, '');
      expect((await busy.response()).status).toBe(200);
      await stopped;
      expect(test.events).toContain('httpkit.server.status.503.stopping');
      expect(test.events).not.toContain('httpkit.server.status.503');
    },
  );

  it.each([true, false])('cuts what is left when its time is over (dispatch: %s)', async (dispatch) => {
    const file = fresh();
    const test = await serve(SLOW, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
    const client = await RawClient.open(test.port);
    client.send(get('/hang', file));
    await until(() => existsSync(file), 'the handler runs');
    expect(await within(test.server.stop({ timeout: 50 }), 'stop', 10_000)).toBe(true);
    await client.closed();
    expect(test.server.status).toBe('stopped');
    expect(test.server.stats().open).toBe(0);
  });

  it('cuts a handler that spins, with its thread', async () => {
    const test = await serve(SLOW, { nMax: 1 });
    const client = await RawClient.open(test.port);
    client.send(get('/block-until', fresh()));
    await until(() => test.server.stats().pool?.running === 1, 'the only worker is busy');
    expect(await within(test.server.stop({ timeout: 50 }), 'stop', 10_000)).toBe(true);
    await client.closed();
  });

  it('does not wait for connections that are idle, half sent or never used', async () => {
    const test = await serve(SLOW, { dispatch: false });
    const idle = await RawClient.open(test.port);
    await idle.ask('GET', '/fast');
    const unused = await RawClient.open(test.port);
    const half = await RawClient.open(test.port);
    half.send('GET / HTTP/1.1\r\nHo');
    expect((await fetch(`${test.url}/after`)).status).toBe(200);
    expect(await within(test.server.stop({ timeout: 60_000 }), 'stop')).toBe(true);
    await Promise.all([idle.closed(), unused.closed(), half.closed()]);
  });

  it('does not wait for ever for a client that never finishes its body', async () => {
    const test = await serve(SLOW, { dispatch: false });
    const client = await RawClient.open(test.port);
    client.send('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf');
    await until(() => test.server.stats().open === 1, 'the request is open');
    expect(await within(test.server.stop({ timeout: 100 }), 'stop')).toBe(true);
    await client.closed();
  });

  it('sends a large answer to its end', async () => {
    const size = 20_000_000;
    const test = await serve(fixture('http/response.mjs'), { nMax: 1 });
    const client = await RawClient.open(test.port);
    client.socket.pause();
    client.send(get(`/pattern/${size}`));
    await until(() => test.server.stats().answers['200'] === 1, 'the answer is being sent');
    const stopped = test.server.stop();
    client.socket.resume();
    expect((await client.response()).body.length).toBe(size);
    await client.closed();
    expect(await stopped).toBe(true);
  });

  it('is stopped by await using, and by asyncDispose twice', async () => {
    const server = await runServer(SLOW, HERE);
    await server[Symbol.asyncDispose]();
    expect(server.status).toBe('stopped');
    await server[Symbol.asyncDispose]();
    expect(await listens(server.port)).toBe(false);
  });

  it('leaves a pool it was given to the others', async () => {
    const workerPool = createWorkerPool({ nMax: 1 });
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    const first = await serve(SLOW, { workerPool });
    const second = await serve(SLOW, { workerPool });
    expect((await fetch(`${first.url}/a`)).status).toBe(200);
    await first.server.stop();
    expect(await (await fetch(`${second.url}/b`)).text()).toBe('fast /b');
  });

  it('and another one that starts on its port, a hundred times, leave nothing behind', async () => {
    const workerPool = createWorkerPool({ nMax: 1 });
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    let port = 0;
    for (let i = 0; i < 100; i++) {
      const server = await runServer(SLOW, { ...HERE, port, workerPool });
      port = server.port;
      const client = await RawClient.open(port);
      expect((await client.ask('GET', `/${i}`)).body.toString()).toBe(`fast /${i}`);
      if (i % 2 === 0) client.socket.destroy();
      expect(await server.stop()).toBe(true);
    }
    expect(await listens(port)).toBe(false);
  });
});

describe('a program that runs a server', () => {
  interface Ended {
    code: number | null;
    out: string[];
    errors: string;
  }

  /** Run the fixture to its end. It is killed when it does not end. */
  async function program(...args: string[]): Promise<Ended> {
    const child = spawn(process.execPath, [fixture('http/child.mjs'), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    let out = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    const code = await within(
      new Promise<number | null>((resolve) => child.once('close', resolve)),
      `the program ${args[0]} to end by itself; it said ${out} ${errors}`,
      10_000,
    );
    return { code, out: out.trim().split('\n'), errors };
  }

  it.each(['pooled', 'inline'])(
    '%s and stops it ends by itself, with code 0 and no port left',
    async (way) => {
      const { code, out, errors } = await program(way);
      expect([out[0], out[2], code, errors]).toEqual(['200', 'true', 0, '']);
      expect(await listens(Number(out[1]?.split(' ')[1]))).toBe(false);
    },
  );

  it('on a pool of its own, shared, ends by itself when it has closed the pool', async () => {
    expect(await program('shared')).toEqual({ code: 0, out: ['200', '200', 'true', 'true'], errors: '' });
  });

  it('and only makes a pool ends by itself', async () => {
    expect(await program('unusedPool')).toEqual({ code: 0, out: ['made'], errors: '' });
  });

  it('and disposes of it ends by itself', async () => {
    expect(await program('using')).toEqual({ code: 0, out: ['200', 'stopped'], errors: '' });
  });

  it('and cuts its work short ends by itself', async () => {
    const { code, out, errors } = await program('cut', fresh());
    expect([code, errors]).toEqual([0, '']);
    expect(out[0]).toMatch(/^(cut|500|503)$/);
  });

  it('that cannot start ends by itself: its module, its port or its options are bad', async () => {
    expect(await program('badModule')).toEqual({
      code: 0,
      out: ['this module cannot be loaded'],
      errors: '',
    });
    expect(await program('badPort')).toEqual({ code: 0, out: ['EADDRINUSE', 'EADDRINUSE'], errors: '' });
    expect(await program('badOption')).toEqual({ code: 0, out: ['OFFLOOP_BAD_OPTION'], errors: '' });
  });
});

describe.each([true, false])('two thousand connections at the same time (dispatch: %s)', (dispatch) => {
  it('are all answered, again and again, and let go', async () => {
    const test = await startServer(SLOW, { dispatch, ...(dispatch ? { nMax: 2, queueSize: 5000 } : {}) });
    const clients: RawClient[] = [];
    try {
      for (let i = 0; i < 2000; i += 200)
        clients.push(...(await Promise.all(Array.from({ length: 200 }, () => RawClient.open(test.port)))));
      for (let round = 0; round < 2; round++) {
        for (const [i, client] of clients.entries()) client.send(get(`/${round}/${i}`));
        for (const [i, client] of clients.entries()) {
          expect((await client.response()).body.toString()).toBe(`fast /${round}/${i}`);
        }
      }
      expect(test.server.stats()).toMatchObject({ open: 0, answers: { '200': 4000 } });
    } finally {
      for (const client of clients) client.socket.destroy();
      await test.stop();
    }
  });
});
