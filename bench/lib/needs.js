// What a run needs besides Node: the peers, offloop's build, wrk. The first two are made when they are missing.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { log } from './log.js';

const bench = fileURLToPath(new URL('..', import.meta.url));
const root = fileURLToPath(new URL('../..', import.meta.url));

/** A sentence for the user, not a stack for the developer. */
export class NeedsError extends Error {
  exitCode = 2;
}

/**
 * Run a program of the bench. What it cannot do without is said in a sentence, and ends it with a 2.
 * @param {() => Promise<number>} main returns the exit code
 */
export async function asProgram(main) {
  try {
    process.exitCode = await main();
  } catch (error) {
    if (!(error instanceof NeedsError)) throw error;
    log(error.message);
    process.exitCode = error.exitCode;
  }
}

export function hasBuild() {
  return existsSync(`${root}/dist/index.js`);
}

export function version() {
  return readJson(`${root}/package.json`).version;
}

export function needBuild() {
  if (hasBuild()) return;
  log('dist/ is missing: npm run build');
  npm(
    ['run', 'build'],
    root,
    'offloop could not be built: run `npm ci` and `npm run build` in the repository first',
  );
  if (!hasBuild()) throw new NeedsError('`npm run build` made no dist/index.js');
}

/** What is kept has to be of the code that is here. */
export function needFreshBuild() {
  needBuild();
  const built = statSync(`${root}/dist/index.js`).mtimeMs;
  const files = readdirSync(`${root}/src`, { recursive: true, withFileTypes: true }).filter((file) =>
    file.isFile(),
  );
  const newer = files.find((file) => statSync(join(file.parentPath ?? file.path, file.name)).mtimeMs > built);
  if (newer !== undefined) throw new NeedsError(`${newer.name} is newer than the build: npm run build`);
}

/** The servers others have written, and what draws charts and times pieces. */
export function needPeers() {
  const lock = readJson(`${bench}/package-lock.json`);
  const { dependencies, devDependencies } = lock.packages[''];
  const missing = Object.keys({ ...dependencies, ...devDependencies }).filter((name) => {
    const installed = `${bench}/node_modules/${name}/package.json`;
    return (
      !existsSync(installed) || readJson(installed).version !== lock.packages[`node_modules/${name}`].version
    );
  });
  if (missing.length === 0) return;
  log(`first run: installing ${missing.join(', ')} into bench/ (npm ci --prefix bench)`);
  npm(
    ['ci', '--include=dev', '--prefix', bench],
    root,
    'the peers could not be installed: run `npm ci --prefix bench`',
  );
}

/** Files that a process has open besides its connections. */
const OTHER_FILES = 200;

/** Node raises its own limit as far as it may, so the hard one counts. */
export function needOpenFiles(scenario, connections) {
  const limit = process.report.getReport().userLimits?.open_files?.hard;
  const room = Number(limit) - OTHER_FILES;
  if (!(connections > room)) return;
  throw new NeedsError(
    `${scenario} has ${connections} connections in a process, and this one may have ${limit} files open at most: raise ` +
      `the hard limit (\`ulimit -Hn ${connections + OTHER_FILES}\` as root), or \`--connections ${room}\``,
  );
}

function npm(args, cwd, sorry) {
  // npm's own output goes to standard error: standard output is for the result.
  const { status } = spawnSync('npm', args, {
    cwd,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new NeedsError(sorry);
}

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}
