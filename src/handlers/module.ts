/** Loading handler modules, on whichever thread asks. */
import { OffloopTypeError } from '../errors.js';
import { fetchHandler } from './fetch.js';
import type { FetchHandler, Handler } from './types.js';

export interface LoadedModule {
  readonly handler: Handler;
  readonly onWorkerStart: (() => unknown) | undefined;
  readonly onWorkerStop: (() => unknown) | undefined;
}

/** Import a handler module. Rejects with the module's own error, or OFFLOOP_NO_HANDLER. */
export async function loadModule(url: string): Promise<LoadedModule> {
  const exports = await importModule(url);
  return {
    handler: asHandler(exports['default'], url),
    onWorkerStart: asHook(exports['onWorkerStart']),
    onWorkerStop: asHook(exports['onWorkerStop']),
  };
}

/** Decide the style of a default export: a function is Ring-style, an object with `fetch` is Fetch-style. */
export function asHandler(exported: unknown, where: string): Handler {
  if (typeof exported === 'function') return exported as Handler;
  if (typeof exported === 'object' && exported !== null) {
    if (typeof (exported as Partial<FetchHandler>).fetch === 'function')
      return fetchHandler(exported as FetchHandler);
    // A CommonJS module compiled from ESM keeps its default one level down.
    if ('default' in exported) return asHandler(exported.default, where);
  }
  throw new OffloopTypeError(
    'OFFLOOP_NO_HANDLER',
    `${where}: the default export is ${exported === undefined ? 'missing' : `a ${typeof exported}`}; ` +
      'export a function: export default (req) => ({ body: "hello" }), or an object with fetch(request).',
  );
}

function asHook(exported: unknown): (() => unknown) | undefined {
  return typeof exported === 'function' ? (exported as () => unknown) : undefined;
}

async function importModule(url: string): Promise<Record<string, unknown>> {
  try {
    return (await import(url)) as Record<string, unknown>;
  } catch (error) {
    // Node without type stripping of its own: let tsx, an optional peer, do it.
    if (
      (error as NodeJS.ErrnoException).code !== 'ERR_UNKNOWN_FILE_EXTENSION' ||
      !/\.[cm]?ts$/.test(new URL(url).pathname)
    )
      throw error;
    await registerTypeScript(url, error);
    return (await import(url)) as Record<string, unknown>;
  }
}

let registered: Promise<void> | undefined;

function registerTypeScript(url: string, cause: unknown): Promise<void> {
  registered ??= import('tsx/esm/api').then(
    (tsx) => void tsx.register(),
    () => {
      throw new OffloopTypeError(
        'OFFLOOP_NO_HANDLER',
        `${url} is TypeScript, which Node ${process.versions.node} does not load by itself: npm install tsx, or compile it first.`,
        { cause },
      );
    },
  );
  return registered;
}
