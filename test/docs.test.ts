import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { ERROR_CODES, runServer } from 'offloop';
import * as middleware from 'offloop/middleware';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EVENT_NAMES, resolveMountOptions, resolveServerOptions } from '../src/options.js';
import { sortOptions } from '../src/web/options.js';

const root = fileURLToPath(new URL('../', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

// ------------------------------------------------------------------------------------------------------ code blocks

/**
 * A code block of JavaScript or TypeScript is marked by a comment on the line before its fence:
 *
 * - `<!-- file: NAME -->` is written to a file, for others to import;
 * - `<!-- run: NAME -->` is written and run, with the files of its page so far beside it;
 * - `<!-- check: METHOD PATH [HEADERS] [BODY] => STATUS [TEXT or /PATTERN/] -->` anywhere behind that is a request to the first
 *   server it started. Headers stand in brackets, separated by ` | `. The body may not contain ` => `.
 */
interface Run {
  readonly name: string;
  readonly files: ReadonlyMap<string, string>;
  readonly checks: {
    method: string;
    path: string;
    headers: [string, string][];
    body: string | undefined;
    status: number;
    text: string | undefined;
  }[];
}

function runsOf(page: string): { runs: Run[]; unmarked: string[] } {
  const files = new Map<string, string>();
  const runs: Run[] = [];
  const unmarked: string[] = [];
  const parts =
    /(?:<!-- (file|run): (\S+) -->\n)?```(?:js|ts)\n([\s\S]*?)```|<!-- check: (\S+) (\S+)(?: \[([\w-]+: [^\]]*)\])?(?: (.*?))? => (\d+)(?: (.*?))? -->/g;
  for (const [, kind, name, code, method, path, headers, body, status, text] of read(page).matchAll(parts)) {
    if (method !== undefined) {
      runs.at(-1)?.checks.push({
        method,
        path: String(path),
        headers: headersOf(headers),
        body,
        status: Number(status),
        text,
      });
      continue;
    }
    if (name === undefined) {
      unmarked.push(String(code));
      continue;
    }
    files.set(name, String(code));
    if (kind === 'run') runs.push({ name, files: new Map(files), checks: [] });
  }
  return { runs, unmarked };
}

function headersOf(text = ''): [string, string][] {
  return text
    .split(' | ')
    .filter(Boolean)
    .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]);
}

/** The package as the blocks see it: every server takes a free port, says where it is, and stops when told to. */
const SHIM = `
import { runServer as run } from ${JSON.stringify(pathToFileURL(join(root, 'dist/index.js')).href)};
export * from ${JSON.stringify(pathToFileURL(join(root, 'dist/index.js')).href)};
const servers = [];
process.once('message', async () => {
  await Promise.all(servers.map((server) => server.stop()));
  process.disconnect();
});
process.channel.unref();
export async function runServer(handler, options = {}) {
  const server = await run(handler, { ...options, port: 0 });
  servers.push(server);
  process.send(server.url);
  return server;
}
`;

/** The same for offloop/web: one free port stands for each port that a block names. */
const WEB_SHIM = `
import * as web from ${JSON.stringify(pathToFileURL(join(root, 'dist/web/index.js')).href)};
export * from ${JSON.stringify(pathToFileURL(join(root, 'dist/web/index.js')).href)};
const ports = new Map();
const place = (options) => ({ ...options, host: '127.0.0.1', port: ports.get(options.port ?? 8080) ?? 0 });
const results = [];
process.once('message', async () => {
  await Promise.all(results.map((result) => web.stop(result)));
  process.disconnect();
});
process.channel.unref();
export async function run(handler, options = {}) {
  const result = await web.run(handler, place(options));
  if (options.port !== 0) ports.set(options.port ?? 8080, result.port);
  ports.set(result.port, result.port);
  results.push(result);
  process.send('http://127.0.0.1:' + result.port);
  return result;
}
export async function runDev(handler, options) {
  return web.runDev(handler, place(options));
}
export const stop = (options = {}) => web.stop(options.contexts ? options : place(options));
`;

