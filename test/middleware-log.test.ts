import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { compose, text } from 'offloop/handlers';
import { accessLog, errorPage } from 'offloop/middleware';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import WebSocket from 'ws';
import { RawClient, type RawResponse, WAYS } from './support/http-raw.js';
import { fixture, serve, startServer, type TestServer } from './support/server.js';

describe.each(WAYS)('around $way', ({ dispatch }) => {
  let test: TestServer;
  const folder = mkdtempSync(join(tmpdir(), 'offloop-logs-'));
  beforeAll(async () => {
    process.env['LOG_FOLDER'] = folder;
    test = await startServer(fixture('middleware/logs.mjs'), {
      dispatch,
      ...(dispatch && { nMin: 2, nMax: 2 }),
    });
  });
  afterAll(async () => {
    await test.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  const ask = async (method: string, path: string, ...headers: string[]): Promise<RawResponse> =>
    (await RawClient.open(test.port)).ask(method, path, ...headers);
  const get = (path: string, ...headers: string[]): Promise<RawResponse> => ask('GET', path, ...headers);
  /** The lines of a log, when so many have been written. */
  const lines = async (name: string, count: number): Promise<string[]> => {
    let all: string[] = [];
    await expect
      .poll(() => {
        all = readFileSync(join(folder, name), 'utf8').trimEnd().split('\n');
        return all.length;
      })
      .toBe(count);
    return all;
  };

  describe('accessLog', () => {
    it('writes the common format, and nothing a client sends gets out of its field', async () => {
      const ada = (name: string): string =>
        `Authorization: Basic ${Buffer.from(`${name}:x`).toString('base64')}`;
      await get('/common/text?a="b"\\', ada('ada'));
      await get('/common/nothing', ada('eve "\n the\u001b[31m root'));
      const [first, second] = (await lines('common', 2)) as [string, string];
      expect(first).toMatch(
        /^127\.0\.0\.1 - ada \[\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET \/common\/text\?a=\\x22b\\x22\\x5c HTTP\/1\.1" 200 5$/,
      );
      expect(second).toContain(' - eve\\x20\\x22\\x0a\\x20the\\x1b[31m\\x20root [');
      expect(second).toMatch(/" 404 0$/);
    });

    it('writes the combined format', async () => {
      await get('/combined/text', 'Referer: http://a.example/"x"', 'User-Agent: curl/8');
      await get('/combined/created');
      const [first, second] = (await lines('combined', 2)) as [string, string];
      expect(first).toMatch(/" 200 5 "http:\/\/a\.example\/\\x22x\\x22" "curl\/8"$/);
      expect(second).toMatch(/" 201 7 "-" "-"$/);
    });

    it('writes JSON, with what is known of each kind of answer', async () => {
      const names = [
        'text',
        'web',
        'later',
        'nothing',
        'file',
        'bad',
        'throws',
        'rejects',
        'throws-proxy',
        'channel',
      ];
      for (const name of names) await get(`/json/${name}?q`, 'X-Request-Id: the-id');
      await ask('HEAD', '/json/text');
      await new Promise((resolve) => {
        const socket = new WebSocket(`ws://127.0.0.1:${test.port}/json/channel?ws`);
        socket.on('message', () => {
          socket.terminate();
          resolve(undefined);
        });
      });
      const entries = (await lines('json', names.length + 2)).map((line) => JSON.parse(line));
      const found = (target: string, method = 'GET') =>
        entries.find((entry) => entry.target === target && entry.method === method);
      const status = Object.fromEntries(names.map((name) => [name, found(`/json/${name}?q`)?.status]));
      expect(status).toEqual({
        text: 200,
        web: 202,
        later: 200,
        nothing: 404,
        file: null,
        bad: 400,
        throws: 500,
        rejects: 500,
        'throws-proxy': 500,
        channel: null,
      });
      expect(found('/json/text?q')).toMatchObject({
        requestId: 'the-id',
        bytes: 5,
        queueMs: expect.any(Number),
        user: null,
        remoteAddr: '127.0.0.1',
      });
      expect(new Date(found('/json/text?q').time).getTime()).toBeGreaterThan(Date.now() - 60_000);
      expect(found('/json/later?q').ms).toBeGreaterThanOrEqual(25);
      expect(found('/json/text', 'HEAD')).toMatchObject({ status: 200, bytes: 0 });
      expect(found('/json/channel?ws').status).toBe(101);
    });

    it('writes lines of one’s own, and skips those it shall skip', async () => {
      for (const name of ['later', 'text', 'created']) await get(`/own/${name}`);
      expect((await lines('own', 2)).sort()).toEqual(['200 true', '201 false']);
    });

    it('never fails a request, whatever the log does', async () => {
      const before = test.errors.length;
      expect((await get('/throwing/text')).body.toString()).toBe('hello');
      await expect.poll(() => test.errors.length).toBe(before + 1);
      expect(String(test.errors.at(-1)?.error)).toContain('the log is broken');
    });
  });

  describe('errorPage', () => {
    const HTML = 'Accept: text/html,application/xhtml+xml,*/*;q=0.8';

    it.each(['throws', 'rejects'])('shows a browser where a handler %s, and why', async (name) => {
      const before = test.errors.length;
      const answer = await get(`/shown/${name}`, HTML);
      expect([answer.status, answer.header('content-type')]).toEqual([500, 'text/html; charset=utf-8']);
      expect(answer.header('content-security-policy')).toContain("default-src 'none'");
      expect(answer.header('cache-control')).toBe('no-store');
      const page = answer.body.toString();
      expect(page).toContain('deep &lt;script');
      expect(page).toContain('the root &amp; cause');
      expect(page).toContain('logs.mjs');
      // The lines around the throw.
      expect(page).toContain('const deep = ');
      expect(page).not.toContain('<script>alert("deep")');
      expect(page).not.toContain('<img src=x');
      await expect.poll(() => test.errors.length).toBe(before + 1);
      expect(test.errors.at(-1)?.message).toContain(`GET /shown/${name}`);
      expect(String(test.errors.at(-1)?.error)).toContain('deep <script>');
    });

    it('escapes what the client sends, too', async () => {
      const answer = await get(
        '/shown/<svg/throws',
        HTML,
        'X-Evil: <svg onload=alert(1)>',
        'User-Agent: <iframe>',
      );
      const page = answer.body.toString();
      expect(answer.status).toBe(500);
      for (const tag of ['<svg onload', '<iframe>', '<svg/throws']) expect(page).not.toContain(tag);
    });

    it('is text for who wants no HTML', async () => {
      const answer = await get('/shown/throws', 'Accept: application/json');
      expect([answer.status, answer.header('content-type')]).toEqual([500, 'text/plain; charset=utf-8']);
      const page = answer.body.toString();
      expect(page).toMatch(/^Strange: deep <script>/);
      expect(page).toMatch(/at deep \(.*logs\.mjs:\d+:\d+\)/);
      expect(page).toContain('[cause]: TypeError: the root & cause');
    });

    it.each(['throws-null', 'throws-string', 'throws-proxy', 'throws-circle'])(
      'survives whatever is thrown: %s',
      async (name) => {
        for (const accept of [HTML, 'Accept: */*']) {
          const answer = await get(`/shown/${name}`, accept);
          expect(answer.status).toBe(500);
          expect(answer.body.length).toBeGreaterThan(0);
          expect(answer.body.toString()).not.toMatch(accept === HTML ? /<b>a string/ : /^$/);
        }
      },
    );

    it('leaves alone what is no error of the handler', async () => {
      expect((await get('/shown/text', HTML)).body.toString()).toBe('hello');
      const bad = await get('/shown/bad', HTML);
      expect([bad.status, bad.body.toString()]).toEqual([400, 'Bad Request']);
      expect((await get('/shown/nothing', HTML)).status).toBe(404);
      expect((await get('/shown/channel-throws', HTML)).body.toString()).toBe('from a channel');
    });

    it.each(['hidden', 'default'])('shows nothing unless it is told to: %s', async (route) => {
      const answer = await get(`/${route}/throws`, HTML);
      expect([answer.status, answer.body.toString()]).toEqual([500, 'Internal Server Error']);
    });
  });
});

describe('the log of a stream', () => {
  it('drops what the stream cannot take, and says how much, instead of waiting', async () => {
    const taken: string[] = [];
    let go: (() => void) | undefined;
    const slow = new Writable({
      write(chunk: Buffer, _, done) {
        taken.push(String(chunk));
        go = done;
      },
    });
    const logged = compose(accessLog({ to: slow, maxWaiting: 1000, format: () => 'x'.repeat(199) }), () =>
      text('x'),
    );
    const { url, errors } = await serve(logged, { dispatch: false });
    for (let i = 0; i < 10; i++) expect((await fetch(url)).status).toBe(200);
    expect(slow.writableLength).toBe(1000);
    expect(errors.map(({ message }) => message)).toEqual(['accessLog: 1 lines were lost']);
    expect(taken).toHaveLength(1);
    go?.();
    await expect.poll(() => taken.length).toBe(2);
    slow.destroy();
    expect((await fetch(url)).status).toBe(200);
  });

  it('that cannot be written says so once in a while, and nobody notices', async () => {
    const { url, errors } = await serve(
      compose(accessLog({ to: '/dev/full' }), () => text('x')),
      { dispatch: false },
    );
    for (let i = 0; i < 5; i++) expect((await fetch(url)).status).toBe(200);
    await expect.poll(async () => [(await fetch(url)).status, errors.length]).toEqual([200, 1]);
    expect(errors[0]?.message).toMatch(/accessLog: \d+ lines were lost/);
    expect(errors[0]?.error).toMatchObject({ code: 'ENOSPC' });
  });

  it('that cannot be opened fails the start', () => {
    expect(() => accessLog({ to: '/dev/null/log' })).toThrow('ENOTDIR');
  });
});

describe('the error page', () => {
  it('is there by default where NODE_ENV says development, and only there', () => {
    const handler = () => null;
    for (const [value, there] of [
      ['development', true],
      ['production', false],
      ['test', false],
      ['', false],
    ] as const) {
      vi.stubEnv('NODE_ENV', value);
      expect(errorPage()(handler) !== handler, value).toBe(there);
      vi.stubEnv('NODE_ENV', 'production');
      expect(errorPage({ enabled: true })(handler)).not.toBe(handler);
    }
    vi.unstubAllEnvs();
  });
});

describe('the options', () => {
  it.each([
    [
      "accessLog: option format is \"short\" (string); allowed: 'common', 'combined', 'json', or a function",
      () => accessLog({ format: 'short' as never }),
    ],
    ['accessLog: option to is -1 (number)', () => accessLog({ to: -1 })],
    ['accessLog: option to is {} (object)', () => accessLog({ to: {} as never })],
    ['accessLog: option maxWaiting is 0 (number)', () => accessLog({ maxWaiting: 0 })],
    ['errorPage: option enabled is "yes" (string)', () => errorPage({ enabled: 'yes' as never })],
  ])('are refused with their value and its type: %s', (message, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_OPTION' }));
    expect(make).toThrow(message);
  });
});
