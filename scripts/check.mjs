// Everything a change must pass, in order, stopping at the first failure.
// The last line of output is always the test line: "N passed, N failed[, N skipped]".
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const script = (name) => ['npm', 'run', '--silent', name];
const steps = [
  ['setup', 'node', 'scripts/setup.mjs'],
  ['lint', ...script('lint')],
  ['typecheck', ...script('typecheck')],
  ['build', ...script('build'), '--', '--silent'],
  ['package', ...script('package')],
  ['profile', ...script('profile:smoke')],
  // What fails is tried once more: on shared cores a stall of seconds fails tests that are right. The reporter names those.
  ['test', ...script('test'), '--', '--retry=1'],
];
const testLine = /^\d+ passed, \d+ failed(, \d+ skipped)?$/;

// The steps write into pipes, so that the test line can be held back until everything else has been said.
const env = { ...process.env };
if (process.stdout.isTTY && !('NO_COLOR' in env)) env.FORCE_COLOR = '1';

// A test that loops for ever would otherwise hold the check for ever.
const stepLimit = 20 * 60_000;

// Each step leads a process group of its own, so that stopping it stops what it started too.
const windows = process.platform === 'win32';
let running;
function stopStep() {
  try {
    if (windows) running.kill();
    else process.kill(-running.pid, 'SIGKILL');
  } catch {
    // It is gone already.
  }
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    stopStep();
    process.exit(1);
  });
}

function run(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: !windows,
      shell: windows,
    });
    running = child;
    let held = null;
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (testLine.test(line)) held = line;
      else console.log(line);
    });
    child.stderr.pipe(process.stderr, { end: false });

    const limit = setTimeout(() => {
      console.log(`\n== stopped after ${stepLimit / 60_000} minutes`);
      stopStep();
    }, stepLimit);
    const done = (code) => {
      clearTimeout(limit);
      resolve({ code: code ?? 1, held });
    };
    child.once('error', (error) => {
      console.error(error.message);
      done(1);
    });
    child.once('close', done);
    // A process that the step left behind may keep the pipes open: do not wait for it long.
    child.once('exit', (code) => setTimeout(done, 2000, code).unref());
  });
}

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const begin = performance.now();
const timings = [];
let lastLine = '0 passed, 1 failed'; // what is left to say when no test ran
let exitCode = 0;

for (const [name, command, ...args] of steps) {
  console.log(`\n== ${name}`);
  const start = performance.now();
  const { code, held } = await run(command, args);
  timings.push(`${name} ${seconds(start)}`);
  if (held !== null) lastLine = held;
  if (code !== 0) {
    console.log(`\n== ${name} failed with exit code ${code}`);
    exitCode = code;
    break;
  }
}

console.log(`\n== ${timings.join(', ')}; all ${seconds(begin)}`);
console.log(lastLine);
process.exit(exitCode);
