/** A server for a test: on a free port of 127.0.0.1, silent, and easy to stop. */
import { type InlineHandler, runServer, type Server, type ServerOptions } from '../index.js';

/** What a server has told one of its loggers. */
export interface Logged {
  readonly message: string;
  readonly error: unknown;
}

/** A running server, and what it has logged. Stop it, or let `await using` do so. */
export interface TestServer extends AsyncDisposable {
  readonly server: Server;
  readonly port: number;
  /** Without a slash at the end. */
  readonly url: string;
  /** What the error logger was told, oldest first; unless `errorLogger` was given. */
  readonly errors: readonly Logged[];
  /** The same of the warn logger. */
  readonly warnings: readonly Logged[];
  /** The platform's `fetch`, with the path resolved against the server. */
  fetch(path?: string, init?: RequestInit): Promise<Response>;
  /** Stop it. What still runs after a second is cut. Safe to call again. */
  stop(): Promise<void>;
}

/** Ms that requests under way may take when a test is over. */
const STOP = 1000;

/**
 * Start a server with these options, as {@link runServer} does, but on a free port of 127.0.0.1, with one thread kept instead of
 * several, and with loggers that remember. A function, or an object with `fetch`, runs inline.
 *
 * @throws what runServer throws.
 */
export async function createTestServer(
  handler: string | URL | InlineHandler,
  options: ServerOptions = {},
): Promise<TestServer> {
  const errors: Logged[] = [];
  const warnings: Logged[] = [];
  const { unix, workerPool, nMin, nMax } = options;
  const server = await runServer(handler, {
    ...(unix === undefined && { ip: '127.0.0.1', port: 0 }),
    ...(workerPool === undefined && nMin === undefined && nMax === undefined && { nMin: 1 }),
    dispatch: typeof handler === 'string' || handler instanceof URL,
    errorLogger: (message, error) => errors.push({ message, error }),
    warnLogger: (message, error) => warnings.push({ message, error }),
    ...options,
  });
  const { port, url } = server;
  const stop = async (): Promise<void> => {
    await server.stop({ timeout: STOP });
    await server.join();
  };
  return {
    server,
    port,
    url,
    errors,
    warnings,
    fetch: (path = '/', init) => fetch(new URL(path, url), init),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
