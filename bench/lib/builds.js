// Two builds of offloop beside each other, in a temporary folder: the code as it is here now, and that of a revision. Both are served
// and measured by the bench that is here, so they differ in nothing else.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { log } from './log.js';
import { NeedsError } from './needs.js';
import { output } from './program.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** What a build is made of. */
const SOURCES = ['src', 'scripts', 'package.json', 'package-lock.json', 'tsconfig.json', 'tsup.config.ts'];

/**
 * The commit a name stands for.
 * @param {string} name
 */
export function commitOf(name) {
  const { status, stdout } = spawnSync('git', ['rev-parse', '--verify', '--quiet', `${name}^{commit}`], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new NeedsError(`git knows no revision ${name}`);
  return stdout.trim();
}

/**
 * Builds both. Whatever happens, the folder is gone when the process is.
 * @param {string} commit
 * @returns {Promise<{ folder: string, here: URL, there: URL }>} the folders of their benches
 */
export async function twoBuilds(commit) {
  const folder = mkdtempSync(join(tmpdir(), 'offloop-compare-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  for (const [signal, number] of Object.entries({ SIGHUP: 1, SIGINT: 2, SIGTERM: 15 }))
    process.once(signal, () => process.exit(128 + number));

  const here = join(folder, 'here');
  const there = join(folder, 'there');
  for (const name of SOURCES) cpSync(join(root, name), join(here, name), { recursive: true });
  mkdirSync(there);
  const archive = join(folder, 'there.tar');
  await output('git', ['-C', root, 'archive', '--output', archive, commit, ...SOURCES]);
  await output('tar', ['-xf', archive, '-C', there]);
  return { folder, here: await built(here, 'what is here'), there: await built(there, commit.slice(0, 10)) };
}

async function built(folder, name) {
  const modules = join(folder, 'node_modules');
  if (sameDependencies(folder)) symlinkSync(join(root, 'node_modules'), modules, 'junction');
  else {
    log(`installing the dependencies of ${name}`);
    // As scripts/setup.mjs does, and for its reasons.
    await run(name, folder, 'npm', 'install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error');
  }
  log(`building ${name}`);
  const tsup = join(modules, 'tsup/dist/cli-default.js');
  await run(name, folder, process.execPath, tsup, '--silent', '--no-dts');

  const bench = join(folder, 'bench');
  const ours = join(root, 'bench');
  const leftOut = ['node_modules', 'results'].map((part) => join(ours, part));
  cpSync(ours, bench, { recursive: true, filter: (path) => !leftOut.includes(path) });
  if (existsSync(join(ours, 'node_modules')))
    symlinkSync(join(ours, 'node_modules'), join(bench, 'node_modules'), 'junction');
  return pathToFileURL(`${bench}/`);
}

/** Whether that revision has the dependencies that are installed here. */
function sameDependencies(folder) {
  const [its, ours] = [folder, root].map((place) => {
    const { '': _, ...packages } = JSON.parse(
      readFileSync(join(place, 'package-lock.json'), 'utf8'),
    ).packages;
    return JSON.stringify(packages);
  });
  return its === ours;
}

async function run(name, folder, command, ...args) {
  try {
    await output(command, args, {}, { cwd: folder });
  } catch (error) {
    throw new NeedsError(`${name} could not be built: ${error.message}`);
  }
}
