import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { hostileNames, names } from './fixtures/http/throw.mjs';
import { AT_ONCE } from './support/body-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, startServer, type TestServer, until } from './support/server.js';

const MODULE = fixture('http/throw.mjs');

describe.each(WAYS)('$way that throws', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(MODULE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
  });
  afterAll(() => test.stop());

  describe.each(['sync', 'async', 'later', 'body', 'thenable', 'throwing-thenable'])('%s', (how) => {
    it.each(names)(
      'is a 500 that says nothing of it, on a connection that goes on: %s',
      AT_ONCE,
      async (name) => {
        const errors = test.errors.length;
        const events = test.events.length;
        const client = await RawClient.open(test.port);
        const response = await client.ask('GET', `/${how}/${name}`);
        expect([response.status, response.reason]).toEqual([500, 'Internal Server Error']);
        expect(response.body.toString()).toBe('Internal Server Error');
        expect(response.header('content-type')).toBe('text/plain; charset=utf-8');
        expect(response.headText).not.toContain('hunter2');
        expect(test.events.slice(events)).toEqual(['httpkit.server.status.500']);
        expect(test.errors.slice(errors).map((e) => e.message)).toEqual([`GET /${how}/${name}`]);
        expect((await client.ask('GET', '/fine')).body.toString()).toBe('fine');
      },
    );
  });

  it.each(['sync', 'async', 'later', 'body'].flatMap((how) => hostileNames.map((name) => ({ how, name }))))(
    'something that throws when it is looked at is a 500 like any other, and nothing dies of it: $how $name',
    AT_ONCE,
    async ({ how, name }) => {
      const own = await serve(MODULE, { dispatch, ...(dispatch ? { nMax: 1 } : {}) });
      const client = await RawClient.open(own.port);
      client.send(`GET /${how}/${name} HTTP/1.1\r\nHost: h\r\n\r\n`);
      const response = await client.response();
      expect([response.status, response.body.toString()]).toEqual([500, 'Internal Server Error']);
      expect((await client.ask('GET', '/fine')).status).toBe(200);
      expect(own.errors.map((e) => e.message)).toEqual([`GET /${how}/${name}`]);
      if (dispatch) expect(own.server.stats().pool).toMatchObject({ crashed: 0, running: 0, pending: 0 });
    },
  );

  it('is logged with the error it threw: class, message, code, stack and causes', async () => {
    const logged = async (name: string): Promise<unknown> => {
      await fetch(`${test.url}/sync/${name}?with=query`, { method: 'POST' });
      const { message, error } = test.errors.at(-1) as { message: string; error: unknown };
      expect(message).toBe(`POST /sync/${name}`);
      return error;
    };
    const custom = await logged('custom');
    expect(custom).toBeInstanceOf(Error);
    expect(custom).toMatchObject({ name: 'CustomError', message: 'hunter2', code: 'E_CUSTOM' });
    expect((custom as Error).stack).toContain('throw.mjs');
    expect(await logged('type-error')).toBeInstanceOf(TypeError);
    const cause = ((await logged('cause')) as Error).cause as Error;
    expect(cause).toBeInstanceOf(RangeError);
    expect(cause.message).toBe('inner hunter2');
  });

  it('is a 500 when it overflows its stack', async () => {
    const response = await fetch(`${test.url}/overflow`);
    expect(response.status).toBe(500);
    expect((await fetch(`${test.url}/fine`)).status).toBe(200);
  });

  it('is a 500 to HEAD with the length of the sentence and without it', async () => {
    const client = await RawClient.open(test.port);
    const response = await client.ask('HEAD', '/sync/error');
    expect([response.status, response.header('content-length')]).toEqual([500, '21']);
    expect((await client.ask('GET', '/fine')).status).toBe(200);
    expect(client.rest).toBe('');
  });

  it('does not take others with it', async () => {
    const answers = await Promise.all(
      Array.from(
        { length: 100 },
        async (_, i) => (await fetch(test.url + (i % 2 === 0 ? '/fine' : '/later/error'))).status,
      ),
    );
    expect(answers).toEqual(Array.from({ length: 100 }, (_, i) => (i % 2 === 0 ? 200 : 500)));
  });
});

