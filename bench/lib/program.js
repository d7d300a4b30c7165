import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/**
 * Runs one of the programs in lib/ in a fresh process and returns the JSON line it prints.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {Record<string, string>} env
 */
export async function runProgram(file, args = [], env = {}) {
  const program = fileURLToPath(new URL(file, import.meta.url));
  return JSON.parse(await output(process.execPath, [program, ...args], env));
}

/** @param {import('./load.js').Load} load */
export function runLoad(load) {
  return runProgram('./load.js', [JSON.stringify(load)]);
}

/**
 * Standard output of a program that ends by itself.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {Record<string, string>} env
 * @returns {Promise<string>}
 */
export function output(command, args, env = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(text);
      else reject(new Error(`${command} ${args.join(' ')} ended with ${signal ?? code}`));
    });
  });
}
