import { fork } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type DevInput, nativeHandler, type RunInput, type RunResult, run, runDev, stop } from 'offloop/web';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { hasBrowser, loadOpener } from '../src/web/browser.js';
import { importsOf } from '../src/web/imports.js';
import { fixture, until } from './support/server.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'offloop-dev-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
});
const write = (name: string, text: string): string => {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
};

interface Dev {
  readonly result: RunResult;
  readonly url: string;
  /** What has been told of reloads: null, or the message of an error. */
  readonly told: (string | null)[];
  readonly logged: string[];
}

async function dev(handler: Parameters<typeof runDev>[0], options: DevInput = {}): Promise<Dev> {
  const told: (string | null)[] = [];
  const logged: string[] = [];
  const result = await runDev(handler, {
    host: '127.0.0.1',
    port: 0,
    nMax: 1,
    open: false,
    errorLogger: (message) => logged.push(message),
    onReload: (error) => told.push(error === null ? null : (error as Error).message),
    ...options,
  });
  onTestFinished(async () => void (await stop({ ...result, timeout: 0 } as RunInput)));
  return { result, url: `http://127.0.0.1:${result.port}${result.path}`, told, logged };
}
const textAt = async (url: string): Promise<string> => (await fetch(url)).text();
const says = (url: string, text: string): Promise<void> =>
  until(async () => (await textAt(url)) === text, `${url} says ${text}`, 15_000);

