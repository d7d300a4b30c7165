import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { cli } from './support/cli.js';

const root = fileURLToPath(new URL('../', import.meta.url));
const STARTER = join(root, 'examples/starter');
interface Manifest {
  scripts: Record<string, string>;
  dependencies: Record<string, string>;
  devDependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}
const read = (path: string): Manifest => JSON.parse(readFileSync(path, 'utf8')) as Manifest;

/** Run a command to its end, for a minute at most. */
function run(cwd: string, command: string, ...args: string[]): string {
  const env = { ...process.env, NODE_OPTIONS: '', NODE_TEST_CONTEXT: undefined };
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    env,
    encoding: 'utf8',
    timeout: 60_000,
  });
  if (error !== undefined || status !== 0)
    throw new Error(`${command} ${args.join(' ')}: ${error ?? status}\n${stdout}${stderr}`);
  return stdout;
}

/** Windows has no tar that takes such paths, and no links without more rights. */
describe.runIf(process.platform !== 'win32')('the starter, with the package as it is published', () => {
  let folder: string;
  const modules = (name: string): string => join(folder, 'node_modules', name);

  beforeAll(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), 'offloop-starter-')));
    cpSync(STARTER, folder, {
      recursive: true,
      filter: (path) => !/starter\/(node_modules|dist)/.test(path),
    });
    run(root, 'npm', 'pack', '--ignore-scripts', '--silent', '--pack-destination', folder);
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    mkdirSync(modules('offloop'), { recursive: true });
    run(folder, 'tar', '-xzf', `offloop-${version}.tgz`, '-C', modules('offloop'), '--strip-components=1');
    // As npm would install it, but without asking a registry: what it needs is here already.
    const { dependencies, optionalDependencies } = read(join(modules('offloop'), 'package.json'));
    const { devDependencies } = read(join(STARTER, 'package.json'));
    for (const name of Object.keys({
      ...dependencies,
      ...optionalDependencies,
      ...devDependencies,
      '@types/node': '',
    })) {
      const from = join(root, 'node_modules', name);
      if (!existsSync(from)) continue;
      mkdirSync(dirname(modules(name)), { recursive: true });
      symlinkSync(from, modules(name));
    }
    mkdirSync(modules('.bin'));
    chmodSync(modules('offloop/dist/cli/main.js'), 0o755);
    symlinkSync('../offloop/dist/cli/main.js', modules('.bin/offloop'));
  }, 90_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const tsc = (...args: string[]): string =>
    run(folder, process.execPath, modules('typescript/bin/tsc'), ...args);

  it('asks for a version that this is', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    expect(read(join(STARTER, 'package.json')).dependencies['offloop']).toBe(`^${version}`);
  });

  // A build for the tests makes no declarations; `npm run check` has made them before.
  it.runIf(existsSync(join(root, 'dist/testing/index.d.ts')))(
    'has the right types',
    () => {
      expect(tsc()).toBe('');
    },
    60_000,
  );

  it('passes its own tests', () => {
    const tests = ['test/primes.test.ts', 'test/server.test.ts'];
    const out = run(folder, process.execPath, '--import', 'tsx', '--test', '--test-reporter=tap', ...tests);
    expect(out).toMatch(/# pass 5\n# fail 0\n/);
  }, 60_000);

  it('builds, and serves what it has built as its start script and its Dockerfile say', async () => {
    tsc('-p', 'tsconfig.build.json', '--noCheck');
    const { start } = read(join(STARTER, 'package.json')).scripts;
    const [name, ...args] = String(start).split(' ');
    expect(name).toBe('offloop');
    const docker = readFileSync(join(STARTER, 'Dockerfile'), 'utf8');
    expect(JSON.parse(String(/^CMD (.*)$/m.exec(docker)?.[1]))).toEqual([
      'node_modules/.bin/offloop',
      ...args,
    ]);

    const { url, child, ended } = cli([...args, '--host', '127.0.0.1', '--port', '0'], {
      cwd: folder,
      main: modules('.bin/offloop'),
    });
    const home = await url();
    expect(await (await fetch(`${home}/?below=1000`)).json()).toEqual({ below: 1000, primes: 168 });
    expect(await (await fetch(`${home}/now`)).json()).toHaveProperty('now');
    expect((await fetch(`${home}/ready`)).status).toBe(200);
    const ws = new WebSocket(`${home.replace('http', 'ws')}/chat`);
    await once(ws, 'open');
    ws.send('hello');
    expect(String((await once(ws, 'message'))[0])).toBe('hello');
    ws.close();
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
  }, 60_000);

  it('runs with its dev script', async () => {
    const args = String(read(join(STARTER, 'package.json')).scripts['dev'])
      .split(' ')
      .slice(1);
    const { url } = cli([...args, '--port', '0'], { cwd: folder, main: modules('.bin/offloop') });
    const home = await url();
    expect(await (await fetch(`${home}/?below=10`)).json()).toEqual({ below: 10, primes: 4 });
  });
});