describe('the code in the documentation', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'offloop-docs-'));
    const modules = join(folder, 'node_modules');
    mkdirSync(join(modules, 'offloop'), { recursive: true });
    const doors = {
      '.': './index.js',
      './handlers': './handlers.js',
      './middleware': './middleware.js',
      './testing': './testing.js',
      './web': './web.js',
    };
    writeFileSync(join(modules, 'offloop/package.json'), JSON.stringify({ type: 'module', exports: doors }));
    writeFileSync(join(modules, 'offloop/index.js'), SHIM);
    writeFileSync(join(modules, 'offloop/web.js'), WEB_SHIM);
    for (const door of ['handlers', 'middleware', 'testing']) {
      const url = pathToFileURL(join(root, `dist/${door}/index.js`)).href;
      writeFileSync(join(modules, `offloop/${door}.js`), `export * from ${JSON.stringify(url)};`);
    }
    for (const name of ['hono', 'express', 'fastify'])
      symlinkSync(join(root, 'node_modules', name), join(modules, name), 'junction');
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  for (const page of pages) {
    const { runs, unmarked } = runsOf(page);
    if (runs.length === 0 && unmarked.length === 0) continue;

    it(`of ${page} is all run by this test`, () => {
      expect(unmarked).toEqual([]);
    });

    for (const { name, files, checks } of runs) {
      it(`of ${page} works: ${name}`, async () => {
        for (const [file, code] of files) writeFileSync(join(folder, file), code);
        const child = spawn(process.execPath, [name], {
          cwd: folder,
          stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
        });
        try {
          await expectToWork(child, String(files.get(name)), checks);
        } finally {
          if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
        }
      });
    }
  }
});

async function expectToWork(child: ChildProcess, code: string, checks: Run['checks']): Promise<void> {
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
  }
  const exited = once(child, 'close') as Promise<[number | null]>;
  if (checks.length > 0) {
    const [url] = await Promise.race([
      once(child, 'message') as Promise<[string]>,
      exited.then(() => [undefined]),
    ]);
    expect(url, output).toBeDefined();
    for (const { method, path, headers, body, status, text } of checks) {
      // A mount further down in the block may not be there yet.
      await expect
        .poll(
          async () => {
            const init: RequestInit = {
              method,
              headers,
              redirect: 'manual',
              ...(body !== undefined && { body }),
            };
            const answer = await fetch(`${url}${path}`, init);
            return `${answer.status} ${await answer.text()}`;
          },
          { message: `${method} ${path}`, timeout: 10_000, interval: 25 },
        )
        .toMatch(expected(status, text));
    }
    child.send('stop');
  }
  expect((await exited)[0], output).toBe(0);
  // What a block claims to print, it prints.
  for (const [, line] of code.matchAll(/console\.log\(.*?\); \/\/ (.*)$/gm))
    expect(output).toContain(`${line}\n`);
}

function expected(status: number, text: string | undefined): RegExp {
  if (text === undefined) return new RegExp(`^${status} `);
  const pattern = /^\/(.*)\/$/.exec(text)?.[1];
  if (pattern !== undefined)
    return new RegExp(`^${status} ${pattern.startsWith('^') ? pattern.slice(1) : `[^]*${pattern}`}`);
  return new RegExp(`^${status} ${text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`);
}

// -------------------------------------------------------------------------------------------------------- reference

/** The names after `allowed:` in the message about an option that does not exist. */
function optionsOf(resolveOptions: (options: unknown) => unknown): string[] {
  try {
    resolveOptions({ nonsense: 1 });
  } catch (error) {
    return String(/allowed: (.*)\.$/.exec((error as Error).message)?.[1]).split(', ');
  }
  throw new Error('an unknown option was accepted');
}

/** Everything that a door exports, types too. */
function exportsOf(door: string): string[] {
  const lists = read(door).matchAll(/export (?:type )?\{([^}]*)\}/g);
  return [...lists]
    .flatMap(([, list]) =>
      String(list)
        .split(',')
        .map((name) => name.replace(/\btype\b/, '').trim()),
    )
    .filter(Boolean);
}

