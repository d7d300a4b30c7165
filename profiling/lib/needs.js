// What a run needs besides Node: the tools, and offloop's build. Both are made when they are missing.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { NeedsError, needBuild } from '../../bench/lib/needs.js';

export { NeedsError, needBuild };

const profiling = fileURLToPath(new URL('..', import.meta.url));
const read = (path) => JSON.parse(readFileSync(path, 'utf8'));

export function needTools() {
  const { packages } = read(`${profiling}/package-lock.json`);
  const missing = Object.keys(packages[''].dependencies).filter((name) => {
    const installed = `${profiling}/node_modules/${name}/package.json`;
    return !existsSync(installed) || read(installed).version !== packages[`node_modules/${name}`].version;
  });
  if (missing.length === 0) return;
  console.error(
    `first run: installing ${missing.join(', ')} into profiling/, 155 MB (npm ci --prefix profiling)`,
  );
  const { status } = spawnSync('npm', ['ci', '--prefix', profiling], {
    cwd: profiling,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new NeedsError('the tools could not be installed: run `npm ci --prefix profiling`');
}
