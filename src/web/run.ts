/** Immutant's way to run a server: handlers are run at a place, and the server for it comes and goes with them. */
import { integer } from '../check.js';
import { checkHandler, type InlineHandler } from '../server.js';
import {
  type Context,
  type Contexts,
  type RunInput,
  type RunResult,
  type Sorted,
  sortOptions,
} from './options.js';
import { type Bound, freePort, serverAt, type WebServer, WebServerHandle } from './web-server.js';

type Later<T> = T | PromiseLike<T>;

/** Options of {@link stop}. */
export type StopInput = RunInput & { readonly timeout?: number | string };

/**
 * Run a handler at a path of a server, which is made and started if there is none at that address. What is there already
 * is replaced: requests in flight finish on the old handler.
 *
 * Resolves with the options, their defaults filled in. Given to `run` again, changed or not, they add to what they stand
 * for: `run(b, { ...(await run(a)), path: '/b' })` returns what `stop` undoes at once.
 *
 * @throws OFFLOOP_BAD_OPTION, also for options of the server other than those of the one that is there; else as `runServer`.
 */
export async function run(
  handler: string | URL | InlineHandler,
  options?: Later<RunInput>,
): Promise<RunResult> {
  return runSorted('run', handler, sortOptions('run', await options));
}

/** `extra`: what else is to be known of what is mounted. */
export async function runSorted(
  where: string,
  handler: string | URL | InlineHandler,
  { result, server: serverOptions, mount, hosts }: Sorted,
  extra: Pick<Bound, 'released'> = {},
): Promise<RunResult> {
  const { host, path, dispatch, autoStart } = result;
  checkHandler(handler, dispatch, where);
  const to: Bound = { handler, options: mount, where, ...extra };
  const places = contextsOf(path, hosts);
  // A server that is not started has a port all the same, to be found by.
  const port = result.port === 0 && !autoStart ? await freePort(host) : result.port;
  let server: WebServerHandle;
  do server = serverAt(where, host, port, serverOptions) as WebServerHandle;
  while (!(await server.bind(places, to, autoStart)));
  return { ...result, port: server.port, contexts: adding(result.contexts, server, places) };
}

/**
 * Undo what `run` has done with these options: unmount the handler at this path of this server, or, given what `run` has
 * returned, all that stands in its `contexts`. A server without handlers stops; `timeout` is that of `server.stop`.
 * Resolves with whether anything was undone.
 */
export async function stop(options?: Later<StopInput>): Promise<boolean> {
  const timeoutRule = { timeout: integer(0, 2 ** 31 - 1, 'whole milliseconds from 0 to 2^31 - 1') };
  const { result, hosts } = sortOptions('stop', await options, timeoutRule);
  const { host, port, path, contexts } = result;
  const { timeout } = result as { timeout?: number };
  const limit = timeout === undefined ? {} : { timeout };
  const here = serverAt('stop', host, port, {}, false);
  const wanted: [WebServerHandle, readonly Context[]][] =
    contexts.size > 0 ? handlesIn(contexts) : here === undefined ? [] : [[here, contextsOf(path, hosts)]];
  const undone = await Promise.all(wanted.map(([server, places]) => server.unbind(places, limit)));
  return undone.includes(true);
}

/**
 * The server at an address, made but not started if there is none; of what `run` has returned, the server or the servers of
 * its `contexts`. @throws OFFLOOP_BAD_OPTION.
 */
export function server(result: RunResult): WebServer | WebServer[];
export function server(options?: Omit<RunInput, 'contexts'>): WebServer;
export function server(options?: RunInput): WebServer | WebServer[] {
  const { result, server: given } = sortOptions('server', options);
  const all = handlesIn(result.contexts).map(([handle]) => handle);
  if (all.length > 1) return all;
  const found = all[0] ?? (serverAt('server', result.host, result.port, given) as WebServerHandle);
  found.kept = true;
  return found;
}

function contextsOf(path: string, hosts: readonly string[]): Context[] {
  return hosts.length === 0
    ? [{ path, virtualHost: null }]
    : hosts.map((virtualHost) => ({ path, virtualHost }));
}

function adding(contexts: Contexts, server: WebServer, places: readonly Context[]): Contexts {
  const known = contexts.get(server) ?? [];
  const fresh = places.filter(
    ({ path, virtualHost }) => !known.some((old) => old.path === path && old.virtualHost === virtualHost),
  );
  return new Map([...contexts, [server, [...known, ...fresh]]]);
}

function handlesIn(contexts: Contexts): [WebServerHandle, readonly Context[]][] {
  return [...contexts].flatMap(([server, places]) =>
    server instanceof WebServerHandle ? [[server, places]] : [],
  );
}