describe('runDev', () => {
  it('reloads when the module changes, or what it imports, wherever that lies', async () => {
    write('shared/word.mjs', "export const word = 'one';");
    write('app/lib/deep.mjs', "export { word } from '../../shared/word.mjs';");
    const text = "import { word } from './lib/deep.mjs';\nexport default () => ({ body: word + 1 });";
    const { url, told } = await dev(write('app/handler.mjs', text));
    expect(await textAt(url)).toBe('one1');
    write('app/handler.mjs', text.replace('1', '2'));
    await says(url, 'one2');
    write('shared/word.mjs', "export const word = 'two';");
    await says(url, 'two2');
    // As many editors save.
    renameSync(write('shared/word.mjs~', "export const word = 'three';"), join(folder, 'shared/word.mjs'));
    await says(url, 'three2');
    await until(() => told.length >= 3, 'all have been told');
    expect(told.filter((error) => error !== null)).toEqual([]);
  });

  it('watches what is imported later, and folders that go and come back', async () => {
    const { url } = await dev(write('handler.mjs', "export default () => ({ body: 'none' });"));
    write('lib/word.mjs', "export default 'one';");
    write('handler.mjs', "import word from './lib/word.mjs';\nexport default () => ({ body: word });");
    await says(url, 'one');
    write('lib/word.mjs', "export default 'two';");
    await says(url, 'two');
    rmSync(join(folder, 'lib'), { recursive: true });
    write('lib/word.mjs', "export default 'three';");
    await says(url, 'three');
  });

  it('keeps the old code when the new does not load, shows the error, and goes on', async () => {
    const { url, told } = await dev(write('handler.mjs', "export default () => ({ body: 'old' });"));
    write('handler.mjs', 'export default () => ({ body: ');
    await until(() => told.length > 0, 'the error is told');
    expect(told[0]).toMatch(/Unexpected/);
    expect(await textAt(url)).toBe('old');
    write('handler.mjs', "import word from './later.mjs';\nexport default () => ({ body: word });");
    await until(() => told.some((error) => error?.includes('later.mjs')), 'what is missing is told');
    expect(await textAt(url)).toBe('old');
    write('later.mjs', "export default 'new';");
    await says(url, 'new');
    await until(() => told.at(-1) === null, 'that is told, too');
  });

  it('takes TypeScript', async () => {
    write('word.ts', "export const word: string = 'one';");
    const handler = write(
      'handler.ts',
      "import { word } from './word.ts';\nexport default (): object => ({ body: word });",
    );
    const { url } = await dev(handler);
    expect(await textAt(url)).toBe('one');
    write('word.ts', "export const word: string = 'two';");
    await says(url, 'two');
  });

  it('watches other files and folders on request', async () => {
    write('pages/deep/page.txt', 'one');
    const data = write('data.txt', 'a');
    const handler = write(
      'app/handler.mjs',
      `import { readFileSync } from 'node:fs';
      const text = readFileSync(new URL('../pages/deep/page.txt', import.meta.url)) + '' + readFileSync('${data}');
      export default () => ({ body: text });`,
    );
    const { url } = await dev(handler, { watch: [join(folder, 'pages'), data] });
    expect(await textAt(url)).toBe('onea');
    write('pages/deep/page.txt', 'two');
    await says(url, 'twoa');
    write('data.txt', 'b');
    await says(url, 'twob');
  });

  it('shows what is thrown, with source and stack', async () => {
    const handler = write(
      'handler.mjs',
      "export const onWorkerStart = () => {};\nconst pay = () => {\n  throw new TypeError('no <money> left');\n};\nexport default () => pay();",
    );
    const { url, logged, result } = await dev(handler);
    expect(result.development).toBe(true);
    const page = await fetch(url, { headers: { accept: 'text/html' } });
    expect([page.status, page.headers.get('content-type')]).toEqual([500, 'text/html; charset=utf-8']);
    const html = await page.text();
    expect(html).toContain('no &lt;money&gt; left');
    expect(html).toContain('handler.mjs');
    const text = await textAt(url);
    expect(text).toContain('TypeError: no <money> left');
    expect(text).toContain('at pay (');
    await until(() => logged.length === 2, 'both are logged');
  });

  it('shows what functions throw, and runs objects with fetch, modules and native handlers inline', async () => {
    const thrower = await dev(
      () => {
        throw new Error('inline');
      },
      { dispatch: false },
    );
    const page = await fetch(thrower.url, { headers: { accept: 'text/html' } });
    expect(page.headers.get('content-type')).toContain('text/html');
    expect(await page.text()).toContain('inline');
    const place = { port: thrower.result.port, errorLogger: undefined, nMax: undefined };
    const fetching = { fetch: () => new Response('fetch') };
    expect(await textAt((await dev(fetching, { ...place, path: '/f', dispatch: false })).url)).toBe('fetch');
    const native = nativeHandler((res) => res.end('native'));
    expect(await textAt((await dev(native, { ...place, path: '/n' })).url)).toBe('native');
    const module = write('handler.mjs', "export default () => ({ body: 'module' });");
    expect(await textAt((await dev(module, { ...place, path: '/m', dispatch: false })).url)).toBe('module');
  });

  it('stops watching when the handler is replaced or stopped', async () => {
    const handler = write('a/handler.mjs', "export default () => ({ body: 'a' });");
    const first = await dev(handler);
    const { onReload: _, ...options } = first.result as RunResult & DevInput;
    const other = write('b/handler.mjs', "export default () => ({ body: 'b' });");
    await run(other, options);
    expect(await textAt(first.url)).toBe('b');
    write('a/handler.mjs', "export default () => ({ body: 'c' });");
    // Another one that watches the same file knows when the change has been heard of.
    const second = await dev(handler);
    write('a/handler.mjs', "export default () => ({ body: 'd' });");
    await says(second.url, 'd');
    expect(first.told).toEqual([]);
    expect(await textAt(first.url)).toBe('b');
  });

  it('returns what run returns, and leaves nothing behind when the handler does not load', async () => {
    const { result } = await dev(write('handler.mjs', 'export default () => null;'));
    expect(Object.keys(result)).not.toEqual(expect.arrayContaining(['open']));
    expect(Object.keys(result)).not.toEqual(expect.arrayContaining(['onReload']));
    expect(result.contexts.size).toBe(1);
    await expect(dev(write('bad.mjs', "throw new Error('at once');"))).rejects.toThrow('at once');
    await expect(dev('./none.mjs')).rejects.toMatchObject({ code: 'OFFLOOP_MODULE_NOT_FOUND' });
    await expect(dev(() => null)).rejects.toThrow("runDev('./handler.js')");
    await expect(dev('./none.mjs', { watch: [''] })).rejects.toThrow('runDev: option watch is [""] (array)');
    await expect(dev('./none.mjs', { nonsense: 1 } as DevInput)).rejects.toThrow(
      'runDev: there is no option nonsense',
    );
  });

  it('keeps no process alive', async () => {
    const handler = write('handler.mjs', "export default () => ({ body: 'ok' });");
    const child = fork(fixture('http/dev-program.mjs'), [handler], { env: { ...process.env, CI: 'true' } });
    onTestFinished(() => void child.kill('SIGKILL'));
    const [port] = (await once(child, 'message')) as [number];
    expect(await textAt(`http://127.0.0.1:${port}`)).toBe('ok');
    const exited = once(child, 'exit');
    child.send('stop');
    expect(await exited).toEqual([0, null]);
  });
});

