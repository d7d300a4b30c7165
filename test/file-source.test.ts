/** Opening and reading: what happens to a file, and to its descriptor, while it is looked at and sent. */
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Disk, disk, mayBlock, threaded } from '../src/handlers/file/disk.js';
import { isBelow, type OpenFile, openFile } from '../src/handlers/file/open.js';
import { resolveFile } from '../src/handlers/file/resolve.js';
import { FileSource } from '../src/handlers/file/source.js';
import { type FileOptions, file } from '../src/handlers/file.js';
import type { SizedSource } from '../src/handlers/source.js';
import { noneOpenIn, openIn } from './support/descriptors.js';

let folder: string;
beforeAll(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'offloop-source-')));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const descriptors = (): number => openIn(folder);
const allClosed = (): Promise<void> => noneOpenIn(folder);

/** Open a file until it has the number that another had. */
function takeNumber(fd: number, name: string): number[] {
  const opened: number[] = [];
  while (!opened.includes(fd)) opened.push(openSync(name, 'r'));
  return opened;
}

const path = (name: string): string => join(folder, name);
function write(name: string, content: string | Uint8Array): string {
  writeFileSync(path(name), content);
  return path(name);
}
async function collect(source: SizedSource): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of source.chunks()) {
    // As it is transferred to another thread.
    expect(chunk.buffer.byteLength).toBe(chunk.byteLength);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const linux = process.platform === 'linux';
// Before this thread is told that it may block.
const ways: [string, Disk][] = [['with the threads of libuv', threaded]];
mayBlock();
ways.push(['by a worker that may block', disk()]);

describe.runIf(linux).each(ways)('a file that is opened %s', (_, via) => {
  const open = async (name: string, root?: string): Promise<OpenFile> => {
    const opened = await openFile(path(name), root, via);
    if (opened === null) throw new Error(`${name} is not there`);
    return opened;
  };

  afterEach(allClosed);

  it('is closed once, however often it is asked for', async () => {
    write('a.txt', 'a');
    const opened = await open('a.txt');
    expect(descriptors()).toBe(1);
    opened.close();
    await allClosed();
    const others = takeNumber(opened.fd, path('a.txt'));
    opened.close();
    await threaded.stat(opened.fd);
    expect(descriptors()).toBe(others.length);
    others.forEach(closeSync);
  });

  it.each(['nowhere', 'a.txt/b', '.', 'x'.repeat(300), 'loop'])('leaves nothing open: %j', async (name) => {
    write('a.txt', 'a');
    rmSync(path('loop'), { force: true });
    symlinkSync('loop', path('loop'));
    expect(await openFile(`${folder}/${name}`, undefined, via)).toBeNull();
  });

  it('whose name the system does not take is an error', async () => {
    await expect(openFile(`${folder}/a\0b`, undefined, via)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
  });

  it('and lies elsewhere leaves nothing open', async () => {
    write('a.txt', 'a');
    mkdirSync(path('root'), { recursive: true });
    rmSync(path('root/link'), { force: true });
    symlinkSync('../a.txt', path('root/link'));
    expect(await openFile(path('root/link'), path('root'), via)).toBeNull();
    expect(await openFile(path('a.txt'), path('root'), via)).toBeNull();
    expect(await openFile(path('a.txt'), path('none'), via)).toBeNull();
  });

  it.each([true, false])(
    'is known to lie below a root, whether the kernel tells its name or not (%s)',
    async (kernel) => {
      mkdirSync(path('below/in'), { recursive: true });
      mkdirSync(path('below-not'), { recursive: true });
      write('below/in/a.txt', 'a');
      write('below-not/a.txt', 'a');
      const below = async (name: string, root: string): Promise<boolean> => {
        const opened = await open(name);
        try {
          return await isBelow(opened, root, via, kernel);
        } finally {
          opened.close();
        }
      };
      expect(await below('below/in/a.txt', path('below'))).toBe(true);
      expect(await below('below/in/a.txt', path('below/in'))).toBe(true);
      expect(await below('below/in/a.txt', '/')).toBe(true);
      expect(await below('below-not/a.txt', path('below'))).toBe(false);
      expect(await below('below/in/a.txt', path('below/in/a.txt'))).toBe(false);
      expect(await below('below/in/a.txt', path('none'))).toBe(false);
    },
  );

  it('is not what lies there now, where the kernel does not tell its name', async () => {
    mkdirSync(path('now'), { recursive: true });
    write('now/a.txt', 'old');
    const opened = await open('now/a.txt');
    renameSync(write('now/b.txt', 'new'), path('now/a.txt'));
    // It cannot be known where the old one was.
    expect(await isBelow(opened, path('now'), via, false)).toBe(false);
    expect(await isBelow(opened, path('now'), via)).toBe(true);
    rmSync(path('now/a.txt'));
    expect(await isBelow(opened, path('now'), via, false)).toBe(false);
    opened.close();
  });

  it('with bytes in its name that are no UTF-8 is no other with such bytes', async () => {
    const names = mkdtempSync(path('bytes-'));
    const bytes = (last: number): Buffer => Buffer.concat([Buffer.from(`${names}/r`), Buffer.from([last])]);
    for (const last of [0xfe, 0xff]) {
      mkdirSync(bytes(last));
      writeFileSync(Buffer.concat([bytes(last), Buffer.from('/a.txt')]), 'a');
    }
    symlinkSync(bytes(0xfe), path('fe'));
    symlinkSync(bytes(0xff), path('ff'));
    symlinkSync(Buffer.concat([bytes(0xff), Buffer.from('/a.txt')]), path('fe/out.txt'));
    try {
      (await open('fe/a.txt', path('fe'))).close();
      expect(await openFile(path('fe/out.txt'), path('fe'), via)).toBeNull();
      expect(await openFile(path('fe/a.txt'), path('ff'), via)).toBeNull();
    } finally {
      for (const name of ['fe', 'ff']) rmSync(path(name));
    }
  });

  // --------------------------------------------------------------------------------------------------------- reading

  const CONTENT = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));

  it('is read to its end, in buffers of their own', async () => {
    write('large', CONTENT);
    const source = new FileSource(await open('large'), [{ from: 0, to: CONTENT.length }]);
    const chunks: Uint8Array[] = [];
    for await (const chunk of source.chunks()) {
      expect(chunk.buffer.byteLength).toBe(chunk.byteLength);
      chunks.push(chunk);
    }
    source.close();
    expect(new Set(chunks.map(({ buffer }) => buffer)).size).toBe(chunks.length);
    expect(Buffer.concat(chunks).equals(CONTENT)).toBe(true);
    expect(chunks.map(({ length }) => length)).toEqual([65_536, 65_536, 65_536, 65_536, 37_856]);
  });

  it('is read in parts, with something between them', async () => {
    write('large', CONTENT);
    const pieces = [
      Buffer.from('<'),
      { from: 299_000, to: 300_000 },
      Buffer.from('|'),
      { from: 0, to: 70_000 },
    ];
    const expected = Buffer.concat([
      Buffer.from('<'),
      CONTENT.subarray(299_000),
      Buffer.from('|'),
      CONTENT.subarray(0, 70_000),
    ]);
    const source = new FileSource(await open('large'), pieces);
    expect(source.length).toBe(expected.length);
    expect((await collect(source)).equals(expected)).toBe(true);
    source.close();
    const whole = await new FileSource(await open('large'), pieces).all(via);
    expect(Buffer.from(whole).equals(expected)).toBe(true);
  });

  it('and grows is sent as far as it went', async () => {
    write('growing', 'abc');
    const source = new FileSource(await open('growing'), [{ from: 0, to: 3 }]);
    appendFileSync(path('growing'), 'def');
    expect((await collect(source)).toString()).toBe('abc');
    source.close();
  });

  it('and is replaced is sent as it was', async () => {
    write('replaced', CONTENT);
    const source = new FileSource(await open('replaced'), [{ from: 0, to: CONTENT.length }]);
    const chunks = source.chunks();
    const { value: first } = (await chunks.next()) as { value: Uint8Array };
    renameSync(write('replacement', Buffer.alloc(CONTENT.length, 1)), path('replaced'));
    rmSync(path('replaced'));
    const rest: Uint8Array[] = [];
    for await (const chunk of chunks) rest.push(chunk);
    expect(Buffer.concat([first, ...rest]).equals(CONTENT)).toBe(true);
    source.close();
  });

  it('and becomes shorter fails, and sends nothing in place of what is gone', async () => {
    write('shrinking', CONTENT);
    const source = new FileSource(await open('shrinking'), [{ from: 0, to: CONTENT.length }]);
    const chunks = source.chunks();
    await chunks.next();
    truncateSync(path('shrinking'), 100_000);
    await expect(chunks.next()).rejects.toMatchObject({
      code: 'OFFLOOP_FILE_CHANGED',
      message: expect.stringContaining('ends at byte 100000'),
    });
    source.close();
    write('shrinking', CONTENT);
    const opened = await open('shrinking');
    truncateSync(path('shrinking'), 10);
    const all = new FileSource(opened, [{ from: 0, to: CONTENT.length }]).all(via);
    await expect(all).rejects.toMatchObject({ code: 'OFFLOOP_FILE_CHANGED' });
  });

  it('and closed in the middle is read no further, and closed when what is under way has come', async () => {
    write('large', CONTENT);
    const opened = await open('large');
    const source = new FileSource(opened, [{ from: 0, to: CONTENT.length }]);
    const chunks = source.chunks();
    await chunks.next();
    const pending = chunks.next();
    source.close();
    source.close();
    expect(descriptors()).toBe(1);
    expect(((await pending).value as Uint8Array).byteLength).toBe(65_536);
    await allClosed();
    const others = takeNumber(opened.fd, write('other', Buffer.alloc(300_000, 's')));
    expect(await chunks.next()).toEqual({ value: undefined, done: true });
    others.forEach(closeSync);
  });

  it('and closed before it is read is never read', async () => {
    write('large', CONTENT);
    const source = new FileSource(await open('large'), [{ from: 0, to: CONTENT.length }]);
    source.close();
    expect(await collect(source)).toHaveLength(0);
  });
});

