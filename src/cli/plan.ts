/** What is to be served, checked before anything is started. */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import {
  POOL_KEYS,
  resolveMountOptions,
  resolveServerOptions,
  type ServerOptions,
  type WorkerPoolOptions,
} from '../options.js';
import { UsageError } from './errors.js';
import type { FromFlags, ServeOptions } from './flags.js';

export interface PlannedMount {
  /** As it was given. */
  readonly module: string;
  readonly file: string;
  readonly url: string;
  readonly path: string;
  readonly virtualHost: string | undefined;
  readonly dispatch: boolean;
}

export interface Plan {
  /** The first one is for '/', and everything that nothing else claims. */
  readonly mounts: readonly [PlannedMount, ...PlannedMount[]];
  /** Options of the server, without those of its pool. */
  readonly server: ServerOptions;
  readonly pool: WorkerPoolOptions;
  readonly own: ServeOptions;
}

/** Throws for what cannot be served. Loads nothing, listens nowhere. */
export function makePlan(module: string, { server, own }: FromFlags): Plan {
  resolveServerOptions(server);
  const { dispatch = true, ...rest } = server;
  const options: Record<string, unknown> = { ...rest };
  const pool: Record<string, unknown> = {};
  for (const name of POOL_KEYS) {
    if (options[name] !== undefined) pool[name] = options[name];
    delete options[name];
  }
  const mounts: Plan['mounts'] = [
    planned(module, '/', undefined, dispatch),
    ...own.mount.map((given) => plannedMount('--mount', given, true)),
    ...own.mountInline.map((given) => plannedMount('--mount-inline', given, false)),
  ];
  const places = mounts.map(({ path, virtualHost = '' }) => `${virtualHost.toLowerCase()}${path}`);
  if (own.readyPath !== undefined) places.push(own.readyPath);
  if (own.statsPath !== undefined) places.push(own.statsPath);
  const twice = places.find((place, i) => places.indexOf(place) !== i);
  if (twice !== undefined)
    throw new UsageError(
      `${twice} is claimed twice: give each module, --ready-path and --stats-path a path of its own.`,
    );
  return { mounts, server: options, pool, own };
}

function plannedMount(flag: string, given: string, dispatch: boolean): PlannedMount {
  const parts = /^([^/=]*)(\/[^=]*)=(.+)$/.exec(given);
  if (parts === null)
    throw new UsageError(
      `${flag} is ${JSON.stringify(given)}; allowed: a path, '=' and a module, as in ${flag} /api=./api.js.`,
    );
  const [, host, path, module] = parts as unknown as [string, string, string, string];
  const virtualHost = host === '' ? undefined : host;
  try {
    resolveMountOptions({ path, virtualHost });
  } catch (error) {
    throw new UsageError(`${flag} ${given}: ${(error as Error).message.replace(/^mount: option /, '')}`);
  }
  return planned(module, path, virtualHost, dispatch);
}

function planned(
  module: string,
  path: string,
  virtualHost: string | undefined,
  dispatch: boolean,
): PlannedMount {
  const file = resolve(module);
  const stat = statSync(file, { throwIfNoEntry: false });
  if (stat === undefined)
    throw new UsageError(
      `there is no handler module ${module}: looked for ${file}. Give the path of a file that exports a handler.`,
    );
  if (!stat.isFile())
    throw new UsageError(
      `the handler module ${module} is no file: give the path of a file that exports a handler.`,
    );
  return { module, file, url: pathToFileURL(file).href, path, virtualHost, dispatch };
}
