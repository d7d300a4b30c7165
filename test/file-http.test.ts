/** Files over real sockets, from workers and inline. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, brotliDecompressSync, gunzipSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, type RawResponse, WAYS } from './support/http-raw.js';
import { fixture, startServer, type TestServer, until } from './support/server.js';

const MODULE = fixture('http/files.mjs');

/** What the handler is to do, see the fixture. */
interface Ask {
  path?: string;
  options?: object;
  status?: number;
  headers?: object;
  url?: string;
  channel?: 'answer' | 'chunk';
}

const CONTENT = Buffer.from(Array.from({ length: 1000 }, (_, i) => 32 + (i % 95)));
/** When the files were last changed; whole seconds. */
const CHANGED = 784_111_777;
const DATE = 'Sun, 06 Nov 1994 08:49:37 GMT';
const BEFORE = 'Sun, 06 Nov 1994 08:49:36 GMT';

const TEXT = 'the quick brown fox '.repeat(100);
const FORMS = {
  br: brotliCompressSync(TEXT),
  gzip: gzipSync(TEXT),
  // Nothing here reads it.
  zstd: Buffer.from('zstandard'),
};

let folder: string;
let root: string;
beforeAll(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'offloop-files-')));
  chmodSync(folder, 0o755);
  root = join(folder, 'www');
  mkdirSync(join(root, 'sub/.hidden'), { recursive: true });
  mkdirSync(join(root, '.well-known'));
  mkdirSync(join(folder, 'outside'));
  write('a.txt', CONTENT);
  write('empty.txt', '');
  write('page.html', '<p>page</p>');
  write('sub/b.css', 'b{}');
  write('sub/ü b.txt', 'umlaut');
  write('100%.txt', 'percent');
  write('%2e%2e%2fsecret', 'literal');
  write('.env', 'SECRET=1');
  write('sub/.hidden/x.txt', 'hidden');
  write('.well-known/security.txt', 'contact');
  write('../outside/secret.txt', 'top secret');
  write('../www-secret.txt', 'top secret');
  mkdirSync(join(folder, 'www2'));
  write('../www2/secret.txt', 'top secret');
  symlinkSync('../outside/secret.txt', join(root, 'link-out.txt'));
  symlinkSync(join(folder, 'outside'), join(root, 'folder-out'));
  symlinkSync(join(folder, 'www2'), join(root, 'neighbour'));
  symlinkSync('/etc/passwd', join(root, 'passwd'));
  symlinkSync('/proc/self/environ', join(root, 'environ'));
  symlinkSync('/dev/zero', join(root, 'zero'));
  symlinkSync('a.txt', join(root, 'link-in.txt'));
  symlinkSync('sub', join(root, 'folder-in'));
  symlinkSync('nowhere', join(root, 'dangling'));
  symlinkSync('loop', join(root, 'loop'));
  symlinkSync('www', join(folder, 'current'));
  write('all.js', TEXT);
  write('all.js.br', FORMS.br);
  write('all.js.gz', FORMS.gzip, CHANGED + 1);
  write('all.js.zst', FORMS.zstd, CHANGED + 2);
  write('gz.js', TEXT);
  write('gz.js.gz', FORMS.gzip);
  write('old.js', TEXT);
  write('old.js.br', FORMS.br, CHANGED - 0.001);
  write('empty.js', TEXT);
  write('empty.js.br', '');
  write('only.js.br', FORMS.br);
  write('out.js', TEXT);
  symlinkSync('../outside/secret.txt', join(root, 'out.js.br'));
  write('folder.js', TEXT);
  mkdirSync(join(root, 'folder.js.br'), { recursive: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, content: string | Uint8Array, changed = CHANGED): void {
  const path = join(root, name);
  writeFileSync(path, content);
  utimesSync(path, changed, changed);
}

/** Have `link` point to `one` and `other` in turn. In another process, so that it does not take turns with the server. */
function swapping(link: string, one: string, other: string): ChildProcess {
  rmSync(link, { force: true });
  symlinkSync(one, link);
  const code = `
    const { renameSync, symlinkSync } = require('node:fs');
    const [, link, ...targets] = process.argv;
    const swap = () => {
      symlinkSync(targets[0], link + '~');
      renameSync(link + '~', link);
      targets.reverse();
      setImmediate(swap);
    };
    swap();`;
  rmSync(`${link}~`, { force: true });
  return spawn(process.execPath, ['-e', code, link, other, one], { stdio: 'inherit' });
}

describe.each(WAYS)('a file from $way', ({ dispatch }) => {
  let test: TestServer;
  let client: RawClient;
  beforeAll(async () => {
    test = await startServer(MODULE, { dispatch, ...(dispatch && { nMax: 1 }) });
  });
  afterAll(() => test.stop());

  async function ask(
    method: string,
    target: string,
    { headers = {}, ...what }: Ask & { headers?: Record<string, string> } = {},
    given?: object,
  ): Promise<RawResponse> {
    client ??= await RawClient.open(test.port);
    if (client.ended !== undefined || client.socket.destroyed) client = await RawClient.open(test.port);
    const script = { ...what, ...(given !== undefined && { headers: given }) };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
    return client.ask(
      method,
      target,
      `x-file: ${JSON.stringify({ ...script, options: what.options })}`,
      ...lines,
    );
  }
  const get = (
    target: string,
    headers: Record<string, string> = {},
    options: object = {},
  ): Promise<RawResponse> => ask('GET', target, { headers, options: { root, ...options } });

  // ------------------------------------------------------------------------------------------------------- the whole

  it('has all that a browser wants to know', async () => {
    const response = await get('/a.txt');
    expect(response.status).toBe(200);
    expect(response.body).toEqual(CONTENT);
    expect(response.lines.filter(([name]) => !['date', 'server'].includes(name.toLowerCase()))).toEqual([
      ['content-type', 'text/plain; charset=utf-8'],
      ['etag', expect.stringMatching(/^"[!-~]+"$/)],
      ['last-modified', DATE],
      ['accept-ranges', 'bytes'],
      ['Content-Length', '1000'],
    ]);
  });

  it.each(['/sub/b.css', '/sub//b.css', '/./sub/b.css', '/%73ub/b%2ecss', '/folder-in/b.css'])(
    'is found under %s',
    async (target) => {
      const response = await get(target);
      expect([response.status, response.body.toString()]).toEqual([200, 'b{}']);
      expect(response.header('content-type')).toBe('text/css; charset=utf-8');
    },
  );

  it.each([
    ['/sub/%C3%BC%20b.txt', 'umlaut'],
    ['/100%25.txt', 'percent'],
    ['/%252e%252e%252fsecret', 'literal'],
    ['/link-in.txt', CONTENT.toString()],
    ['/empty.txt', ''],
  ])('is found under %s', async (target, content) => {
    const response = await get(target);
    expect([response.status, response.body.toString()]).toEqual([200, content]);
  });

  it('may be named by the handler: by path or URL, below a root or without', async () => {
    const path = join(root, '100%.txt');
    expect((await ask('GET', '/', { path })).body.toString()).toBe('percent');
    expect((await ask('GET', '/', { url: `file://${root}/100%25.txt` })).body.toString()).toBe('percent');
    expect((await ask('GET', '/', { path: 'page.html', options: { root } })).body.toString()).toBe(
      '<p>page</p>',
    );
    expect((await ask('GET', '/', { path: `${root}/sub/../a.txt` })).status).toBe(200);
    expect((await ask('GET', '/', { path: `${root}/link-out.txt` })).body.toString()).toBe('top secret');
    expect((await ask('GET', '/', { path: `${root}/.env` })).status).toBe(200);
  });

  it('may have a symlink for its root, or the root of the system', async () => {
    const current = join(folder, 'current');
    expect((await get('/a.txt', {}, { root: current })).status).toBe(200);
    expect((await get('/link-out.txt', {}, { root: current })).status).toBe(404);
    expect((await get(`${root}/page.html`, {}, { root: '/' })).body.toString()).toBe('<p>page</p>');
    expect((await get('/a.txt', {}, { root: join(folder, 'nowhere') })).status).toBe(404);
    expect((await get('/a.txt', {}, { root: join(root, 'a.txt') })).status).toBe(404);
  });

  it('is told to HEAD like to GET, without the body', async () => {
    const [head, whole] = [await ask('HEAD', '/a.txt', { options: { root } }), await get('/a.txt')];
    const lines = ({ lines }: RawResponse): string[] =>
      lines
        .map(([name, value]) => `${name.toLowerCase()}: ${name.toLowerCase() === 'date' ? '' : value}`)
        .sort();
    expect(lines(head)).toEqual(lines(whole));
    expect((await ask('HEAD', '/nowhere', { options: { root } })).status).toBe(404);
  });

  it('takes headers of the handler, which win over its own; null leaves one out', async () => {
    const options = {
      root,
      contentType: 'a/b',
      maxAge: 5000,
      headers: { 'X-Of-File': '1', 'Content-Type': 'c/d' },
    };
    const response = await ask(
      'GET',
      '/a.txt',
      { options },
      { 'CONTENT-TYPE': 'e/f', 'x-y': '2', etag: null },
    );
    expect(response.all('content-type')).toEqual(['e/f']);
    expect(response.header('x-of-file')).toBe('1');
    expect(response.header('x-y')).toBe('2');
    expect(response.header('cache-control')).toBe('public, max-age=5');
    expect(response.header('etag')).toBeUndefined();
    expect((await get('/a.txt', {}, { contentType: 'a/b' })).header('content-type')).toBe('a/b');
    expect(
      (await get('/a.txt', {}, { headers: { 'last-modified': null } })).header('last-modified'),
    ).toBeUndefined();
    expect((await get('/a.txt', {}, { headers: { 'X-Twice': ['1', '2'] } })).all('x-twice')).toEqual([
      '1',
      '2',
    ]);
  });

  it.each([
    [{ maxAge: 0 }, 'public, max-age=0'],
    [{ maxAge: 1999 }, 'public, max-age=1'],
    [{ maxAge: 31_536_000_000, immutable: true }, 'public, max-age=31536000, immutable'],
    [{ maxAge: 1000, immutable: false }, 'public, max-age=1'],
    [{}, undefined],
  ])('with %j has Cache-Control: %s', async (options, expected) => {
    expect((await get('/a.txt', {}, options)).header('cache-control')).toBe(expected);
  });

  it('can be a download', async () => {
    const name = async (target: string, download: unknown): Promise<string | undefined> =>
      (await get(target, {}, { download })).header('content-disposition');
    expect(await name('/a.txt', true)).toBe('attachment; filename="a.txt"');
    expect(await name('/sub/%C3%BC%20b.txt', true)).toBe(
      `attachment; filename="? b.txt"; filename*=UTF-8''%C3%BC%20b.txt`,
    );
    expect(await name('/a.txt', 'report.pdf')).toBe('attachment; filename="report.pdf"');
    expect(await name('/a.txt', false)).toBeUndefined();
  });

  it('whose status or method is another is sent as it is, whatever the request asks for', async () => {
    const headers = { range: 'bytes=0-1', 'if-none-match': '*', 'if-modified-since': DATE };
    const page = await ask('GET', '/page.html', { status: 404, headers, options: { root } });
    expect([page.status, page.body.toString()]).toEqual([404, '<p>page</p>']);
    for (const name of ['etag', 'last-modified', 'accept-ranges', 'content-range'])
      expect(page.header(name)).toBeUndefined();
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      const posted = await ask(method, '/page.html', {
        headers: { ...headers, 'if-match': '"x"' },
        options: { root },
      });
      expect([posted.status, posted.body.toString()]).toEqual([200, '<p>page</p>']);
      expect(posted.header('accept-ranges')).toBeUndefined();
    }
    for (const status of [204, 304])
      expect(await ask('GET', '/page.html', { status, options: { root } })).toMatchObject({ status });
    expect(
      (await ask('GET', '/page.html', { status: 205, options: { root } })).header('content-length'),
    ).toBe('0');
  });

  it('can be the answer of a channel', async () => {
    const channel = 'answer';
    const response = await ask('GET', '/page.html', { channel, options: { root } });
    expect([response.status, response.body.toString()]).toEqual([200, '<p>page</p>']);
    expect((await ask('GET', '/nowhere', { channel, options: { root } })).status).toBe(404);
    const part = await ask('GET', '/page.html', {
      channel,
      options: { root },
      headers: { range: 'bytes=0-2' },
    });
    expect([part.status, part.body.toString()]).toEqual([206, '<p>']);
  });

  it('can be a chunk of what a channel sends, and is not there without the client knowing', async () => {
    const chunk = (path: string): Promise<Response> =>
      fetch(test.url, {
        headers: { 'x-file': JSON.stringify({ path, options: { root }, channel: 'chunk' }) },
      });
    expect(await (await chunk('page.html')).text()).toBe('first, <p>page</p>last');
    const cut = await chunk('nowhere.html')
      .then((response) => response.text())
      .catch((error: unknown) => error);
    expect(cut).toBeInstanceOf(Error);
    await until(() => test.errors.length + test.warnings.length > 0, 'it is logged');
    expect([...test.errors.splice(0), ...test.warnings.splice(0)].map(({ error }) => error)).toMatchObject([
      { code: 'OFFLOOP_BAD_CHANNEL' },
    ]);
  });

  // -------------------------------------------------------------------------------------------------------- the root

  it.each([
    '/..',
    '/../outside/secret.txt',
    '/../www-secret.txt',
    '/../www2/secret.txt',
    '/sub/../../outside/secret.txt',
    '/sub/..',
    '/sub/../a.txt',
    '/./../outside/secret.txt',
    '/%2e%2e/outside/secret.txt',
    '/%2E%2E/outside/secret.txt',
    '/.%2e/outside/secret.txt',
    '/..%2foutside/secret.txt',
    '/..%2Foutside%2Fsecret.txt',
    '/%2e%2e%2foutside%2fsecret.txt',
    '/sub%2f..%2f..%2foutside%2fsecret.txt',
    '/sub/..%2f..%2foutside/secret.txt',
    '/%252e%252e/outside/secret.txt',
    '/%252e%252e%252foutside%252fsecret.txt',
    '/..%252foutside/secret.txt',
    '/%25252e%25252e/outside/secret.txt',
    '/..\\outside\\secret.txt',
    '/..%5coutside%5csecret.txt',
    '/%2e%2e%5coutside%5csecret.txt',
    '/..%5c../outside/secret.txt',
    '/..;/outside/secret.txt',
    '/..%00/outside/secret.txt',
    '/a.txt%00',
    '/a.txt%00.html',
    '/%00/../outside/secret.txt',
    '/%c0%ae%c0%ae/outside/secret.txt',
    '/%c0%ae%c0%ae%c0%afoutside%c0%afsecret.txt',
    '/%e0%80%ae%e0%80%ae/outside/secret.txt',
    '/%uff0e%uff0e/outside/secret.txt',
    '/%ef%bc%8e%ef%bc%8e/outside/secret.txt',
    '/....//outside/secret.txt',
    '/..../outside/secret.txt',
    '/.../outside/secret.txt',
    '//etc/passwd',
    '///etc/passwd',
    '/%2fetc/passwd',
    '/%2f%2fetc/passwd',
    '//../outside/secret.txt',
    '/C:/outside/secret.txt',
    '/C:%5coutside%5csecret.txt',
    '/file:///etc/passwd',
    '/file:%2f%2f%2fetc%2fpasswd',
    '/%5c%5clocalhost%5cc$%5csecret.txt',
    '/a.txt::$DATA',
    '/a.txt:$DATA',
    '/a.txt%3a',
    '/~root/.profile',
    '/link-out.txt',
    '/folder-out/secret.txt',
    '/folder-out/',
    '/neighbour/secret.txt',
    '/folder-in/../../outside/secret.txt',
    '/passwd',
    '/environ',
    '/zero',
    '/dangling',
    '/loop',
    '/loop/x',
    '/',
    '/.',
    '/sub',
    '/sub/',
    '/sub/.',
    '/a.txt/',
    '/a.txt/.',
    '/a.txt/x',
    '/%',
    '/%2',
    '/%zz',
    '/nowhere.txt',
    '/nowhere/',
    '/constructor',
    '/__proto__',
    `/${'x'.repeat(300)}`,
    `/${'x/'.repeat(2500)}`,
    '/.env',
    '/%2eenv',
    '/sub/.hidden/x.txt',
    '/.well-known/security.txt',
  ])('is not found under %s, and nothing says why', async (target) => {
    const response = await get(target);
    expect([response.status, response.body.toString()]).toEqual([404, 'Not Found']);
    expect(response.lines.map(([name]) => name.toLowerCase()).sort()).toEqual([
      'content-length',
      'content-type',
      'date',
      'server',
    ]);
    expect(test.errors).toEqual([]);
  });

  it('with a dot in its path is served, or forbidden, where the handler says so', async () => {
    const targets = ['/.env', '/%2eenv', '/sub/.hidden/x.txt', '/.well-known/security.txt'];
    for (const target of targets) {
      expect((await get(target, {}, { dotfiles: 'allow' })).status).toBe(200);
      expect((await get(target, {}, { dotfiles: 'deny' })).status).toBe(403);
    }
    // There or not makes no difference.
    expect((await get('/.nowhere', {}, { dotfiles: 'deny' })).status).toBe(403);
    expect((await get('/../.env', {}, { dotfiles: 'deny' })).status).toBe(404);
    expect((await get('/security.txt', {}, { root: join(root, '.well-known') })).status).toBe(200);
  });

  it('keeps what the handler sends with every response when it is not found, and nothing that is about the file', async () => {
    const given = {
      'x-request-id': '7',
      'content-security-policy': 'none',
      'Cache-Control': 'max-age=99',
      ETag: '"x"',
      'content-language': 'de',
      'Content-Type': 'a/b',
    };
    const response = await ask(
      'GET',
      '/nowhere',
      { options: { root, headers: { 'x-of-file': '1' } } },
      given,
    );
    expect(response.status).toBe(404);
    expect(response.header('x-request-id')).toBe('7');
    expect(response.header('content-security-policy')).toBe('none');
    expect(response.all('content-type')).toEqual(['text/plain; charset=utf-8']);
    for (const name of ['cache-control', 'etag', 'content-language', 'x-of-file'])
      expect(response.header(name)).toBeUndefined();
  });

  // ------------------------------------------------------------------------------------------- what is no regular file

  it.runIf(process.platform === 'linux')(
    'is no FIFO, socket or device, and opening one blocks nobody',
    async () => {
      const fifo = join(root, 'fifo');
      execFileSync('mkfifo', [fifo]);
      const path = join(root, 'socket');
      const listener: Server = createServer().listen(path);
      try {
        for (const target of ['/fifo', '/socket']) expect((await get(target)).status).toBe(404);
        for (const device of ['/dev/null', '/dev/zero', '/dev/tty', '/dev/stdin', root, '/proc'])
          expect((await ask('GET', '/', { path: device })).status).toBe(404);
      } finally {
        listener.close();
        rmSync(fifo);
      }
    },
  );

  it.runIf(process.platform === 'linux')(
    'that may not be read is an error, which the client is told nothing of',
    async () => {
      write('locked.txt', 'locked');
      chmodSync(join(root, 'locked.txt'), 0);
      // Whom the system lets read everything becomes somebody else for the moment.
      const isRoot = process.geteuid?.() === 0;
      if (isRoot) process.seteuid?.(65_534);
      try {
        const response = await get('/locked.txt');
        expect([response.status, response.body.toString()]).toEqual([500, 'Internal Server Error']);
        expect(test.errors.splice(0).map(({ error }) => error)).toMatchObject([{ code: 'EACCES' }]);
      } finally {
        if (isRoot) process.seteuid?.(0);
        rmSync(join(root, 'locked.txt'), { force: true });
      }
    },
  );

  it('of the system, whose size is not what it holds, is sent as the size says', async () => {
    const response = await ask('GET', '/', { path: '/proc/self/status' });
    expect([response.status, response.body.length]).toEqual([200, 0]);
  });

  // ------------------------------------------------------------------------------------------------------ conditions

  it.each<[section: string, method: string, headers: Record<string, string>, status: number]>([
    ['13.1.1', 'GET', { 'if-match': 'TAG' }, 200],
    ['13.1.1', 'GET', { 'if-match': '*' }, 200],
    ['13.1.1', 'GET', { 'if-match': '"x"' }, 412],
    ['13.1.1', 'HEAD', { 'if-match': '"x"' }, 412],
    ['13.1.2', 'GET', { 'if-none-match': 'TAG' }, 304],
    ['13.1.2', 'GET', { 'if-none-match': 'W/TAG' }, 304],
    ['13.1.2', 'GET', { 'if-none-match': '"x", TAG' }, 304],
    ['13.1.2', 'GET', { 'if-none-match': '*' }, 304],
    ['13.1.2', 'HEAD', { 'if-none-match': 'TAG' }, 304],
    ['13.1.2', 'GET', { 'if-none-match': '"x"' }, 200],
    ['13.1.2', 'GET', { 'if-none-match': '"x"', 'if-modified-since': DATE }, 200],
    ['13.1.3', 'GET', { 'if-modified-since': DATE }, 304],
    ['13.1.3', 'HEAD', { 'if-modified-since': DATE }, 304],
    ['13.1.3', 'GET', { 'if-modified-since': BEFORE }, 200],
    ['13.1.4', 'GET', { 'if-unmodified-since': DATE }, 200],
    ['13.1.4', 'GET', { 'if-unmodified-since': BEFORE }, 412],
    ['13.2.2', 'GET', { 'if-match': '"x"', 'if-none-match': 'TAG' }, 412],
    ['13.2.2', 'GET', { 'if-match': 'TAG', 'if-none-match': 'TAG' }, 304],
    // Conditions come before the range.
    ['13.2.2', 'GET', { 'if-none-match': 'TAG', range: 'bytes=0-1' }, 304],
    ['13.2.2', 'GET', { 'if-match': '"x"', range: 'bytes=0-1' }, 412],
    ['13.2.2', 'GET', { 'if-match': 'TAG', range: 'bytes=0-1' }, 206],
    ['13.2.2', 'GET', { 'if-unmodified-since': DATE, range: 'bytes=0-1' }, 206],
    ['13.2.2', 'GET', { 'if-none-match': 'TAG', range: 'bytes=5000-' }, 304],
    // If-Range.
    ['13.1.5', 'GET', { 'if-range': 'TAG', range: 'bytes=0-1' }, 206],
    ['13.1.5', 'GET', { 'if-range': 'W/TAG', range: 'bytes=0-1' }, 200],
    ['13.1.5', 'GET', { 'if-range': '"x"', range: 'bytes=0-1' }, 200],
    ['13.1.5', 'GET', { 'if-range': DATE, range: 'bytes=0-1' }, 206],
    ['13.1.5', 'GET', { 'if-range': BEFORE, range: 'bytes=0-1' }, 200],
    ['13.1.5', 'GET', { 'if-range': 'TAG' }, 200],
    ['13.1.5', 'GET', { 'if-range': '"x"', range: 'bytes=5000-' }, 200],
    ['13.1.5', 'GET', { 'if-range': 'TAG', range: 'bytes=5000-' }, 416],
    // Range.
    ['14.2', 'GET', { range: 'bytes=0-1' }, 206],
    ['14.2', 'HEAD', { range: 'bytes=0-1' }, 200],
    ['14.2', 'HEAD', { range: 'bytes=5000-' }, 200],
    ['14.2', 'GET', { range: 'nonsense' }, 200],
    ['14.2', 'GET', { range: 'lines=0-1' }, 200],
    ['15.5.17', 'GET', { range: 'bytes=1000-' }, 416],
  ])('answers as RFC 9110 says: %s: %s %j is a %i', async (_, method, headers, status) => {
    const tag = String((await get('/a.txt')).header('etag'));
    const filled = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name, value.replace('TAG', tag)]),
    );
    const response = await ask(method, '/a.txt', { headers: filled, options: { root, maxAge: 0 } });
    expect(response.status).toBe(status);
    if (status === 200 && method === 'GET') expect(response.body).toEqual(CONTENT);
    if (status === 206) expect(response.body).toEqual(CONTENT.subarray(0, 2));
    // The next answer begins where it should.
    expect((await get('/sub/b.css')).body.toString()).toBe('b{}');
  });

  it('that the client has is a 304 with what updates its copy, and nothing else (15.4.5)', async () => {
    const options = {
      root,
      maxAge: 1000,
      precompressed: true,
      download: true,
      headers: { 'content-language': 'de' },
    };
    const response = await ask(
      'GET',
      '/a.txt',
      { headers: { 'if-none-match': '*' }, options },
      { 'x-id': '1' },
    );
    expect(response.status).toBe(304);
    const names = response.lines.map(([name]) => name.toLowerCase()).sort();
    expect(names).toEqual(['cache-control', 'date', 'etag', 'server', 'vary', 'x-id']);
    const dated = await get('/a.txt', { 'if-modified-since': DATE }, { etag: false });
    expect(dated.status).toBe(304);
    expect(dated.lines.map(([name]) => name.toLowerCase()).sort()).toEqual([
      'date',
      'last-modified',
      'server',
    ]);
  });

  it('has the tag it is given, or none', async () => {
    expect((await get('/a.txt', {}, { etag: '"v1"' })).header('etag')).toBe('"v1"');
    expect((await get('/a.txt', { 'if-none-match': 'W/"v1"' }, { etag: '"v1"' })).status).toBe(304);
    expect((await get('/a.txt', { 'if-match': '"v1"' }, { etag: 'W/"v1"' })).status).toBe(412);
    expect((await get('/a.txt', {}, { etag: false })).header('etag')).toBeUndefined();
    expect((await get('/a.txt', { 'if-match': '"v1"' }, { etag: false })).status).toBe(412);
    const own = await ask(
      'GET',
      '/a.txt',
      { headers: { 'if-none-match': '"mine"' }, options: { root } },
      { ETag: '"mine"' },
    );
    expect(own.status).toBe(304);
  });

  it('has another tag when it has changed, and the same in every copy', async () => {
    write('one.txt', 'same');
    write('two.txt', 'same');
    const tag = async (name: string): Promise<string> => String((await get(`/${name}`)).header('etag'));
    const first = await tag('one.txt');
    expect(await tag('two.txt')).toBe(first);
    write('one.txt', 'more!');
    const second = await tag('one.txt');
    write('one.txt', 'same', CHANGED + 1);
    const third = await tag('one.txt');
    write('one.txt', 'same', CHANGED + 1.001);
    expect(new Set([first, second, third, await tag('one.txt')]).size).toBe(4);
  });

  it('that may change yet without its time of change telling has a weak tag', async () => {
    const now = Date.now() / 1000;
    write('new.txt', 'new', Math.floor(now) + 3600);
    const ahead = await get('/new.txt');
    expect(ahead.header('etag')).toMatch(/^W\//);
    // 8.8.2.1: not later than Date.
    const modified = Date.parse(String(ahead.header('last-modified')));
    expect(modified).toBeLessThanOrEqual(Date.now());
    expect(
      (await get('/new.txt', { 'if-range': String(ahead.header('etag')), range: 'bytes=0-0' })).status,
    ).toBe(200);
    const strong = String((await get('/a.txt')).header('etag'));
    expect(strong).toMatch(/^"/);
    rmSync(join(root, 'new.txt'));
  });

  it('whose conditions fail says so in a sentence', async () => {
    const response = await ask(
      'GET',
      '/a.txt',
      { headers: { 'if-match': '"x"' }, options: { root, maxAge: 1000 } },
      { 'x-id': '1' },
    );
    expect([response.status, response.body.toString()]).toEqual([412, 'Precondition Failed']);
    expect(response.header('x-id')).toBe('1');
    expect(response.header('cache-control')).toBeUndefined();
  });

  // ---------------------------------------------------------------------------------------------------------- ranges

  it.each<[range: string, from: number, to: number]>([
    ['bytes=0-0', 0, 0],
    ['bytes=0-499', 0, 499],
    ['bytes=500-', 500, 999],
    ['bytes=-1', 999, 999],
    ['bytes=-5000', 0, 999],
    ['bytes=990-5000', 990, 999],
    ['bytes=0-', 0, 999],
    ['bytes=0-10,5-20', 0, 20],
    ['bytes=5000-, 7-8', 7, 8],
  ])('sends the part that %s asks for', async (range, from, to) => {
    const response = await get('/a.txt', { range });
    expect(response.status).toBe(206);
    expect(response.header('content-range')).toBe(`bytes ${from}-${to}/1000`);
    expect(response.header('content-length')).toBe(String(to - from + 1));
    expect(response.header('content-type')).toBe('text/plain; charset=utf-8');
    expect(response.header('etag')).toMatch(/^"/);
    expect(response.header('last-modified')).toBe(DATE);
    expect(response.body).toEqual(CONTENT.subarray(from, to + 1));
  });

  it('sends several parts in one body (14.6)', async () => {
    const response = await get('/a.txt', { range: 'bytes=900-909, 0-4, -2' });
    expect(response.status).toBe(206);
    expect(response.header('content-range')).toBeUndefined();
    const boundary = /^multipart\/byteranges; boundary=([\w-]{20,70})$/.exec(
      String(response.header('content-type')),
    )?.[1];
    const part = (range: string, content: Buffer): string =>
      `--${boundary}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-range: bytes ${range}/1000\r\n\r\n${content}\r\n`;
    expect(response.body.toString()).toBe(
      `${part('900-909', CONTENT.subarray(900, 910))}${part('0-4', CONTENT.subarray(0, 5))}${part('998-999', CONTENT.subarray(998))}--${boundary}--\r\n`,
    );
    const again = await get('/a.txt', { range: 'bytes=0-0,5-5' });
    expect(again.header('content-type')).not.toContain(String(boundary));
  });

  it('sends the whole to who asks for a thousand little parts', async () => {
    const range = `bytes=${Array.from({ length: 200 }, (_, i) => `${i * 5}-${i * 5}`).join(',')}`;
    const response = await get('/a.txt', { range });
    expect([response.status, response.body.length]).toEqual([200, 1000]);
  });

  it('says how long it is to who asks for what is not there', async () => {
    const response = await get('/a.txt', { range: 'bytes=1000-' }, { maxAge: 1000 });
    expect([response.status, response.body.toString()]).toEqual([416, 'Range Not Satisfiable']);
    expect(response.header('content-range')).toBe('bytes */1000');
    for (const name of ['cache-control', 'etag', 'last-modified'])
      expect(response.header(name)).toBeUndefined();
    expect((await get('/empty.txt', { range: 'bytes=0-' })).header('content-range')).toBe('bytes */0');
    expect((await get('/empty.txt', { range: 'bytes=-1' })).status).toBe(200);
  });

  it('sends no parts where the handler wants none', async () => {
    const response = await get('/a.txt', { range: 'bytes=0-1' }, { acceptRanges: false });
    expect([response.status, response.body.length]).toEqual([200, 1000]);
    expect(response.header('accept-ranges')).toBeUndefined();
  });

  // --------------------------------------------------------------------------------------------------- precompressed

  describe('with encoded forms beside it', () => {
    it.each<
      [target: string, precompressed: unknown, accepts: string | undefined, coding: string | undefined]
    >([
      ['/all.js', true, 'gzip, deflate, br, zstd', 'br'],
      ['/all.js', true, 'gzip, deflate', 'gzip'],
      ['/all.js', true, 'gzip;q=1, br;q=0.9', 'gzip'],
      ['/all.js', true, 'zstd, gzip', 'zstd'],
      ['/all.js', true, 'br;q=0, *', 'zstd'],
      ['/all.js', true, '*;q=0.1', 'br'],
      ['/all.js', true, undefined, undefined],
      ['/all.js', true, 'identity', undefined],
      ['/all.js', true, 'identity, gzip;q=0.5', undefined],
      ['/all.js', true, 'deflate', undefined],
      ['/all.js', ['gzip', 'br'], 'br, gzip', 'gzip'],
      ['/all.js', ['gzip'], 'br', undefined],
      ['/all.js', [], 'br', undefined],
      ['/gz.js', true, 'br, gzip;q=0.1', 'gzip'],
      ['/gz.js', true, 'br', undefined],
      ['/old.js', true, 'br', undefined],
      ['/empty.js', true, 'br', undefined],
      ['/out.js', true, 'br', undefined],
      ['/folder.js', true, 'br', undefined],
    ])('%s, of %j, to who accepts %j, is sent in %s', async (target, precompressed, accepts, coding) => {
      const headers = accepts === undefined ? {} : { 'accept-encoding': accepts };
      const response = await get(target, headers, { precompressed });
      expect(response.status).toBe(200);
      expect(response.header('content-encoding')).toBe(coding);
      expect(response.header('vary')).toBe('accept-encoding');
      expect(response.header('content-type')).toBe('text/javascript; charset=utf-8');
      const expected = coding === undefined ? Buffer.from(TEXT) : FORMS[coding as keyof typeof FORMS];
      expect(response.body).toEqual(expected);
    });

    it('is sent as it is where the handler does not ask for them', async () => {
      const response = await get('/all.js', { 'accept-encoding': 'br' });
      expect([response.header('content-encoding'), response.header('vary')]).toEqual([undefined, undefined]);
      expect(response.body.toString()).toBe(TEXT);
      const own = await ask(
        'GET',
        '/all.js',
        { headers: { 'accept-encoding': 'br' }, options: { root, precompressed: true } },
        { 'content-encoding': 'identity' },
      );
      expect(own.body.toString()).toBe(TEXT);
    });

    it('is not found when there are only those', async () => {
      expect((await get('/only.js', { 'accept-encoding': 'br' }, { precompressed: true })).status).toBe(404);
      expect((await get('/only.js.br')).header('content-type')).toBe('application/octet-stream');
    });

    it('has in each form its own tag, which conditions are compared with', async () => {
      const precompressed = true;
      const tags = new Map<string, string>();
      for (const coding of ['br', 'gzip', 'zstd', 'identity']) {
        const headers = { 'accept-encoding': coding };
        const { header } = await get('/all.js', headers, { precompressed });
        const tag = String(header('etag'));
        tags.set(tag, coding);
        const again = await get('/all.js', { ...headers, 'if-none-match': tag }, { precompressed });
        expect([again.status, again.header('etag'), again.header('vary')]).toEqual([
          304,
          tag,
          'accept-encoding',
        ]);
        expect(again.header('content-encoding')).toBeUndefined();
      }
      expect(tags.size).toBe(4);
      const [br = ''] = tags.keys();
      const other = await get(
        '/all.js',
        { 'accept-encoding': 'gzip', 'if-none-match': br },
        { precompressed },
      );
      expect(other.status).toBe(200);
      const own = await get('/all.js', { 'accept-encoding': 'br' }, { precompressed, etag: '"v1"' });
      expect(own.header('etag')).toBe('"v1-br"');
    });

    it('sends parts of the form that was chosen', async () => {
      const headers = { 'accept-encoding': 'br' };
      const precompressed = true;
      const tag = String((await get('/all.js', headers, { precompressed })).header('etag'));
      const cut = 7;
      const first = await get('/all.js', { ...headers, range: `bytes=0-${cut - 1}` }, { precompressed });
      const rest = await get(
        '/all.js',
        { ...headers, range: `bytes=${cut}-`, 'if-range': tag },
        { precompressed },
      );
      expect([first.status, rest.status]).toEqual([206, 206]);
      expect(rest.header('content-encoding')).toBe('br');
      expect(rest.header('content-range')).toBe(`bytes ${cut}-${FORMS.br.length - 1}/${FORMS.br.length}`);
      expect(brotliDecompressSync(Buffer.concat([first.body, rest.body])).toString()).toBe(TEXT);
      // Resumed by who no longer accepts that form: the whole, in the other.
      const changed = await get(
        '/all.js',
        { 'accept-encoding': 'gzip', range: `bytes=${cut}-`, 'if-range': tag },
        { precompressed },
      );
      expect(changed.status).toBe(200);
      expect(gunzipSync(changed.body).toString()).toBe(TEXT);
    });

    it('tells HEAD about the form that GET would get', async () => {
      const headers = { 'accept-encoding': 'gzip' };
      const head = await ask('HEAD', '/all.js', { headers, options: { root, precompressed: true } });
      expect(head.header('content-encoding')).toBe('gzip');
      expect(head.header('content-length')).toBe(String(FORMS.gzip.length));
    });

    it.each([
      ['origin', 'origin, accept-encoding'],
      ['Accept-Encoding', 'Accept-Encoding'],
      ['*', '*'],
    ])('adds to the Vary: %s of a handler', async (vary, expected) => {
      const response = await ask(
        'GET',
        '/all.js',
        { options: { root, precompressed: true } },
        { Vary: vary },
      );
      expect(response.all('vary')).toEqual([expected]);
    });
  });

  // ------------------------------------------------------------------------------------------------- while it changes

  /** What the client gets, asked at least 400 times, and until it has got all of `expected`. */
  async function seen(target: string, options: object, expected: readonly string[]): Promise<string[]> {
    const answers = new Set<string>();
    let asked = 0;
    await until(
      async () => {
        for (let i = 0; i < 100; i++, asked++) {
          const { status, body } = await get(target, {}, options);
          answers.add(`${status} ${body}`);
        }
        return asked >= 400 && expected.every((answer) => answers.has(answer));
      },
      `it is answered ${expected.join(' and ')}`,
      15_000,
    );
    return [...answers].sort();
  }

  it('leads nowhere else through a symlink that is exchanged all the time', async () => {
    mkdirSync(join(root, 'inside'), { recursive: true });
    write('inside/secret.txt', 'for everybody');
    const child = swapping(join(root, 'swapped'), '../outside', 'inside');
    try {
      const expected = ['200 for everybody', '404 Not Found'];
      expect(await seen('/swapped/secret.txt', {}, expected)).toEqual(expected);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('stays below a root that is switched to another folder all the time', async () => {
    for (const name of ['r1', 'r2']) {
      mkdirSync(join(folder, name), { recursive: true });
      writeFileSync(join(folder, name, 'a.txt'), name);
    }
    const child = swapping(join(folder, 'live'), 'r1', 'r2');
    try {
      const expected = ['200 r1', '200 r2'];
      const answers = await seen('/a.txt', { root: join(folder, 'live') }, expected);
      expect(answers.filter((answer) => answer !== '404 Not Found')).toEqual(expected);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('with two names is served under both', async () => {
    linkSync(join(root, 'a.txt'), join(root, 'hard.txt'));
    expect((await get('/hard.txt')).status).toBe(200);
    expect(statSync(join(root, 'hard.txt')).nlink).toBe(2);
    rmSync(join(root, 'hard.txt'));
  });
});