describe.runIf(linux)('the answer with a file', () => {
  afterEach(allClosed);
  const body = Buffer.alloc(200_000, 7);
  const resolve = (
    headers: Record<string, string> = {},
    method = 'GET',
    options: FileOptions = {},
    response: object = {},
  ): ReturnType<typeof resolveFile> =>
    resolveFile(
      file('/a.bin', { root: folder, ...options }),
      { status: 200, headers: undefined, ...response },
      { isHead: method === 'HEAD', method, headers },
    );

  it.each<[string, Record<string, string>, string, number, object?]>([
    ['HEAD', {}, 'HEAD', 200],
    ['304', { 'if-none-match': '*' }, 'GET', 304],
    ['412', { 'if-match': '"x"' }, 'GET', 412],
    ['416', { range: 'bytes=999999-' }, 'GET', 416],
    ['a small part', { range: 'bytes=0-9' }, 'GET', 206],
    ['small parts', { range: 'bytes=0-9,20-29' }, 'GET', 206],
    ['204', {}, 'GET', 204, { status: 204 }],
  ])('holds no file: %s', async (_, headers, method, status, response) => {
    write('a.bin', body);
    const answer = await resolve(headers, method, {}, response);
    expect(answer.status).toBe(status);
    expect(descriptors()).toBe(0);
  });

  it('holds the file as long as it is sent', async () => {
    write('a.bin', body);
    const answer = await resolve();
    expect(descriptors()).toBe(1);
    expect((await collect(answer.content as SizedSource)).equals(body)).toBe(true);
    (answer.content as SizedSource).close?.();
  });

  it.each(['stale', 'empty', 'fresh'])(
    'holds one file where there are two: a form that is %s',
    async (kind) => {
      write('a.bin', body);
      write('a.bin.br', kind === 'empty' ? '' : body);
      if (kind === 'stale') utimesSync(path('a.bin.br'), 1, 1);
      const answer = await resolve({ 'accept-encoding': 'br' }, 'GET', { precompressed: true });
      expect(descriptors()).toBe(1);
      (answer.content as SizedSource).close?.();
    },
  );

  it('takes null for a header that shall not be there, and undefined for nothing said', async () => {
    write('a.bin', 'a');
    const headers = { ETag: undefined, 'last-modified': null, 'x-list': ['1', 2], 'X-None': undefined };
    const { fields } = await resolve({}, 'GET', { headers: { 'content-type': undefined } }, { headers });
    const lines = [...fields].filter(([, value]) => value !== null);
    expect(lines).toEqual([
      ['x-list', ['1', 2]],
      ['content-type', 'application/octet-stream'],
      ['etag', expect.any(String)],
      ['accept-ranges', 'bytes'],
    ]);
    const cookies = new Headers({ 'x-a': 'b' });
    cookies.append('set-cookie', 'a=1');
    cookies.append('set-cookie', 'b=2');
    const web = await resolve({}, 'GET', {}, { headers: cookies });
    expect([...web.fields]).toContainEqual(['set-cookie', ['a=1', 'b=2']]);
  });

  it('whose name leaves no room for the ending of an encoding is sent as it is', async () => {
    const name = 'n'.repeat(254);
    write(name, 'a');
    const body = file(`/${name}`, { root: folder, precompressed: true });
    const request = { isHead: false, method: 'GET', headers: { 'accept-encoding': 'br, gzip' } };
    const answer = await resolveFile(body, { status: 200, headers: null }, request);
    expect(answer.status).toBe(200);
  });

  it('that fails leaves nothing open', async () => {
    write('a.bin', body);
    const response = { headers: 5 };
    await expect(resolve({}, 'GET', {}, response)).rejects.toMatchObject({ code: 'OFFLOOP_BAD_RESPONSE' });
  });
});