describe('a browser', () => {
  it.each([
    [{}, 'linux', false],
    [{ DISPLAY: ':0' }, 'linux', true],
    [{ WAYLAND_DISPLAY: 'wayland-0' }, 'linux', true],
    [{ WSL_DISTRO_NAME: 'Debian' }, 'linux', true],
    [{ DISPLAY: ':0', CI: 'true' }, 'linux', false],
    [{ DISPLAY: ':0', CI: 'false' }, 'linux', true],
    [{}, 'darwin', true],
    [{ SSH_CONNECTION: '1.2.3.4 5' }, 'darwin', false],
    [{}, 'win32', true],
    [{ CI: '1' }, 'win32', false],
  ] as const)('with %j on %s: %s', (env, platform, expected) => {
    expect(hasBrowser(env, platform)).toBe(expected);
  });
});

describe('the page', () => {
  const url = 'http://localhost:1/';

  it('is opened, and nobody minds when there is no browser after all', async () => {
    const opened: string[] = [];
    const browser = new EventEmitter();
    const open = (page: string): Promise<EventEmitter> => {
      opened.push(page);
      return Promise.resolve(browser);
    };
    const opener = await loadOpener(true, () => Promise.resolve({ default: open }));
    expect(await opener?.(url)).toBe(true);
    expect(opened).toEqual([url]);
    expect(browser.emit('error', new Error('ENOENT'))).toBe(true);
    const never = { default: () => Promise.reject(new Error('no browser')) };
    expect(await (await loadOpener(true, () => Promise.resolve(never)))?.(url)).toBe(false);
    expect(await loadOpener(true)).toBeTypeOf('function');
  });

  it('needs a package, which is asked for only by who wants it', async () => {
    const missing = (): Promise<never> => Promise.reject(new Error('not installed'));
    expect(await loadOpener(false, missing)).toBe(null);
    await expect(loadOpener(true, missing)).rejects.toMatchObject({
      code: 'OFFLOOP_MISSING_PACKAGE',
      message: expect.stringContaining('npm install --save-dev open') as string,
    });
  });
});

describe('the imports of a module', () => {
  it('are found in whatever way they are written, and to the end of the chain', () => {
    write('a.ts', 'export type A = 1;');
    write('b.cjs', "module.exports = require('./c');");
    write('c.json', '{}');
    write('d/index.js', "import '../entry.mjs';");
    write('e.mjs', "import 'node:fs';\nimport 'hono';\nimport 'https://example.com/x.js';");
    write('node_modules/package/index.js', "import './inner.js';");
    write('page.html', '<p>');
    const entry = write(
      'entry.mjs',
      `import type { A } from './a.js';
import{b}from"./b.cjs";
export * from './e.mjs?version=2';
const d = await import('./d');
import   'package';
const page = new URL('./page.html', import.meta.url);
const later = import(\`./later.mjs\`);
const computed = import(name);`,
    );
    const found = [...importsOf(entry)].map((path) => path.slice(folder.length + 1)).sort();
    expect(found).toEqual([
      'a.ts',
      'b.cjs',
      'c.json',
      'd/index.js',
      'e.mjs',
      'entry.mjs',
      'later.mjs',
      'page.html',
    ]);
  });

  it('are none where there is no module', () => {
    expect([...importsOf(join(folder, 'none.mjs'))]).toEqual([join(folder, 'none.mjs')]);
  });
});
