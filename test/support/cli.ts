/** The command line, run as a user runs it: in a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { until } from './server.js';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Cli {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly out: () => string;
  readonly err: () => string;
  /** Resolves with its exit code, or with the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** Where it listens, when it does. Rejects with its output when it ends before. */
  url(): Promise<string>;
  /** Wait until it has said something like this. */
  says(pattern: RegExp): Promise<RegExpExecArray>;
}

export interface CliOptions {
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  readonly uid?: number;
  /** Another copy of it. */
  readonly main?: string;
}

/** Start it. What still runs when the running test ends is killed. */
export function cli(args: readonly string[], { env = {}, cwd, uid, main = MAIN }: CliOptions = {}): Cli {
  const clean = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('OFFLOOP_')),
  );
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...clean, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: what it leaves behind is found by it.
    detached: true,
    ...(cwd !== undefined && { cwd }),
    ...(uid !== undefined && { uid, gid: uid }),
  });
  const pid = child.pid as number;
  let out = '';
  let err = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    out += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    err += chunk;
  });
  let over = false;
  const ended = once(child, 'close').then(([code, signal]) => {
    over = true;
    return (code ?? signal) as number | NodeJS.Signals;
  });
  onTestFinished(async () => {
    killGroup(pid);
    await ended;
  });
  const says = async (pattern: RegExp): Promise<RegExpExecArray> => {
    const found = (): RegExpExecArray | null => pattern.exec(out) ?? pattern.exec(err);
    await until(() => found() !== null || over, `${String(pattern)} is said`, 15_000);
    const match = found();
    if (match === null) throw new Error(`it ended without saying ${String(pattern)}:\n${out}\n${err}`);
    return match;
  };
  return {
    child,
    pid,
    out: () => out,
    err: () => err,
    ended,
    says,
    url: async () => String((await says(/listening on (\S+)\n/))[1]),
  };
}

/** Run it to its end. */
export async function runCli(
  args: readonly string[],
  options?: CliOptions,
): Promise<{ code: number | NodeJS.Signals; out: string; err: string }> {
  const { ended, out, err } = cli(args, options);
  const code = await ended;
  return { code, out: out(), err: err() };
}

/** Whether anything of the group it leads is left. */
export function groupIsAlive(pid: number): boolean {
  try {
    process.kill(-pid, 0);
    return true;
  } catch {
    return false;
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // All of it has ended.
  }
}
