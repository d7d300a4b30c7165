/** Which files a handler module is made of, found by reading it: so that they can be watched before, and when, it does not load. */
import { readFileSync, statSync } from 'node:fs';
import { createRequire, isBuiltin } from 'node:module';
import { dirname, extname, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * What stands behind from, import or require, or in a URL made from import.meta.url. Text is matched and nothing parsed: what is not
 * an import, in a comment say, is watched in vain, and TypeScript needs no compiler. Names that are computed are not found.
 */
const IMPORTS =
  /\b(?:from|import|require)\s*\(?\s*(['"`])([^'"`\n]+)\1|\bnew URL\(\s*(['"`])([^'"`\n]+)\3\s*,\s*import\.meta\.url/g;
const CODE = /^\.[cm]?[jt]sx?$/;
/** What TypeScript is imported as, and what may be left out when something is required. */
const COMPILED: Record<string, readonly string[]> = {
  '.js': ['.ts', '.tsx'],
  '.mjs': ['.mts'],
  '.cjs': ['.cts'],
};
const LEFT_OUT = ['.js', '.json', '.ts', '.cjs', '.mjs', `${sep}index.js`, `${sep}index.ts`];
const PACKAGES = `${sep}node_modules${sep}`;

/**
 * The file of a module and all that it imports, directly or not, packages in node_modules left out. Those that are missing
 * are there too, under the name they should have. Never throws.
 */
export function importsOf(entry: string): Set<string> {
  const found = new Set([entry]);
  for (const file of found)
    for (const specifier of specifiersIn(file)) {
      const path = resolveFrom(file, specifier);
      if (path !== undefined && !path.includes(PACKAGES)) found.add(path);
    }
  return found;
}

function specifiersIn(file: string): string[] {
  if (!CODE.test(extname(file))) return [];
  try {
    const matches = readFileSync(file, 'utf8').matchAll(IMPORTS);
    return [...matches].map((match) => (match[2] ?? match[4]) as string);
  } catch {
    return [];
  }
}

function resolveFrom(file: string, specifier: string): string | undefined {
  try {
    if (specifier.startsWith('file:')) return existing(fileURLToPath(specifier));
    if (/^\.{0,2}\//.test(specifier))
      return existing(resolve(dirname(file), (specifier.split(/[?#]/, 1)[0] as string).replace(/\/$/, '')));
    if (isBuiltin(specifier) || /^\w+:/.test(specifier)) return undefined;
    // A package of the same repository, or an entry of `imports`.
    return createRequire(file).resolve(specifier);
  } catch {
    return undefined;
  }
}

/** The file that is meant by a path; the path itself when there is none. */
function existing(path: string): string {
  const extension = extname(path);
  const compiled = COMPILED[extension] ?? [];
  const others = [
    ...compiled.map((other) => path.slice(0, -extension.length) + other),
    ...LEFT_OUT.map((left) => path + left),
  ];
  return [path, ...others].find((name) => statSync(name, { throwIfNoEntry: false })?.isFile()) ?? path;
}
