/** Starts servers for tests on a free port of 127.0.0.1, and listens to everything they log. */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type InlineHandler, runServer, type Server, type ServerOptions } from 'offloop';
import { onTestFinished } from 'vitest';
import { overTls } from './over-tls.js';

export interface Logged {
  readonly message: string;
  readonly error: unknown;
}

/** A server, and all it has told its loggers. */
export interface TestServer {
  readonly server: Server;
  readonly port: number;
  readonly url: string;
  readonly errors: Logged[];
  readonly warnings: Logged[];
  readonly events: string[];
  stop(): Promise<void>;
}

/** Start a server. The caller stops it, in `afterAll`; inside one test use {@link serve}. */
export async function startServer(
  handler: string | URL | InlineHandler,
  options: ServerOptions = {},
): Promise<TestServer> {
  const errors: Logged[] = [];
  const warnings: Logged[] = [];
  const events: string[] = [];
  const where = options.unix === undefined ? { ip: '127.0.0.1', port: 0 } : {};
  const server = await runServer(handler, {
    ...where,
    ...(overTls.tls !== undefined && { tls: overTls.tls }),
    errorLogger: (message, error) => errors.push({ message, error }),
    warnLogger: (message, error) => warnings.push({ message, error }),
    eventLogger: (name) => events.push(name),
    ...options,
  });
  const stop = async (): Promise<void> => {
    await server.stop({ timeout: 0 });
    await server.join();
  };
  return { server, port: server.port, url: server.url, errors, warnings, events, stop };
}

/** Start a server that is stopped when the running test ends. */
export async function serve(
  handler: string | URL | InlineHandler,
  options: ServerOptions = {},
): Promise<TestServer> {
  const started = await startServer(handler, options);
  onTestFinished(started.stop);
  return started;
}

/** Path of a handler module in test/fixtures. */
export function fixture(name: string): string {
  return fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
}

/** Ms after which nobody waits any more: time enough on a busy machine, and less than the 10 s after which the engine lets go by itself. */
export const PATIENCE = 9000;

/** Wait until `condition` holds. Fails with `what` when it does not within `ms`. */
export async function until(condition: () => unknown, what: string, ms = PATIENCE): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms in vain until ${what}`);
    await sleep(5);
  }
}

/** `promise`, or a failure that says `what` was awaited when it does not settle within `ms`. */
export async function within<T>(promise: Promise<T>, what: string, ms = PATIENCE): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms in vain for ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
