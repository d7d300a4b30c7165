import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { runServer } from 'offloop';
import { describe, expect, it } from 'vitest';
import { ask, program, scratch, WORK, work } from './support/pool-client.js';
import { fixture, serve, until, within } from './support/server.js';

const here = { ip: '127.0.0.1', port: 0, nMin: 1, nMax: 1 };

interface Failure extends Error {
  code?: string;
}

/** What runServer rejects with. */
async function rejection(handler: string | URL): Promise<Failure> {
  const start = runServer(handler, { ...here, nMin: 2, nMax: 2 }).then(
    async (server) => {
      await server.stop({ timeout: 0 });
      throw new Error('it started');
    },
    (error: unknown) => error as Failure,
  );
  return await within(start, 'runServer to reject', 10_000);
}

describe('runServer rejects', () => {
  it('with the error a module throws when it is imported: class, message, code, stack and cause', async () => {
    const error = await rejection(fixture('pool/throws.mjs'));
    expect(error).toBeInstanceOf(RangeError);
    expect(error).toMatchObject({ name: 'RangeError', message: 'no config', code: 'ENOCONFIG' });
    expect(error.stack).toMatch(/readConfig .*throws\.mjs:2/);
    expect(error.cause).toBeInstanceOf(SyntaxError);
    expect(error.cause).toMatchObject({ message: 'bad line' });
  });

  it('with the syntax error of a module, and where it is', async () => {
    const path = join(scratch(), 'broken.mjs');
    writeFileSync(path, 'export default (req) => {\n  return { body: \n};\n');
    const error = await rejection(path);
    expect(error).toBeInstanceOf(SyntaxError);
    expect(error.message).toContain('Unexpected token');
    expect(`${error.message}\n${error.stack}`).toContain('broken.mjs');
  });

  it('when a module imports something that is not there, with its name', async () => {
    const path = join(scratch(), 'lost.mjs');
    writeFileSync(path, "import './nowhere.mjs';\nexport default () => ({ body: 'x' });\n");
    const error = await rejection(path);
    expect(error.code).toBe('ERR_MODULE_NOT_FOUND');
    expect(error.message).toContain('nowhere.mjs');
  });

  it.each([
    ['there is no default export', 'no-default.mjs', 'missing'],
    ['the default export is a number', 'number.mjs', 'a number'],
    ['the default export is an object without fetch', 'object.mjs', 'an? object'],
    ['a CommonJS module leads round in a circle', 'circle.cjs', ''],
  ])('when %s, and shows what to write', async (_, file, what) => {
    const error = await rejection(fixture(`pool/${file}`));
    expect(error).toBeInstanceOf(TypeError);
    expect(error.code).toBe('OFFLOOP_NO_HANDLER');
    expect(error.message).toContain(file);
    expect(error.message).toMatch(new RegExp(what));
    expect(error.message).toContain('export default');
  });

  it('when there is no such file, with the path it looked for', async () => {
    const error = await rejection('./test/fixtures/pool/nowhere.mjs');
    expect(error.code).toBe('OFFLOOP_MODULE_NOT_FOUND');
    expect(error.message).toContain('./test/fixtures/pool/nowhere.mjs');
    expect(error.message).toContain(fixture('pool/nowhere.mjs'));
    expect(error.message).toContain(process.cwd());
  });

  it.each(['http://example.com/handler.mjs', 'data:text/javascript,export default 1'])(
    'when the module is %s, which is no file',
    async (url) => {
      const error = await rejection(new URL(url));
      expect(error).toBeInstanceOf(TypeError);
      expect(error.code).toBe('OFFLOOP_MODULE_NOT_FOUND');
    },
  );

  it('when onWorkerStart rejects, with what it rejected with', async () => {
    const error = await rejection(fixture('pool/start-fails.mjs'));
    expect(error).toBeInstanceOf(RangeError);
    expect(error).toMatchObject({ message: 'no database', code: 'ENODB' });
    expect(error.stack).toContain('start-fails.mjs');
    expect(error.cause).toBeInstanceOf(TypeError);
  });

  it('when the module ends its thread while it is imported', async () => {
    const error = await rejection(fixture('pool/exits.mjs'));
    expect(error).toBeInstanceOf(Error);
    expect(error.message).toMatch(/exited with code:? 3/);
  });

  it('and the next runServer in the same process works', async () => {
    await rejection(fixture('pool/throws.mjs'));
    const { url } = await serve(fixture('pool/hello.mjs'), here);
    expect((await ask(url)).text).toBe('hello');
  });

  it.each([
    ['a module that throws', 'throws.mjs', '{}'],
    ['a module that exits', 'exits.mjs', '{}'],
    ['a failing onWorkerStart', 'start-fails.mjs', '{}'],
    ['a file that is not there', 'nowhere.mjs', '{}'],
    ['flags that workers do not take', 'hello.mjs', "{ execArgv: ['--no-such-flag'] }"],
    ['a preload that is not there', 'hello.mjs', "{ execArgv: ['--import', './nowhere.mjs'] }"],
  ])('and leaves nothing behind that keeps the process alive: %s', async (_, file, options) => {
    const { code, out, err } = await program(`
      import { runServer } from 'offloop';
      const options = { ip: '127.0.0.1', port: 0, nMin: 2, nMax: 3, ...${options} };
      await runServer('./test/fixtures/pool/${file}', options).catch(() => console.log('rejected'));
    `);
    expect(err).toBe('');
    expect(out).toBe('rejected\n');
    expect(code).toBe(0);
  });
});