describe('the documentation', () => {
  const reference = read('docs/reference.md');

  it('has a row for every option', () => {
    const names = [...optionsOf(resolveServerOptions), ...optionsOf(resolveMountOptions)];
    expect(names).toContain('queueSize');
    expect(names.filter((name) => !reference.includes(`\n| \`${name}\` |`))).toEqual([]);
  });

  it('gives the defaults that hold', () => {
    const { server, pool, dispatch } = resolveServerOptions({});
    const actual: Record<string, unknown> = { ...pool, ...server, dispatch };
    const rows = reference.matchAll(/^\| `(\w+)` \| `([^`]+)`(?: \([^)]*\))? \|/gm);
    const documented = [...rows].filter(([, name]) => actual[String(name)] !== undefined);
    expect(documented.length).toBeGreaterThan(9);
    for (const [row, name, value] of documented) {
      expect(actual[String(name)], row).toEqual(JSON.parse(String(value).replaceAll("'", '"')));
    }
  });

  it('names every export of the doors', () => {
    const names = ['index', 'handlers/index', 'testing/index'].flatMap((door) => exportsOf(`src/${door}.ts`));
    expect(names).toEqual(expect.arrayContaining(['runServer', 'WorkerStats', 'compose', 'HttpRequest']));
    expect(names.filter((name) => !new RegExp(`\`${name}\\b`).test(reference))).toEqual([]);
  });

  it('names every export of the middleware, and has a row for every option', () => {
    const page = read('docs/middleware.md');
    const names = exportsOf('src/middleware/index.ts');
    expect(names).toEqual(expect.arrayContaining(['params', 'SessionStore', 'derive']));
    expect(names.filter((name) => !new RegExp(`\`${name}\\b`).test(page))).toEqual([]);
    for (const [name, make] of Object.entries(middleware)) {
      if (['derive', 'head', 'writeErrors'].includes(name)) continue;
      const options = optionsOf((given) =>
        name === 'staticFiles'
          ? middleware.staticFiles('.', given as object)
          : (make as (o: unknown) => unknown)(given),
      );
      const heading = { memoryStore: 'session', memoryLimiter: 'rateLimit' }[name] ?? name;
      const section = page.split(`\n## \`${heading}\`\n`)[1]?.split('\n## ')[0] ?? '';
      const rows = [...section.matchAll(/^\| (`[^|]*`) \|/gm)].flatMap(([, cell]) =>
        String(cell).split(', '),
      );
      expect(
        options.filter((option) => !rows.includes(`\`${option}\``)),
        `options of ${name} without a row`,
      ).toEqual([]);
    }
  });

  it('names every export of offloop/web, and has a row for every option of its own', () => {
    const page = read('docs/web.md');
    const names = exportsOf('src/web/index.ts');
    expect(names).toEqual(expect.arrayContaining(['run', 'NativeResponse']));
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(page))).toEqual([]);
    const others = [...optionsOf(resolveServerOptions)];
    const own = optionsOf((options) => sortOptions('run', options)).filter((name) => !others.includes(name));
    expect(own).toContain('autoStart');
    expect([...own, 'port'].filter((name) => !page.includes(`\n| \`${name}\` |`))).toEqual([]);
  });

  it('explains every number of the stats', async () => {
    const server = await runServer(join(root, 'examples/hello/handler.js'), { port: 0, nMax: 1 });
    try {
      const stats = server.stats();
      const worker = stats.pool?.workers[0];
      const names = [stats, stats.pool, worker].flatMap((numbers) => Object.keys(numbers ?? {}));
      expect(names).toContain('meanMicros');
      expect(names.filter((name) => !reference.includes(`\`${name}\``))).toEqual([]);
    } finally {
      await server.stop();
    }
  });

  it('lists every event under its name', () => {
    for (const [key, name] of Object.entries(EVENT_NAMES))
      expect(reference).toContain(`| \`${key}\` | \`${name}\` |`);
  });

  it('has a section for every error code', () => {
    const errors = read('docs/errors.md');
    const missing = Object.keys(ERROR_CODES).filter((code) => !errors.includes(`\n### \`${code}\`\n`));
    expect(missing).toEqual([]);
    const known = new Set([...errors.matchAll(/OFFLOOP_[A-Z_]+/g)].map(([code]) => code));
    expect([...known].filter((code) => !Object.hasOwn(ERROR_CODES, code))).toEqual([]);
  });

  for (const page of pages) {
    it(`has no link that leads nowhere in ${page}`, () => {
      const broken = linksOf(page).filter((link) => {
        const [path = '', anchor] = link.split('#');
        const target = path === '' ? page : join(dirname(page), decodeURI(path));
        if (!existsSync(join(root, target))) return true;
        return anchor !== undefined && !anchorsOf(target).has(anchor);
      });
      expect(broken).toEqual([]);
    });
  }
});

/** Links within the repository. Those to other sites are not looked at: a test must not need them. */
function linksOf(page: string): string[] {
  const text = read(page).replace(/```[\s\S]*?```/g, '');
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, link]) => String(link))
    .filter((link) => !/^[a-z]+:/.test(link));
}

/** The anchors that headings get where the pages are shown. */
function anchorsOf(page: string): Set<string> {
  const headings = read(page)
    .replace(/```[\s\S]*?```/g, '')
    .matchAll(/^#+ (.*)$/gm);
  return new Set(
    [...headings].map(([, text]) =>
      String(text)
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    ),
  );
}
