// Makes sure the dependencies are installed as package-lock.json says. Uses nothing but Node, since it runs first.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';

const root = new URL('../', import.meta.url);
const readJson = (path) => JSON.parse(readFileSync(new URL(path, root), 'utf8'));

/** Why an install is due, or null if node_modules holds what the lock file lists. */
function whyInstall(lock) {
  if (!existsSync(new URL('node_modules/.package-lock.json', root))) return 'not installed yet';
  const installed = readJson('node_modules/.package-lock.json').packages;
  for (const [path, wanted] of Object.entries(lock.packages)) {
    if (path === '') continue;
    const found = installed[path];
    // An optional package may be absent: it is for another platform.
    if (!found && wanted.optional) continue;
    if (found?.version !== wanted.version || found.integrity !== wanted.integrity) return 'out of date';
    if (!existsSync(new URL(`${path}/package.json`, root))) return 'incomplete';
  }
  return null;
}

function fail(sentence) {
  console.error(`setup: ${sentence}`);
  process.exit(1);
}

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  fail(`offloop needs Node 20.19 or later, and this is Node ${process.versions.node}.`);
}

const manifest = readJson('package.json');
const lock = readJson('package-lock.json');
for (const kind of ['dependencies', 'devDependencies', 'optionalDependencies', 'peerDependencies']) {
  if (!isDeepStrictEqual(manifest[kind], lock.packages[''][kind])) {
    fail(`package.json and package-lock.json disagree about ${kind}. Run "npm install" and commit both.`);
  }
}

const reason = whyInstall(lock);
if (reason === null) {
  console.log('setup: dependencies are in place.');
} else {
  console.log(
    `setup: dependencies are ${reason}, installing what package-lock.json lists (about half a minute) ...`,
  );
  // Not "npm ci": it refuses a lock file that lacks a platform's optional binaries, and not every registry mirror
  // carries them all. This installs the same locked versions, changes neither file, and is checked below.
  const args = ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'];
  const npm = spawnSync('npm', [...args, '--include=dev', '--include=optional'], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (npm.error) fail(`npm, which comes with Node, could not be started: ${npm.error.message}.`);
  if (npm.status !== 0)
    fail(`npm could not install the dependencies (exit code ${npm.status}); it says why above.`);
  const still = whyInstall(lock);
  if (still) fail(`dependencies are ${still} even after installing. Remove node_modules and try again.`);
}