describe('a handler module', () => {
  it.each([
    ['a path relative to the working directory', './test/fixtures/pool/hello.mjs'],
    ['a path relative to the working directory, without the dot', 'test/fixtures/pool/hello.mjs'],
    ['an absolute path', fixture('pool/hello.mjs')],
    ['a URL', pathToFileURL(fixture('pool/hello.mjs'))],
    ['the text of a URL', pathToFileURL(fixture('pool/hello.mjs')).href],
    ['a URL with a query', new URL(`${pathToFileURL(fixture('pool/hello.mjs')).href}?fresh`)],
  ])('may be named by %s', async (_, handler) => {
    const { url } = await serve(handler, here);
    expect((await ask(url)).text).toBe('hello');
  });

  it('may lie on a path with spaces and signs', async () => {
    const path = join(scratch(), 'a b#c%20é?.mjs');
    writeFileSync(path, "export default () => ({ body: 'found' });\n");
    const { url } = await serve(path, here);
    expect((await ask(url)).text).toBe('found');
  });

  it.each([
    ['CommonJS', 'plain.cjs', 'common'],
    ['CommonJS compiled from ESM', 'compiled.cjs', 'compiled'],
    ['asynchronous at its top level', 'top-level-await.mjs', 'awaited'],
  ])('may be %s', async (_, file, text) => {
    const { url } = await serve(fixture(`pool/${file}`), here);
    expect(await ask(url)).toMatchObject({ status: 200, text });
  });

  it('may export an object with fetch', async () => {
    const { url } = await serve(fixture('pool/fetch.mjs'), here);
    expect(await ask(`${url}/some/where`)).toMatchObject({ status: 201, text: 'GET /some/where' });
  });

  it('has a state of its own in each worker', async () => {
    const { url } = await serve(WORK, { ...here, nMin: 2, nMax: 2 });
    const calls = new Map<number, number>();
    const bothSeen = async (): Promise<boolean> => {
      // Long enough that the two of them meet, and travel to two workers.
      for (const one of await Promise.all([work(url, { burn: 20 }), work(url, { burn: 20 })])) {
        const before = calls.get(one.threadId) ?? 0;
        expect(one.calls).toBe(before + 1);
        calls.set(one.threadId, one.calls);
      }
      return calls.size === 2;
    };
    await until(bothSeen, 'both workers have answered');
  });
});
