/** The options of offloop/web: those of the server and of the mount in one object, as Immutant has them. */
import { check, type Rule } from '../check.js';
import {
  MOUNT_RULES,
  type MountOptions,
  POOL_RULES,
  resolveServerOptions,
  SERVER_RULES,
  type ServerOptions,
} from '../options.js';
import type { WebServer } from './web-server.js';

/** Where a handler is mounted, as `stop` undoes it. */
export interface Context {
  readonly path: string;
  readonly virtualHost: string | null;
}

/** What one or several calls of `run` have mounted, by server. */
export type Contexts = ReadonlyMap<WebServer, readonly Context[]>;

/**
 * Options of {@link run}: where to listen, where to mount, and every option of `runServer` and of `mount`. Those of the mount
 * (`dispatch`, `workerPool`, the time limits, `maxBody`, `streamBody`) hold for this handler, the others for the server.
 */
export interface RunOptions extends Omit<ServerOptions, 'ip' | 'unix'>, Omit<MountOptions, 'virtualHost'> {
  /** Address to bind. Default 'localhost': not reachable from other machines. */
  host?: string;
  /** Port to bind; 0 = any free one, which is returned. Default 8080. */
  port?: number;
  /** As in `mount`; null = none. */
  virtualHost?: string | readonly string[] | null;
  /** false = the server is made, and started by `server(options).start()`. Default true. */
  autoStart?: boolean;
  /** What calls before this one have mounted, as they have returned it. */
  contexts?: Contexts;
}

/** The same as they come from a command line: any of them may be text. */
export type RunInput = { readonly [K in keyof RunOptions]?: RunOptions[K] | string | undefined };

/** What `run` returns: its options with the defaults filled in. They can be options again. */
export interface RunResult extends RunOptions {
  host: string;
  port: number;
  path: string;
  virtualHost: string | readonly string[] | null;
  dispatch: boolean;
  autoStart: boolean;
  contexts: Contexts;
}

const { ip, port, ...OTHER_SERVER_RULES } = SERVER_RULES;
delete (OTHER_SERVER_RULES as Partial<typeof OTHER_SERVER_RULES>).unix;

const RULES: Record<keyof RunOptions, Rule> = {
  host: ip,
  port,
  ...MOUNT_RULES,
  virtualHost: {
    allowed: `${MOUNT_RULES.virtualHost.allowed}, or null`,
    ok: (v) => v === null || MOUNT_RULES.virtualHost.ok(v),
  },
  autoStart: { allowed: 'true or false', ok: (v) => typeof v === 'boolean' },
  contexts: { allowed: 'what run has returned as contexts', ok: (v) => v instanceof Map },
  ...(OTHER_SERVER_RULES as Omit<typeof OTHER_SERVER_RULES, 'unix'>),
  ...POOL_RULES,
};

const OF_MOUNT = Object.keys(MOUNT_RULES);
const OF_RUN = ['host', 'port', 'autoStart', 'contexts'];

/** Options, sorted by whom they are for. */
export interface Sorted {
  readonly result: RunResult;
  /** Those of the server that were given, beside its address. */
  readonly server: ServerOptions;
  readonly mount: MountOptions;
  readonly hosts: readonly string[];
}

/** Check and sort options, with the defaults filled in. @throws OFFLOOP_BAD_OPTION. */
export function sortOptions(where: string, options: unknown = {}, more: Record<string, Rule> = {}): Sorted {
  const rules: Record<string, Rule> = { ...RULES, ...more };
  const given = coerce(options, rules);
  check(where, given, rules);
  const known = Object.entries(given).filter(([, value]) => value !== undefined);
  const result = {
    host: 'localhost',
    port: 8080,
    path: '/',
    virtualHost: null,
    dispatch: true,
    autoStart: true,
    contexts: new Map(),
    ...Object.fromEntries(known),
  } as RunResult;
  const isOfServer = (name: string): boolean =>
    !OF_RUN.includes(name) && !OF_MOUNT.includes(name) && !Object.hasOwn(more, name);
  const server = Object.fromEntries(known.filter(([name]) => isOfServer(name))) as ServerOptions;
  const { virtualHost, workerPool } = result;
  // A pool and options of a pool exclude each other here too.
  resolveServerOptions({ ...server, ...(workerPool && { workerPool }) }, where);
  const hosts = virtualHost === null ? [] : typeof virtualHost === 'string' ? [virtualHost] : virtualHost;
  const mount: MountOptions = { ...Object.fromEntries(known.filter(([name]) => OF_MOUNT.includes(name))) };
  delete mount.virtualHost;
  return { result, server, mount, hosts };
}

/** Text where something else is wanted; names as they stand on a command line, `--virtual-host`. */
function coerce(options: unknown, rules: Record<string, Rule>): unknown {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) return options;
  return Object.fromEntries(
    Object.entries(options).map(([given, value]) => {
      const name = given
        .replace(/^--/, '')
        .replace(/(?<=[a-z])-([a-z])/g, (_, letter: string) => letter.toUpperCase());
      const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
      return rule === undefined ? [given, value] : [name, meantBy(value, rule)];
    }),
  );
}

function meantBy(value: unknown, rule: Rule): unknown {
  if (typeof value !== 'string' || rule.ok(value)) return value;
  const meant = /^(?:\d+|Infinity)$/.test(value) ? Number(value) : { true: true, false: false }[value];
  return meant !== undefined && rule.ok(meant) ? meant : value;
}
