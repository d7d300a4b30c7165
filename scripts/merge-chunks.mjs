// Puts the chunks that are always loaded together into one file each: a module of its own costs every thread about a millisecond of its
// start, and there are a dozen. tsup cannot do that itself: it makes a chunk for each set of entries that share something.
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));

/** What becomes one file: all chunks that these load, and that no group before has. */
const groups = [
  { file: 'chunk-threads.js', of: ['handlers/entry.js', 'handlers/index.js'] },
  { file: 'chunk-server.js', of: ['index.js'] },
];

const specifier = /(\bfrom\s*|\bimport\s*\(?\s*)"(\.{1,2}\/[^"]+\.js)"/g;
const isStatic = (before) => !before.includes('(');

/** The files that a file imports when it is loaded. */
function importsOf(file) {
  return [...readFileSync(file, 'utf8').matchAll(specifier)]
    .filter(([, before]) => isStatic(before))
    .map(([, , path]) => resolve(dirname(file), path));
}

function chunksOf(file, found = new Set()) {
  for (const path of importsOf(file)) {
    if (found.has(path)) continue;
    if (dirname(path) === resolve(dist) && basename(path).startsWith('chunk-')) found.add(path);
    chunksOf(path, found);
  }
  return found;
}

/** Both would be lost without a word. */
function checkNames(file, chunks) {
  const owner = new Map();
  for (const chunk of chunks) {
    const exported = /^export \{([^}]*)\};$/m.exec(readFileSync(chunk, 'utf8'))?.[1] ?? '';
    for (const name of exported.split(',').map((item) => item.trim().split(' as ').at(-1))) {
      if (name && owner.has(name)) throw new Error(`${file}: two chunks export ${name}`);
      owner.set(name, chunk);
    }
  }
}

export async function mergeChunks() {
  /** Where each chunk that is merged has gone. */
  const home = new Map();
  for (const { file, of } of groups) {
    const all = new Set(of.flatMap((entry) => [...chunksOf(join(dist, entry))]));
    const chunks = [...all].filter((chunk) => !home.has(chunk)).sort();
    checkNames(file, chunks);
    for (const chunk of chunks) home.set(chunk, file);
  }
  for (const { file } of groups) {
    const chunks = [...home].filter(([, target]) => target === file).map(([chunk]) => chunk);
    await build({
      stdin: {
        contents: chunks.map((chunk) => `export * from "./${basename(chunk)}";`).join('\n'),
        resolveDir: dist,
      },
      outfile: join(dist, file),
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      packages: 'external',
      sourcemap: true,
      sourcesContent: true,
      logLevel: 'warning',
      plugins: [
        {
          name: 'other groups stay outside',
          setup: ({ onResolve }) =>
            onResolve({ filter: /^\.{1,2}\// }, ({ path, resolveDir }) => {
              const target = home.get(resolve(resolveDir, path));
              if (target === file) return undefined;
              return { path: target === undefined ? path : `./${target}`, external: true };
            }),
        },
      ],
    });
  }
  const outputs = readdirSync(dist, { recursive: true })
    .filter((name) => name.endsWith('.js'))
    .map((name) => join(dist, name));
  for (const output of outputs.filter((path) => !home.has(path))) {
    const text = readFileSync(output, 'utf8');
    const moved = text.replace(specifier, (whole, before, path) => {
      const target = home.get(resolve(dirname(output), path));
      if (target === undefined) return whole;
      const to = relative(dirname(output), join(dist, target));
      return `${before}"${to.startsWith('.') ? to : `./${to}`}"`;
    });
    if (moved !== text) writeFileSync(output, moved);
  }
  for (const chunk of home.keys()) {
    rmSync(chunk);
    rmSync(`${chunk}.map`);
  }
}
