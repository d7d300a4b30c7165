/** Programs that start servers, run as a user runs them: in a process of their own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

export interface Program {
  /** Every URL it has printed. */
  readonly urls: readonly string[];
  /** Ask it to stop, as Ctrl+C or a process manager would. Resolves with its exit code. */
  readonly stop: () => Promise<number | null>;
  readonly signal: (name: NodeJS.Signals) => void;
  /** All it has printed, on standard output and standard error. */
  readonly output: () => string;
  /** End it if it still runs. Safe to call again. */
  readonly kill: () => Promise<void>;
}

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Start `path`, relative to the repository. Resolves when it has printed `urls` URLs; rejects with its output if it ends before. */
export async function startProgram(path: string, env: Record<string, string>, urls = 1): Promise<Program> {
  const child = spawn(process.execPath, [path], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = once(child, 'close');
  let output = '';
  const found = (): string[] => output.match(/http:\/\/\S+(?=\n)/g) ?? [];
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    output += chunk;
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
      if (found().length >= urls) resolve();
    });
    exited.then(([code]) => reject(new Error(`${path} ended with exit code ${code}:\n${output}`)), reject);
  });
  return {
    urls: found(),
    stop: async () => {
      child.kill('SIGTERM');
      const [code] = await exited;
      // What went wrong on the way is worth more than the number.
      return code === 0 && output.includes('Error') ? Promise.reject(new Error(output)) : code;
    },
    signal: (name) => void child.kill(name),
    output: () => output,
    kill: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Run `path` to its end. */
export async function runProgram(
  path: string,
  env: Record<string, string>,
): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [path], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
  }
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, output };
}
