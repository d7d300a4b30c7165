import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { staticFiles } from 'offloop/middleware';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, type RawResponse, WAYS } from './support/http-raw.js';
import { fixture, startServer, type TestServer } from './support/server.js';

describe.each(WAYS)('staticFiles around $way', ({ dispatch }) => {
  let test: TestServer;
  const outside = mkdtempSync(join(tmpdir(), 'offloop-static-'));
  const root = join(outside, 'public');
  beforeAll(async () => {
    for (const folder of [
      'public/docs/empty',
      'public/docs/start',
      'public/.git',
      'public/a b',
      'public/évil.com',
    ])
      mkdirSync(join(outside, folder), { recursive: true });
    const files = {
      'secret.txt': 'secret',
      'public/index.html': 'home',
      'public/app.js': 'let app;',
      'public/docs/index.html': 'docs',
      'public/docs/start/start.htm': 'start',
      'public/.git/config': 'hidden',
      'public/.git/index.html': 'hidden',
      'public/a b/ü.txt': 'spaces',
      'public/big.css': 'a{}\n'.repeat(1000),
      'public/évil.com/index.html': 'x',
    };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(outside, name), text);
    writeFileSync(join(root, 'big.css.gz'), gzipSync('a{}\n'.repeat(1000)));
    symlinkSync(join(outside, 'secret.txt'), join(root, 'link.txt'));
    symlinkSync(outside, join(root, 'up'));
    process.env['STATIC_ROOT'] = root;
    test = await startServer(fixture('middleware/files.mjs'), { dispatch, ...(dispatch && { nMax: 1 }) });
  });
  afterAll(async () => {
    await test.stop();
    rmSync(outside, { recursive: true, force: true });
  });
  const ask = async (method: string, path: string, ...headers: string[]): Promise<RawResponse> =>
    (await RawClient.open(test.port)).ask(method, path, ...headers);
  const get = (path: string, ...headers: string[]): Promise<RawResponse> => ask('GET', path, ...headers);
  const text = (answer: RawResponse): unknown => [answer.status, answer.body.toString()];

  it('answers with files and their types', async () => {
    const app = await get('/plain/app.js?x');
    expect(text(app)).toEqual([200, 'let app;']);
    expect(app.header('content-type')).toMatch(/javascript/);
    expect(text(await get('/plain/a%20b/%C3%BC.txt'))).toEqual([200, 'spaces']);
    expect(text(await get('/app.js'))).toEqual([200, 'let app;']);
    const head = await ask('HEAD', '/plain/app.js');
    expect([head.status, head.header('content-length')]).toEqual([200, '8']);
  });

  it('leaves to the handler what is not there, and other methods', async () => {
    for (const path of ['/missing', '/docs/empty/', '/docs/empty', '/app.js/x', `/${'x'.repeat(300)}`])
      expect(text(await get(`/plain${path}`))).toEqual([200, `handler GET ${path}`]);
    expect(text(await ask('POST', '/plain/app.js', 'Content-Length: 0'))).toEqual([
      200,
      'handler POST /app.js',
    ]);
  });

  it('answers folders with their index, under a name with a slash', async () => {
    expect(text(await get('/plain/'))).toEqual([200, 'home']);
    expect(text(await get('/'))).toEqual([200, 'home']);
    expect(text(await get('/plain/docs/'))).toEqual([200, 'docs']);
    const moved = await get('/plain/docs?a=1');
    expect([moved.status, moved.header('location')]).toEqual([301, '/plain/docs/?a=1']);
    expect(text(await get('/tuned/docs/start/'))).toEqual([200, 'start']);
    expect(text(await get('/tuned/docs/'))).toEqual([200, 'handler GET /docs/']);
    for (const path of ['/', '/docs', '/docs/'])
      expect(text(await get(`/bare${path}`))).toEqual([200, `handler GET ${path}`]);
  });

  it.each([
    '/../secret.txt',
    '/docs/../../secret.txt',
    '/%2e%2e/secret.txt',
    '/..%2fsecret.txt',
    '/..%5csecret.txt',
    '/%2e%2e%2fsecret.txt',
    '/....//secret.txt',
    '/link.txt',
    '/up/secret.txt',
    '//secret.txt',
    '/%00/../secret.txt',
    '/secret.txt%00.html',
    '/%zz',
    '/%c0%ae%c0%ae/secret.txt',
    '/docs/..;/..;/secret.txt',
    '/\\..\\secret.txt',
    '/.git/config',
    '/%2egit/config',
    '/.git/',
    '/.git',
  ])('lets nobody out of the folder, nor see what is hidden: %s', async (path) => {
    for (const prefix of ['', '/plain', '/tuned', '/bare']) {
      const answer = await get(prefix + path);
      expect([200, 400, 404]).toContain(answer.status);
      expect(answer.body.toString()).toMatch(/^handler|^$|Not Found|Bad|bad/);
    }
  });

  it('redirects to no other host', async () => {
    for (const path of ['//evil.com', '/\\evil.com', '//%C3%A9vil.com', '/%2Fevil.com', '//localhost/docs']) {
      const answer = await get(path);
      expect(answer.header('location') ?? '/x').toMatch(/^\/[^/\\]/);
    }
  });

  it('says that what is hidden is forbidden, if it is told to', async () => {
    expect((await get('/deny/.git/config')).status).toBe(403);
    expect((await get('/deny/.git/')).status).toBe(403);
    expect((await get('/deny/app.js')).status).toBe(200);
  });

  it('answers as files do: conditions, ranges, encoded siblings, caching', async () => {
    const css = await get('/tuned/big.css', 'Accept-Encoding: gzip');
    expect([css.header('content-encoding'), css.header('vary')]).toEqual(['gzip', 'accept-encoding']);
    expect([css.header('cache-control'), css.header('x-file')]).toEqual(['public, max-age=60', 'yes']);
    expect(css.header('x-content-type-options')).toBe('nosniff');
    const plain = await get('/tuned/big.css');
    expect([plain.body.length, plain.header('content-encoding')]).toEqual([4000, undefined]);
    const again = await get('/tuned/big.css', `If-None-Match: ${plain.header('etag')}`);
    expect([again.status, again.body.length]).toEqual([304, 0]);
    const range = await get('/tuned/big.css', 'Range: bytes=0-3');
    expect(text(range)).toEqual([206, 'a{}\n']);
  });
});

describe('the options', () => {
  it.each([
    ['staticFiles: option root is undefined', () => staticFiles(undefined as never)],
    ['staticFiles: option root is "" (string)', () => staticFiles('')],
    ['staticFiles: option root is "http://a/" (object)', () => staticFiles(new URL('http://a/'))],
    ['staticFiles: option index is "a/b" (string)', () => staticFiles('.', { index: 'a/b' })],
    ['staticFiles: option index is ".." (string)', () => staticFiles('.', { index: '..' })],
    ['staticFiles: option maxAge is "1d" (string)', () => staticFiles('.', { maxAge: '1d' as never })],
    ['staticFiles: there is no option download', () => staticFiles('.', { download: true } as never)],
    ['option immutable is true (boolean)', () => staticFiles('.', { immutable: true })],
  ])('are refused with their value and its type: %s', (message, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_OPTION' }));
    expect(make).toThrow(message);
  });
});
