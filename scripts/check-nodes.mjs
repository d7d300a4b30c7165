// Runs the tests with other versions of Node, and with the newest build of the engine where that loads.
//
//   npm run check:nodes                      Node 22 and 24, all tests
//   npm run check:nodes -- 24 test/x.test.ts one of them, one file
//
// Nodes come from npm. The engine's newer build needs glibc 2.38: where the system's is older (Debian 12), a newer one is taken from
// Debian's archive, unpacked beside the Nodes, and only they use it. Nothing is installed on the system.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const cache = join(root, 'node_modules/.cache/nodes');
const NEEDED = [2, 38];
const RELEASE = 'trixie';

const args = process.argv.slice(2);
const wanted = args.filter((arg) => /^\d+(\.\d+)*$/.test(arg));
const forTests = args.filter((arg) => !wanted.includes(arg));
const versions = wanted.length > 0 ? wanted : ['22', '24'];

/** Run a command, and say what it said if it fails. */
function run(command, commandArgs, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, commandArgs, { encoding: 'utf8', ...options });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ended with ${status}:\n${stdout ?? ''}${stderr ?? ''}`);
  return stdout;
}

/** The executable of a version of Node, as npm has it. */
function nodeOf(version) {
  const prefix = join(cache, version);
  const name = `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`;
  const windows = process.platform === 'win32';
  const path = join(prefix, 'node_modules', name, 'bin', windows ? 'node.exe' : 'node');
  if (!existsSync(path)) {
    mkdirSync(prefix, { recursive: true });
    writeFileSync(join(prefix, 'package.json'), '{ "private": true }');
    console.log(`== installing Node ${version}`);
    run('npm', ['install', '--no-audit', '--no-fund', `${name}@${version}`], { cwd: prefix, shell: windows });
  }
  return path;
}

function glibcIsOld() {
  if (process.platform !== 'linux') return false;
  const runtime = process.report.getReport().header.glibcVersionRuntime;
  if (runtime === undefined) return false;
  const [major, minor] = runtime.split('.').map(Number);
  return major < NEEDED[0] || (major === NEEDED[0] && minor < NEEDED[1]);
}

/** A folder with a newer glibc, out of Debian's archive. The system's own package lists are not touched. */
function newerLibc() {
  const apt = join(cache, 'glibc');
  const files = join(apt, 'root');
  const triplet = run('gcc', ['-dumpmachine']).trim();
  const libs = join(files, 'usr/lib', triplet);
  if (existsSync(join(libs, 'libc.so.6'))) return libs;
  console.log(`== unpacking the C library of Debian ${RELEASE}`);
  rmSync(apt, { recursive: true, force: true });
  for (const folder of ['lists/partial', 'cache/archives/partial', 'root'])
    mkdirSync(join(apt, folder), { recursive: true });
  const list = join(apt, 'sources.list');
  writeFileSync(
    list,
    `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror()} ${RELEASE} main\n`,
  );
  const options = [
    `Dir::Etc::sourcelist=${list}`,
    'Dir::Etc::sourceparts=/dev/null',
    `Dir::State::lists=${join(apt, 'lists')}`,
    `Dir::Cache=${join(apt, 'cache')}`,
    'Dir::Cache::pkgcache=',
    'Dir::Cache::srcpkgcache=',
  ].flatMap((option) => ['-o', option]);
  // Without that root would download as a user who may not write here.
  if (process.getuid() === 0) options.push('-o', 'APT::Sandbox::User=root');
  run('apt-get', [...options, 'update', '-q']);
  run('apt-get', [...options, 'download', '-q', 'libc6', 'libstdc++6', 'libgcc-s1', 'libatomic1'], {
    cwd: apt,
  });
  for (const name of readdirSync(apt).filter((file) => file.endsWith('.deb')))
    run('dpkg-deb', ['-x', join(apt, name), files]);
  return libs;
}

/** Where this system gets its own packages from. */
function mirror() {
  const folder = '/etc/apt/sources.list.d';
  const sources = [
    '/etc/apt/sources.list',
    ...(existsSync(folder) ? readdirSync(folder).map((f) => join(folder, f)) : []),
  ];
  for (const source of sources) {
    if (!existsSync(source)) continue;
    const found = /^\s*(?:deb (?:\[[^\]]*\] )?|URIs:\s*)(\S*\/debian\/?)(?=\s)/m.exec(
      readFileSync(source, 'utf8'),
    );
    if (found) return found[1];
  }
  throw new Error('no Debian mirror in /etc/apt');
}

/** A copy of a Node that uses that C library. */
function patched(node, version, libs) {
  const bin = join(cache, `${version}-glibc`);
  const copy = join(bin, 'node');
  if (existsSync(copy)) return copy;
  mkdirSync(bin, { recursive: true });
  const making = join(bin, 'node.making');
  cpSync(node, making);
  const loader = readdirSync(libs).find((name) => /^ld-linux.*\.so\.\d$/.test(name));
  run('patchelf', ['--set-interpreter', join(libs, loader), '--set-rpath', libs, '--force-rpath', making]);
  cpSync(making, copy);
  rmSync(making);
  return copy;
}

let libs;
if (glibcIsOld()) {
  try {
    libs = newerLibc();
  } catch (error) {
    console.log(
      `== no newer C library (${String(error.message).split('\n', 1)[0]}); it takes apt-get, dpkg-deb, gcc and patchelf`,
    );
  }
}

let failed = false;
for (const version of versions) {
  const plain = nodeOf(version);
  const node = libs === undefined ? plain : patched(plain, version, libs);
  const env = { ...process.env, PATH: `${join(node, '..')}${delimiter}${process.env.PATH}` };
  console.log(`\n== Node ${run(node, ['-p', 'process.version']).trim()}`);
  // Which engine it loads, among other things.
  if (existsSync(join(root, 'dist/cli/main.js')))
    console.log(run(node, ['dist/cli/main.js', 'doctor'], { cwd: root }));
  const { status } = spawnSync(node, ['node_modules/vitest/vitest.mjs', 'run', ...forTests], {
    cwd: root,
    env,
    stdio: 'inherit',
  });
  if (status !== 0) {
    failed = true;
    console.log(`== the tests fail with Node ${version}`);
  }
}
process.exit(failed ? 1 : 0);
