// Each tool for a second, and Clinic.js as a user calls it: npm run profile:smoke. Ends with 1 if one of them shows nothing.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkDrawing } from './lib/drawn.js';
import { needBuild, needTools } from './lib/needs.js';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const out = mkdtempSync(join(tmpdir(), 'offloop-smoke-'));
process.once('exit', () => rmSync(out, { recursive: true, force: true }));

const tool = (name, scenario) => async () =>
  await output(process.execPath, [file('run.js'), name, scenario, '--duration', '1', '--out', out]);

/** A program of a user, who lets Clinic.js find the port, ask, and end it. */
async function onPort() {
  const ask = "for (let i = 0; i < 200; i++) await fetch('http://127.0.0.1:' + process.env.PORT)";
  const onPort = `"${process.execPath}" --input-type=module -e "${ask}"`;
  const clinic = [createRequire(import.meta.url).resolve('clinic/bin.js'), 'doctor', '--open=false'];
  const args = [...clinic, '--dest', '.', '--name', 'user', '--on-port', onPort, '--', process.execPath];
  await output(process.execPath, [...args, file('../examples/hello/server.js')], {
    cwd: out,
    env: { ...process.env, NO_INSIGHT: '1', PORT: '0' },
  });
  return checkDrawing('doctor', join(out, 'user.clinic-doctor.html'));
}

const RUNS = {
  flame: tool('flame', 'hello'),
  bubbleprof: tool('bubbleprof', 'hello'),
  doctor: tool('doctor', 'echo'),
  'clinic doctor --on-port': onPort,
  workers: tool('workers', 'hello'),
  heap: tool('heap', 'json'),
};
/** Each of them keeps about one core busy. */
const AT_ONCE = 2;

needTools();
needBuild();
const waiting = Object.entries(RUNS);
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [name, run] = next;
      const start = performance.now();
      try {
        const said = String(await run())
          .trim()
          .split('\n')
          .at(-1);
        console.log(`${name}: ${said} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
      } catch (error) {
        process.exitCode = 1;
        console.error(`${name} failed: ${error.stack}`);
      }
    }
  }),
);

/** What a program prints that ends well. */
async function output(command, args, options = {}) {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    text += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    errors += chunk;
  });
  const timer = setTimeout(() => child.kill('SIGTERM'), 240_000);
  const [code, signal] = await once(child, 'close');
  clearTimeout(timer);
  if (code !== 0) throw new Error(`it ended with ${signal ?? code}\n${text}${errors}`);
  return text;
}
