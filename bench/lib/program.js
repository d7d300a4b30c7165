import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/**
 * Runs one of the programs in lib/ in a fresh process and returns the JSON line it prints.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {Record<string, string>} env
 * @param {string} [input]
 */
export async function runProgram(file, args = [], env = {}, input) {
  const program = fileURLToPath(new URL(file, import.meta.url));
  return JSON.parse(await output(process.execPath, [program, ...args], env, { input }));
}

/** @param {import('./load.js').Load} load */
export function runLoad(load) {
  // The bodies in it may be longer than an argument.
  return runProgram('./load.js', [], {}, JSON.stringify(load));
}

/**
 * Standard output of a program that ends by itself. It does not outlive this process.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {Record<string, string>} env
 * @param {{ input?: string, interruptAfter?: number, cwd?: string }} how `interruptAfter`: seconds until it is sent SIGINT
 * @returns {Promise<string>}
 */
export function output(command, args, env = {}, { input = '', interruptAfter, cwd } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
      cwd,
    });
    // One that does not want it may be gone already; how it ends says whether that is well.
    child.stdin.on('error', () => {}).end(input);
    const end = () => child.kill('SIGKILL');
    process.once('exit', end);
    const interrupt = () => child.kill('SIGINT');
    const timer = interruptAfter === undefined ? undefined : setTimeout(interrupt, interruptAfter * 1000);
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      process.off('exit', end);
      clearTimeout(timer);
      if (code === 0) resolve(text);
      else reject(new Error(`${command} ${args.join(' ')} ended with ${signal ?? code}`));
    });
  });
}
