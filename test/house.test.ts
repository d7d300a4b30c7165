import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const SRC = join(ROOT, 'src');
const FILES = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
const text = (file: string): string => readFileSync(join(SRC, file), 'utf8');
/** Without comments, so that a sentence about a package is not a use of it. */
const code = (file: string): string => text(file).replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');

interface Import {
  readonly file: string;
  /** 'src/...' for files of our own, else the name of the package. */
  readonly to: string;
}

/** Everything a file imports, types included: a type of another room is knowledge of it. */
function importsOf(file: string): Import[] {
  const specifiers = [...code(file).matchAll(/\b(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g)].map(
    (match) => match[1] as string,
  );
  return specifiers.map((specifier) => {
    const own = specifier.startsWith('.');
    const path = own
      ? relative(ROOT, resolve(SRC, dirname(file), specifier)).replace(/\.js$/, '.ts')
      : specifier;
    return { file: `src/${file}`, to: path };
  });
}
const IMPORTS = FILES.flatMap(importsOf);
const ENGINES = /^(uWebSockets\.js|@btc-vision\/|@trufflesuite\/)/;

interface Rule {
  readonly from: RegExp;
  readonly never: RegExp;
  readonly why: string;
}

const RULES: Rule[] = [
  {
    from: /^src\/io\//,
    never: /^(piscina|(node:)?worker_threads|src\/pool\/.*|src\/handlers\/.*)$/,
    why: 'src/io owns the sockets and must be testable with a fake dispatcher and no threads: it hands requests to a Dispatcher (src/protocol.ts) and knows nothing of pools, workers and handlers',
  },
  {
    from: /^src\/pool\//,
    never: /^(src\/io\/.*|src\/handlers\/.*|uWebSockets\.js|@btc-vision\/.*|@trufflesuite\/.*)$/,
    why: 'src/pool owns the threads and must be testable without sockets: it knows invocations (src/protocol.ts) and the path of the worker entry (src/paths.ts), not the engine and not the code that runs in workers',
  },
  {
    from: /^src\/handlers\//,
    never:
      /^(src\/io\/.*|src\/pool\/.*|src\/server\.ts|src\/index\.ts|piscina|uWebSockets\.js|@btc-vision\/.*|@trufflesuite\/.*)$/,
    why: 'src/handlers runs in worker threads: whatever it imports is loaded into every one of them, and the native engine or a pool inside a worker would cost memory and can crash the process',
  },
  {
    from: /^src\/middleware\//,
    never:
      /^(src\/io\/.*|src\/pool\/.*|src\/server\.ts|src\/index\.ts|src\/inline\.ts|piscina|uWebSockets\.js|@btc-vision\/.*|@trufflesuite\/.*)$/,
    why: 'src/middleware runs where handlers run, in worker threads: it knows requests and responses (src/handlers) and nothing of sockets and pools',
  },
  {
    from: /^src\/(?!middleware\/|web\/dev-page\.ts$)/,
    never: /^src\/middleware\//,
    why: 'middleware is a leaf: the server must do without it, and a worker whose handlers use none must not load it',
  },
  {
    from: /^src\/middleware\//,
    never: /^(@fastify\/busboy|cookie|qs|sonic-boom|youch)$/,
    why: 'what only some middleware needs is an optional peer: it is loaded through src/middleware/peers.ts when such a middleware is made, with an error that says what to install',
  },
  {
    from: /^src\/(?!(cli|testing)\/)/,
    never: /^src\/(cli|testing)\//,
    why: 'the command line and the testing helpers are leaves: each can be deleted with its tests, and nothing else breaks',
  },
  {
    from: /^src\/testing\//,
    never: /^src\/(io|pool|cli)\/|^src\/server\.ts$|^piscina$/,
    why: 'src/testing starts servers through the door that everybody uses, and calls handlers as a worker does: it knows no sockets and no threads',
  },
  {
    from: /^src\/(?!cli\/)/,
    never: /^commander$/,
    why: 'only the command line has arguments: programs that call runServer must not load a parser for them',
  },
  {
    from: /^src\/protocol\.ts$/,
    never: /.*/,
    why: 'src/protocol.ts is the plain data that crosses threads and is loaded on both sides: it imports nothing, so that neither side can leak into the other',
  },
  {
    from: /^src\/(?!pool\/worker-pool\.ts$)/,
    never: /^piscina$/,
    why: 'only src/pool/worker-pool.ts imports piscina, so that the library can be replaced, and its pitfalls guarded, in one place',
  },
  {
    from: /^src\/(?!io\/uws-loader\.ts$)/,
    never: ENGINES,
    why: 'only src/io/uws-loader.ts loads the native engine: a build has to be chosen for this Node, platform and libc, and missing ones explained',
  },
  {
    from: /^src\/(?!(server|index)\.ts$|web\/)/,
    never: /^src\/server\.ts$/,
    why: 'src/server.ts puts the house together; what it is made of must not know it',
  },
  {
    from: /^src\/web\//,
    never: /^(src\/io\/.*|src\/pool\/.*|piscina|uWebSockets\.js|@btc-vision\/.*|@trufflesuite\/.*)$/,
    why: 'src/web stands on the server, as a program of a user does: it knows src/server.ts and the options, not what the server is made of',
  },
  {
    // `offloop dev` watches as runDev does.
    from: /^src\/(?!web\/|cli\/dev\.ts$)/,
    never: /^src\/web\//,
    why: 'src/web is a leaf: the server must do without it',
  },
];

describe('the house', () => {
  it('has files and imports to look at', () => {
    expect(FILES.length).toBeGreaterThan(20);
    expect(IMPORTS.length).toBeGreaterThan(50);
    expect(IMPORTS).toContainEqual({ file: 'src/server.ts', to: 'src/io/http-server.ts' });
  });

  it.each(RULES)('keeps its rooms apart: $why', ({ from, never, why }) => {
    const broken = IMPORTS.filter(({ file, to }) => from.test(file) && never.test(to));
    expect(broken.map(({ file, to }) => `${file} imports ${to}. ${why}.`)).toEqual([]);
  });

  it('names the native packages in the loader only', () => {
    const named = FILES.filter(
      (file) =>
        file !== 'io/uws-loader.ts' &&
        /['"`](uWebSockets\.js|@btc-vision\/|@trufflesuite\/)/.test(code(file)),
    );
    const why =
      'names a native package: only src/io/uws-loader.ts does, where a build is chosen and a missing one explained';
    expect(named.map((file) => `src/${file} ${why}`)).toEqual([]);
  });

  it('has doors that only export', () => {
    for (const file of FILES.filter((name) => /(^|\/)index\.ts$/.test(name))) {
      const rest = code(file).replace(
        /export\s+(type\s+)?(\{[^}]*\}|\*(\s+as\s+\w+)?)\s*from\s*['"][^'"]+['"];?/g,
        '',
      );
      expect(
        rest.trim(),
        `src/${file} is a door and does more than export: what it does belongs into a file with a name`,
      ).toBe('');
    }
  });

  it('finds every file that src/paths.ts points at in dist', () => {
    const urls = [...code('paths.ts').matchAll(/new URL\(\s*['"]([^'"]+)['"]\s*,\s*import\.meta\.url/g)].map(
      (match) => match[1] as string,
    );
    expect(urls.length).toBeGreaterThan(0);
    for (const url of urls) {
      // What is bundled out of src/paths.ts lies directly under dist.
      const path = join(ROOT, 'dist', url);
      expect(
        existsSync(path),
        `src/paths.ts points at ${url}, and the build makes no dist/${url}: see tsup.config.ts`,
      ).toBe(true);
    }
    const elsewhere = FILES.filter(
      (file) => file.includes('/') && /new URL\([^)]*import\.meta\.url/.test(code(file)),
    );
    const why = 'builds a URL on import.meta.url, which bundling moves: that belongs into src/paths.ts';
    expect(elsewhere.map((file) => `src/${file} ${why}`)).toEqual([]);
  });

  it('finds every door of package.json in dist', () => {
    const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      exports: Record<string, string | { default: string }>;
    };
    for (const [door, target] of Object.entries(exports)) {
      const path = typeof target === 'string' ? target : target.default;
      expect(
        existsSync(join(ROOT, path)),
        `package.json exports ${door} from ${path}, which the build does not make`,
      ).toBe(true);
    }
  });

  it('loads neither the engine nor a pool into a worker: the built worker files import none of them', () => {
    const seen = new Set<string>();
    const visit = (path: string): void => {
      if (seen.has(path)) return;
      seen.add(path);
      const built = readFileSync(path, 'utf8');
      for (const [, specifier] of built.matchAll(/\b(?:from|import)\s*\(?\s*["']([^"']+)["']/g)) {
        if (specifier?.startsWith('.')) visit(resolve(dirname(path), specifier));
        else
          expect(specifier, `${relative(ROOT, path)} is loaded in every worker`).not.toMatch(
            /^piscina$|^@btc-vision|^@trufflesuite|^uWebSockets/,
          );
      }
    };
    visit(join(ROOT, 'dist/handlers/entry.js'));
    visit(join(ROOT, 'dist/handlers/index.js'));
    visit(join(ROOT, 'dist/middleware/index.js'));
    visit(join(ROOT, 'dist/web/dev-handler.js'));
    expect(seen.size).toBeGreaterThan(1);
  });
});
