/** `run` for development: code is reloaded when it is saved, errors are shown, and the browser opens. */
import { relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Rule } from '../check.js';
import { asHandler, loadModule } from '../handlers/module.js';
import { NativeHandler } from '../native.js';
import { devHandlerOf } from '../paths.js';
import { checkHandler, type InlineHandler } from '../server.js';
import { hasBrowser, loadOpener } from './browser.js';
import { type RunInput, type RunResult, type Sorted, sortOptions } from './options.js';
import { Reloader } from './reloader.js';
import { runSorted } from './run.js';
import { serverAt, type WebServer } from './web-server.js';

/** What {@link runDev} takes beside the options of `run`. */
export interface DevOptions {
  /** Open the page in a browser. Default: where there is one, and the package `open`. */
  readonly open?: boolean | string;
  /** Files and folders that are watched beside the handler module and what it imports: templates, data. */
  readonly watch?: string | readonly string[];
  /** Called when new code is in service, with null, or does not load, with its error. Default: says so on the console. */
  readonly onReload?: (error: unknown, file: string) => void;
}

export type DevInput = RunInput & DevOptions;

const isPath = (v: unknown): boolean => typeof v === 'string' && v !== '';
const RULES: Record<keyof DevOptions, Rule> = {
  open: { allowed: 'true or false', ok: (v) => typeof v === 'boolean' },
  watch: {
    allowed: 'a path, or an array of paths',
    ok: (v) => isPath(v) || (Array.isArray(v) && v.every(isPath)),
  },
  onReload: { allowed: 'a function', ok: (v) => typeof v === 'function' },
};

/**
 * Run a handler for development, as `run` does otherwise. Its module, and what that imports, is watched: when it changes fresh workers
 * load it, and where it does not load the old code goes on and the error is shown. What handlers throw is shown as a page, with source and
 * stack. `development` is on unless it is given. Watching ends when the handler is stopped or replaced, and keeps no process alive.
 *
 * @throws as `run`; OFFLOOP_MISSING_PACKAGE for `open: true` without the package `open`.
 */
export async function runDev(
  handler: string | URL | InlineHandler,
  options?: DevInput | PromiseLike<DevInput>,
): Promise<RunResult> {
  const sorted = sortOptions('runDev', await options, RULES);
  const { result } = sorted;
  const { open, watch = [], onReload = say } = result as DevOptions;
  for (const name of Object.keys(RULES)) delete (result as Partial<DevOptions>)[name as keyof DevOptions];
  const url = checkHandler(handler, result.dispatch, 'runDev');
  if (serverAt('runDev', result.host, result.port, {}, false) === undefined) {
    result.development ??= true;
    sorted.server.development ??= true;
  }
  const opens = open === undefined ? hasBrowser() : open === true;
  const openPage = opens ? await loadOpener(open === true) : null;
  const places = (typeof watch === 'string' ? [watch] : watch).map((path) => resolve(path));
  const reloads = url !== undefined && result.dispatch;
  const reloader = reloads
    ? new Reloader([fileURLToPath(url)], places, (error, file) => onReload(error, file))
    : undefined;
  let done: RunResult;
  try {
    done = await runSorted('runDev', await shown(handler, url, sorted), sorted, {
      released: () => reloader?.close(),
    });
  } catch (error) {
    reloader?.close();
    throw error;
  }
  const server = serverAt('runDev', done.host, done.port, {}, false);
  reloader?.attach(server);
  if (done.autoStart) await openPage?.(pageOf(done, server));
  return done;
}

/** The handler with the error page around it. */
async function shown(
  handler: string | URL | InlineHandler,
  url: string | undefined,
  { result }: Sorted,
): Promise<string | URL | InlineHandler> {
  if (handler instanceof NativeHandler) return handler;
  if (url !== undefined && result.dispatch) {
    return devHandlerOf(url);
  }
  const inline = url === undefined ? asHandler(handler, 'runDev') : (await loadModule(url)).handler;
  const { withErrorPage } = await import('./dev-page.js');
  return withErrorPage(inline);
}

/** Where a browser on this machine finds it. */
function pageOf({ host, port, path }: RunResult, server: WebServer | undefined): string {
  const [scheme] = (server?.instance?.url ?? 'http:').split(':', 1);
  const name = host === '0.0.0.0' || host === '::' ? 'localhost' : host.includes(':') ? `[${host}]` : host;
  return `${scheme}://${name}:${port}${path}`;
}

function say(error: unknown, file: string): void {
  const name = relative(process.cwd(), file);
  if (error === null) console.log(`[offloop] reloaded: ${name} has changed`);
  else console.error(`[offloop] ${name} has changed and does not load, the old code goes on:`, error);
}
