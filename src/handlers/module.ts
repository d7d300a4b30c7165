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
    onWorkerStart: hook(exports, 'onWorkerStart'),
    onWorkerStop: hook(exports, 'onWorkerStop'),
  };
}

/** Decide the style of a default export: a function is Ring-style, an object with `fetch` is Fetch-style. */
export function asHandler(exported: unknown, where: string): Handler {
  if (typeof exported === 'function') return exported as Handler;
  if (typeof exported === 'object' && exported !== null) {
    if (hasFetch(exported)) return fetchHandler(exported);
    // A CommonJS module compiled from ESM keeps its default one level down.
    if ('default' in exported && exported.default !== exported) {
      const inner: unknown = exported.default;
      if (typeof inner === 'function' || hasFetch(inner)) return asHandler(inner, where);
    }
  }
  throw new OffloopTypeError(
    'OFFLOOP_NO_HANDLER',
    `${where}: the default export is ${exported === undefined ? 'missing' : `a ${typeof exported}`}; ` +
      'export a function: export default (req) => ({ body: "hello" }), or an object with fetch(request).',
  );
}

function hasFetch(exported: unknown): exported is FetchHandler {
  return (
    typeof exported === 'object' &&
    exported !== null &&
    typeof (exported as Partial<FetchHandler>).fetch === 'function'
  );
}

/**
 * A module compiled to CommonJS keeps its named exports one level down too: as properties of its own. Others are none of ours: there are
 * routers that have a method of any name, which adds a route of that name.
 */
function hook(exports: Record<string, unknown>, name: string): (() => unknown) | undefined {
  const inner = exports['default'];
  const isBelow = typeof inner === 'object' && inner !== null && Object.hasOwn(inner, name);
  const found = exports[name] ?? (isBelow ? (inner as Record<string, unknown>)[name] : undefined);
  return typeof found === 'function' ? (found as () => unknown) : undefined;
}

async function importModule(url: string): Promise<Record<string, unknown>> {
  // Before the first import: Node remembers a URL it could not load and never tries it again.
  const typeScript = /\.[cm]?ts$/.test(new URL(url).pathname);
  if (typeScript) await registerTypeScript();
  try {
    return (await import(url)) as Record<string, unknown>;
  } catch (error) {
    if (typeScript && (error as NodeJS.ErrnoException).code === 'ERR_UNKNOWN_FILE_EXTENSION') {
      throw new OffloopTypeError(
        'OFFLOOP_NO_HANDLER',
        `${url} is TypeScript, which Node ${process.versions.node} does not load by itself: npm install tsx, or compile it first.`,
        { cause: error },
      );
    }
    throw withPlace(error, url);
  }
}

let registered: Promise<void> | undefined;

/**
 * Let tsx, an optional peer, load TypeScript, on every Node: those that strip types by themselves know neither enums nor imports of .ts files
 * as .js. Without it Node does what it can, or some other loader that the user has set up.
 */
function registerTypeScript(): Promise<void> {
  // Both: a .ts file in a package that is not of type module is CommonJS to tsx.
  registered ??= Promise.all([import('tsx/cjs/api'), import('tsx/esm/api')]).then(
    ([cjs, esm]) => {
      cjs.register();
      esm.register();
    },
    () => undefined,
  );
  return registered;
}

/** Node keeps the place of a syntax error out of its stack, where nobody can find it in a log. */
function withPlace(error: unknown, url: string): unknown {
  if (error instanceof SyntaxError && error.stack !== undefined && !error.stack.includes('file:')) {
    error.stack = `${url}\n${error.stack}`;
  }
  return error;
}
