// The bare uWebSockets.js. The order is the one offloop itself looks in, so that both run on the same build.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

// From the root, as offloop does: a peer may have brought a build of its own.
const require = createRequire(new URL('../../package.json', import.meta.url));
const binary = `uws_${process.platform}_${process.arch}_${process.versions.modules}.node`;

const candidates = [
  { name: 'uWebSockets.js', entry: 'uWebSockets.js' },
  { name: '@btc-vision/uwebsockets.js', entry: '@btc-vision/uwebsockets.js' },
  // Its own entry falls back to a JavaScript imitation without a word; the binary is the engine or an error.
  { name: '@trufflesuite/uws-js-unofficial', entry: `@trufflesuite/uws-js-unofficial/binaries/${binary}` },
];

/** @returns {{ uws: any, build: string }} the engine and the name and version of its build */
export function loadEngine() {
  const reasons = [];
  for (const { name, entry } of candidates) {
    try {
      return { uws: require(entry), build: `${name} ${version(name)}` };
    } catch (error) {
      reasons.push(`  ${name}: ${String(error.message).split('\n')[0]}`);
    }
  }
  throw new Error(
    `no build of uWebSockets.js loads here (run npm install in the repository):\n${reasons.join('\n')}`,
  );
}

function version(name) {
  try {
    return require(`${name}/package.json`).version;
  } catch {
    return '(unknown version)';
  }
}

// Run as a program: name the build. The driver asks this way because loading an engine changes a process.
if (process.argv[1] === fileURLToPath(import.meta.url))
  console.log(JSON.stringify({ build: loadEngine().build }));