describe.each(WAYS)('the loggers of a server with $way', ({ dispatch }) => {
  const pool = dispatch ? { nMax: 1 } : {};

  it('get one event for each answer, by http-kit’s names', async () => {
    const test = await serve(MODULE, { dispatch, ...pool, maxBody: 10, maxLine: 200 });
    const event = async (path: string, init: RequestInit = {}): Promise<string[]> => {
      test.events.length = 0;
      await (await fetch(test.url + path, init)).arrayBuffer();
      return [...test.events];
    };
    expect(await event('/fine')).toEqual(['httpkit.server.status.processed.200']);
    expect(await event('/given/201')).toEqual(['httpkit.server.status.processed.201']);
    expect(await event('/nothing')).toEqual(['httpkit.server.status.404']);
    // A handler that says 404 itself has done its work.
    expect(await event('/given/404')).toEqual(['httpkit.server.status.processed.404']);
    expect(await event('/given/500')).toEqual(['httpkit.server.status.processed.500']);
    expect(await event('/given/503')).toEqual(['httpkit.server.status.processed.503']);
    expect(await event('/sync/error')).toEqual(['httpkit.server.status.500']);
    expect(await event('/fine', { method: 'POST', body: 'x'.repeat(11) })).toEqual([
      'httpkit.server.status.413',
    ]);
    expect(await event(`/${'x'.repeat(200)}`)).toEqual(['httpkit.server.status.414']);
    expect(await event('/fine', { headers: { 'x-long': 'x'.repeat(200) } })).toEqual([
      'httpkit.server.status.processed.431',
    ]);
  });

  it('get no event for a request without a mount but that of a 404', async () => {
    const test = await serve(MODULE, { dispatch, ...pool });
    await test.server.mount(MODULE, { path: '/only/here', dispatch });
    test.server.unmount();
    expect((await fetch(`${test.url}/elsewhere`)).status).toBe(404);
    expect(test.events).toEqual(['httpkit.server.status.404']);
    expect((await fetch(`${test.url}/only/here`)).status).toBe(200);
  });

  it('get other names for events when they ask for them', async () => {
    const test = await serve(MODULE, {
      dispatch,
      ...pool,
      eventNames: { serverStatus404: 'nothing', serverStatusPrefix: 'done-', serverStatus500: 'broken' },
    });
    for (const path of ['/fine', '/nothing', '/sync/error']) await fetch(test.url + path);
    expect(test.events).toEqual(['done-200', 'nothing', 'broken']);
  });

  it('are ignored when they throw', async () => {
    const shout = (): never => {
      throw new Error('a logger threw');
    };
    const test = await serve(MODULE, {
      dispatch,
      ...pool,
      errorLogger: shout,
      warnLogger: shout,
      eventLogger: shout,
      maxBody: 1,
    });
    const client = await RawClient.open(test.port);
    for (const [path, status] of [
      ['/fine', 200],
      ['/sync/error', 500],
      ['/later/error', 500],
      ['/nothing', 404],
    ] as const) {
      expect((await client.ask('GET', path)).status).toBe(status);
    }
    expect((await fetch(test.url, { method: 'POST', body: 'xx' })).status).toBe(413);
    client.send('GET / HTTP/1.1\r\nHost: a b\r\n\r\n');
    expect((await client.response()).status).toBe(400);
    expect(test.server.stats().answers).toEqual({ '200': 1, '400': 1, '404': 1, '413': 1, '500': 2 });
  });

  it('default to standard error, and are not asked for more than the one line of a 500', async () => {
    const lines: unknown[][] = [];
    const original = console.error;
    console.error = (...args: unknown[]) => void lines.push(args);
    onTestFinished(() => {
      console.error = original;
    });
    const { runServer } = await import('offloop');
    const server = await runServer(MODULE, { ip: '127.0.0.1', port: 0, dispatch, ...pool });
    try {
      await fetch(`${server.url}/fine`);
      await fetch(`${server.url}/nothing`);
      await fetch(`${server.url}/sync/error`);
    } finally {
      await server.stop();
    }
    expect(lines).toHaveLength(1);
    expect(lines[0]).toEqual(['[offloop] GET /sync/error', expect.objectContaining({ message: 'hunter2' })]);
  });
});

describe('a server whose pool and queue are full', () => {
  it('answers 503 with http-kit’s sentence, event and log line, and a Retry-After, and keeps the connection', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'offloop-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const release = join(folder, 'release');
    const test = await serve(fixture('http/slow.mjs'), { nMax: 1, queueSize: 0 });
    const busy = fetch(`${test.url}/block-until?${encodeURIComponent(release)}`);
    await until(() => test.server.stats().pool?.running === 1, 'the only worker is busy');
    test.events.length = 0;
    const client = await RawClient.open(test.port);
    for (let i = 0; i < 5; i++) {
      const response = await client.ask('GET', '/fast');
      expect([response.status, response.reason]).toEqual([503, 'Service Unavailable']);
      expect(response.body.toString()).toBe('Server unavailable, please try again');
      expect(response.header('content-type')).toBe('text/plain; charset=utf-8');
      expect(Number(response.header('retry-after'))).toBeGreaterThanOrEqual(1);
      expect(response.all('connection')).toEqual([]);
    }
    const head = await client.ask('HEAD', '/fast');
    expect([head.status, head.header('content-length')]).toEqual([503, '36']);
    expect(test.events).toEqual(Array(6).fill('httpkit.server.status.503'));
    const logged = [...test.errors, ...test.warnings].map((e) => e.message);
    expect(logged).toEqual(['failed to submit task to executor service']);
    writeFileSync(release, '');
    expect((await busy).status).toBe(200);
    expect((await client.ask('GET', '/fast')).status).toBe(200);
  });
});
