/** What the command line says when something is wrong, and with which exit code it ends. */
import { OffloopError } from '../errors.js';

/** Exit codes. A second signal ends with 128 and its number, as shells count. */
export const EXIT = {
  /** Stopped in an orderly way. */
  ok: 0,
  /** The server cannot run: the handler module throws, no engine loads, no process stays alive. */
  failed: 1,
  /** Used in a wrong way: a flag, a value, a module that is not there, a port that cannot be had. */
  usage: 2,
} as const;

/** A wrong use of the command line. Its message is a sentence that says what to do. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export interface Explained {
  readonly code: number;
  readonly text: string;
}

const LISTEN_ADVICE: Record<string, string> = {
  EADDRINUSE:
    'Something listens there already: stop it, or choose another port with --port (0 takes any free one).',
  EACCES:
    'This user may not: choose a port from 1024 up with --port, or start it with the right to bind lower ones (CAP_NET_BIND_SERVICE).',
  EADDRNOTAVAIL: 'This machine has no such address: check --host.',
  OFFLOOP_LISTEN_FAILED: 'The engine gave no reason: check --host, --port and --unix.',
};

const UNIX_ADVICE =
  'The path of --unix has to be free, or the socket of a server that is gone, in a folder that exists and that this user may write to.';

/** Errors of the options themselves, in the words of the command line. */
const OPTION = /^(?:runServer|createWorkerPool): option (\w+) is/;

/** `flagOf`: the flag of an option. */
export function explain(error: unknown, flagOf: (option: string) => string): Explained {
  if (error instanceof UsageError) return { code: EXIT.usage, text: error.message };
  // What a worker has thrown is another class on this side, and has the code.
  const { code = '', message = '' } = error as { code?: string; message?: string };
  const ours = error instanceof OffloopError;
  const advice = ours ? LISTEN_ADVICE[code] : undefined;
  if (advice !== undefined) {
    const place = /cannot listen on (.*?): /.exec(message)?.[1] ?? 'the address';
    const text = place.startsWith('/') ? UNIX_ADVICE : advice;
    return { code: EXIT.usage, text: `cannot listen on ${place} (${code}). ${text}` };
  }
  switch (code) {
    case 'OFFLOOP_BAD_OPTION':
      return {
        code: EXIT.usage,
        text: message
          .replace(OPTION, (_, name: string) => `${flagOf(name)} is`)
          .replace(/\bnM(?:in|ax)\b/g, (name) => flagOf(name)),
      };
    case 'OFFLOOP_BAD_TLS':
    case 'OFFLOOP_MODULE_NOT_FOUND':
    case 'OFFLOOP_NO_HANDLER':
      return { code: EXIT.usage, text: message };
    case 'OFFLOOP_NO_ENGINE':
      return { code: EXIT.failed, text: message };
    default:
  }
  return { code: EXIT.failed, text: `the server could not be started: ${textOf(error)}` };
}

/** An error with its stack and its causes, on the way to standard error. */
export function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const text = error.stack ?? String(error);
  return error.cause === undefined ? text : `${text}\n  caused by: ${textOf(error.cause)}`;
}
