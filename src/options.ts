/**
 * Every option: its meaning, default and check. Bad options are refused at start, loudly, with the name, the value and
 * what is allowed; nothing is coerced and unknown names are not ignored.
 */
import { isIP } from 'node:net';
import { availableParallelism } from 'node:os';
import type { ResourceLimits } from 'node:worker_threads';
import { isRanges, MAX_HOPS, RANGES } from './addresses.js';
import { check, integer, plainObject, type Rule, refuse } from './check.js';
import type { WorkerPool } from './pool/worker-pool.js';
import type { TimeLimits } from './protocol.js';
import { checkTls, type TlsOptions } from './tls-options.js';

/** When a worker is replaced by a fresh one; see {@link WorkerPoolOptions.recycleAfter}. */
export interface RecycleAfter {
  requests?: number;
  ms?: number;
  heapMb?: number;
}

/** How long requests may take; of a server, or of one mount. */
export interface TimeLimitOptions {
  /** Ms a request may wait for a thread until it is answered 503. 0 = no limit. Default 0. */
  queueTimeout?: number;
  /** Ms a handler may run until its request is answered 504 and `req.signal` aborts. 0 = no limit. Default 0. */
  handlerTimeout?: number;
  /** Ms after `handlerTimeout` until a worker whose event loop is still stuck is ended and replaced. Default 1000. */
  killAfter?: number;
}

/** What becomes of request bodies; of a server, or of one mount. */
export interface BodyOptions {
  /**
   * Bytes of request body; a larger one is answered 413 and the connection closed. Infinity = no limit, for handlers that never hold
   * all of it. Default 8 MiB.
   */
  maxBody?: number;
  /**
   * Start the handler as soon as the head of the request is there; the body comes while it reads. Otherwise it is started when the body
   * is complete, or when 1 MiB of it is there. Default false.
   */
  streamBody?: boolean;
}

/** Options of a worker pool. Times are milliseconds, sizes bytes. */
export interface WorkerPoolOptions {
  /** Threads kept. Default: cores - 1, at least 1. */
  nMin?: number;
  /** Threads at most; they grow before anything waits. Default: cores, at least `nMin`. */
  nMax?: number;
  /** Invocations that may wait; one more is answered 503. 0 = nothing waits. Default 1024. */
  queueSize?: number;
  /** Invocations of async handlers that may be pending in one worker at the same time. Default 64. */
  concurrency?: number;
  /** Ms a thread above `nMin` may idle before it retires. Default 30000. */
  threadIdleTimeout?: number;
  /**
   * By how much less urgent workers are to the operating system than the process, from 0 to 19, as in Piscina: so the I/O thread gets a core
   * as soon as a packet comes. Less where other busy processes share the machine: with 10, threads of theirs get nine tenths of a contended core.
   * Linux only. Default 10.
   */
  niceIncrement?: number;
  /** V8 heap limits of each worker, as in node:worker_threads. A worker that hits them dies alone and is replaced. */
  resourceLimits?: ResourceLimits;
  /** `process.env` of the workers, as in node:worker_threads. Default: a copy of the parent's. */
  env?: NodeJS.ProcessEnv;
  /** Node flags of the workers, as in node:worker_threads. Default: the parent's. */
  execArgv?: string[];
  /**
   * Replace a worker after so many `requests`, so many `ms`, or beyond so many MB of JavaScript heap, the first two give or
   * take a tenth so that not all go at once. Its replacement is ready before it stops. Default: never.
   */
  recycleAfter?: RecycleAfter;
  /**
   * Microseconds of expected work that travel to a worker at once; whatever is expected to take longer travels alone,
   * while its worker is at something else only if both take at most 2 ms on average. 0 = everything travels alone, to a worker with nothing to do. Default 1000.
   */
  batchMicros?: number;
  /** Names of the workers in `stats()` and logs: prefix and a number. Default 'offloop-worker-'. */
  prefix?: string;
}

/**
 * The names of the events given to `eventLogger`, by key; the defaults are http-kit's, so that dashboards carry over.
 * `serverStatusPrefix` is followed by the status of every answer a handler gave.
 */
export interface EventNames {
  serverStatusPrefix: string;
  serverStatus404: string;
  serverStatus413: string;
  serverStatus414: string;
  serverStatus431: string;
  serverStatus500: string;
  serverStatus503: string;
  /** Requests refused because the server is stopping, kept apart from overload. */
  serverStatus503Stopping: string;
  /** Requests that have waited for `queueTimeout`. */
  serverStatus503Waited: string;
  /** Requests refused because no worker can start. */
  serverStatus503NoWorker: string;
  /** Requests whose handler has run for `handlerTimeout`. */
  serverStatus504: string;
  /** Messages of channels that could not be taken; the channel is closed with 1013. */
  channelOverflow: string;
  channelLost: string;
}
export type EventKey = keyof EventNames;

export const EVENT_NAMES: Readonly<EventNames> = {
  serverStatusPrefix: 'httpkit.server.status.processed.',
  serverStatus404: 'httpkit.server.status.404',
  serverStatus413: 'httpkit.server.status.413',
  serverStatus414: 'httpkit.server.status.414',
  serverStatus431: 'httpkit.server.status.processed.431',
  serverStatus500: 'httpkit.server.status.500',
  serverStatus503: 'httpkit.server.status.503',
  serverStatus503Stopping: 'httpkit.server.status.503.stopping',
  serverStatus503Waited: 'httpkit.server.status.503.waited',
  serverStatus503NoWorker: 'httpkit.server.status.503.no-worker',
  serverStatus504: 'httpkit.server.status.504',
  channelOverflow: 'httpkit.server.status.503.todo',
  channelLost: 'offloop.channel.lost',
};

/** Options of {@link runServer}. Pool options at the top level make the server's own pool. */
export interface ServerOptions extends WorkerPoolOptions, TimeLimitOptions, BodyOptions {
  /** Address to bind. Default '0.0.0.0'. */
  ip?: string;
  /** Port to bind; 0 = any free port, read it back from `server.port`. A port in use rejects with code EADDRINUSE. Default 8090. */
  port?: number;
  /**
   * Share the port with other processes of the same user that say so too: the kernel shares connections out among them (SO_REUSEPORT).
   * Linux only, and not with port 0. Default false.
   */
  reusePort?: boolean;
  /** Path of a Unix domain socket to listen on instead of `ip` and `port`. */
  unix?: string;
  /** Permissions of the file of that socket, such as 0o660. Default 0o700: this user only. */
  unixMode?: number;
  /** Speak TLS: https and wss, and nothing else. Default: plain. */
  tls?: TlsOptions;
  /**
   * Which proxies are believed what they say of the client in X-Forwarded-* or Forwarded: all (true), so many in front of this server, or
   * those with these addresses: IP addresses, CIDR ranges, 'loopback', 'linklocal', 'uniquelocal', 'unix'. Default false: none.
   */
  trustProxy?: boolean | number | readonly string[];
  /**
   * PROXY protocol, versions 1 and 2: every connection has to begin with its header ('enable'), or may ('optional'). Not with `tls`.
   * Default 'disable'.
   */
  proxyProtocol?: 'disable' | 'enable' | 'optional';
  /**
   * Whose PROXY headers are taken; connections with one from anybody else are closed. As `trustProxy`. Default: loopback, linklocal,
   * uniquelocal, unix.
   */
  proxyProtocolFrom?: readonly string[];
  /** true: the handler is a module and runs on worker threads. false: it runs inline, on the I/O thread. Default true. */
  dispatch?: boolean;
  /** A pool shared with other servers; this server does not close it. Excludes the pool options. */
  workerPool?: WorkerPool;
  /** Bytes of a WebSocket message; a larger one closes the WebSocket. Default 4 MiB. */
  maxWs?: number;
  /** Ms without traffic until a WebSocket is closed; pings are sent in time. 8000 to 960000, 0 = never. Default 120000. */
  wsIdleTimeout?: number;
  /** permessage-deflate: false, or one compressor for all ('shared', true) or for each WebSocket ('dedicated'). Default false. */
  wsCompression?: boolean | 'shared' | 'dedicated';
  /** Bytes of the request line (414) and of each header line (431). At most 65536. Default 8192. */
  maxLine?: number;
  /**
   * The errors of handlers and of workers that cannot start are shown to the client, with their stacks. Not for servers
   * that strangers can reach. Default false.
   */
  development?: boolean;
  /** Value of the `Server` header; null = no such header. A handler's own wins. Default 'offloop'. */
  serverHeader?: string | null;
  /** Called with a sentence and the error when a handler throws or a worker dies. Default: standard error. */
  errorLogger?: (message: string, error: unknown) => void;
  /** Called with a sentence and perhaps an error when something is odd but handled. Default: standard error. */
  warnLogger?: (message: string, error: unknown) => void;
  /** Called with the name of each event, for counting. Default: nothing. */
  eventLogger?: (name: string) => void;
  /** Other names for some events. */
  eventNames?: Partial<EventNames>;
}

// ------------------------------------------------------------------------------------------------------------ checks

const aFunction: Rule = { allowed: 'a function', ok: (v) => typeof v === 'function' };
const MAX_MS = 2 ** 31 - 1;
const PRIVATE = ['loopback', 'linklocal', 'uniquelocal', 'unix'];

const RESOURCE_LIMITS = [
  'maxYoungGenerationSizeMb',
  'maxOldGenerationSizeMb',
  'codeRangeSizeMb',
  'stackSizeMb',
];
const RECYCLE = ['requests', 'ms', 'heapMb'];
// A header value that goes to the wire as it is.
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\uffff]*$/;

export const POOL_RULES: Record<keyof WorkerPoolOptions, Rule> = {
  nMin: integer(1, 1024, 'a whole number of threads from 1 to 1024'),
  nMax: integer(1, 1024, 'a whole number of threads from 1 to 1024, at least nMin'),
  queueSize: integer(0, 2 ** 30, 'a whole number from 0 to 2^30'),
  concurrency: integer(1, 65536, 'a whole number from 1 to 65536'),
  threadIdleTimeout: integer(0, MAX_MS, 'whole milliseconds from 0 to 2^31 - 1'),
  niceIncrement: integer(0, 19, 'a whole number from 0 to 19'),
  resourceLimits: {
    allowed: `an object with some of ${RESOURCE_LIMITS.join(', ')}, each a positive number`,
    ok: (v) =>
      plainObject(v) &&
      Object.entries(v).every(
        ([k, n]) => RESOURCE_LIMITS.includes(k) && (n === undefined || (typeof n === 'number' && n > 0)),
      ),
  },
  env: {
    allowed: 'an object of strings',
    ok: (v) => plainObject(v) && Object.values(v).every((s) => s === undefined || typeof s === 'string'),
  },
  execArgv: {
    allowed: 'an array of strings',
    ok: (v) => Array.isArray(v) && v.every((s) => typeof s === 'string'),
  },
  recycleAfter: {
    allowed: `an object with some of ${RECYCLE.join(', ')}, each a number above 0`,
    ok: (v) =>
      plainObject(v) &&
      Object.entries(v).every(
        ([k, n]) => RECYCLE.includes(k) && (n === undefined || (typeof n === 'number' && n > 0)),
      ),
  },
  batchMicros: integer(0, 1_000_000, 'whole microseconds from 0 to 1000000'),
  prefix: { allowed: 'a string', ok: (v) => typeof v === 'string' },
};

const TIME_RULES: Record<keyof TimeLimitOptions, Rule> = {
  queueTimeout: integer(0, MAX_MS, 'whole milliseconds from 0 to 2^31 - 1; 0 = no limit'),
  handlerTimeout: integer(0, MAX_MS, 'whole milliseconds from 0 to 2^31 - 1; 0 = no limit'),
  killAfter: integer(0, MAX_MS, 'whole milliseconds from 0 to 2^31 - 1'),
};

const BODY_RULES: Record<keyof BodyOptions, Rule> = {
  maxBody: {
    allowed: 'whole bytes from 0 to 2^53 - 1, or Infinity',
    ok: (v) => v === Number.POSITIVE_INFINITY || (Number.isSafeInteger(v) && (v as number) >= 0),
  },
  streamBody: { allowed: 'true or false', ok: (v) => typeof v === 'boolean' },
};

export const SERVER_RULES: Record<Exclude<keyof ServerOptions, keyof WorkerPoolOptions>, Rule> = {
  ...TIME_RULES,
  ...BODY_RULES,
  ip: {
    allowed: "an IPv4 or IPv6 address, or 'localhost'",
    ok: (v) => v === 'localhost' || (typeof v === 'string' && isIP(v) !== 0),
  },
  port: integer(0, 65535, 'a whole number from 0 to 65535'),
  reusePort: { allowed: 'true or false', ok: (v) => typeof v === 'boolean' },
  // sun_path holds 108 bytes with the closing NUL; a longer path would be cut by the system, not refused.
  unix: {
    allowed: 'a path of 1 to 107 bytes',
    ok: (v) => typeof v === 'string' && v.length > 0 && Buffer.byteLength(v) <= 107,
  },
  unixMode: {
    allowed: 'a whole number from 0 to 0o777',
    ok: (v) => typeof v === 'number' && Number.isInteger(v) && v >= 0 && v <= 0o777,
  },
  // Checked by itself, since no message may show what it holds.
  tls: { allowed: 'an object with cert and key', ok: () => true },
  trustProxy: {
    allowed: `true, false, a whole number of proxies from 1 to ${MAX_HOPS}, or ${RANGES}`,
    ok: (v) =>
      typeof v === 'boolean' ||
      (typeof v === 'number' && Number.isInteger(v) && v >= 1 && v <= MAX_HOPS) ||
      isRanges(v),
  },
  proxyProtocol: {
    allowed: "'disable', 'enable' or 'optional'",
    ok: (v) => v === 'disable' || v === 'enable' || v === 'optional',
  },
  proxyProtocolFrom: { allowed: RANGES, ok: isRanges },
  dispatch: { allowed: 'true or false', ok: (v) => typeof v === 'boolean' },
  workerPool: {
    allowed: 'a pool made by createWorkerPool',
    ok: (v) =>
      typeof v === 'object' &&
      v !== null &&
      'dispatcher' in v &&
      typeof (v as Partial<WorkerPool>).close === 'function',
  },
  maxWs: integer(1, 2 ** 31 - 1, 'whole bytes from 1 to 2^31 - 1'),
  wsIdleTimeout: {
    allowed: '0, or whole milliseconds from 8000 to 960000',
    ok: (v) => v === 0 || (typeof v === 'number' && Number.isInteger(v) && v >= 8000 && v <= 960_000),
  },
  wsCompression: {
    allowed: "true, false, 'shared' or 'dedicated'",
    ok: (v) => typeof v === 'boolean' || v === 'shared' || v === 'dedicated',
  },
  maxLine: integer(64, 65536, 'whole bytes from 64 to 65536'),
  development: { allowed: 'true or false', ok: (v) => typeof v === 'boolean' },
  serverHeader: {
    allowed: 'a string of visible characters, or null for none',
    ok: (v) => v === null || (typeof v === 'string' && v.length > 0 && HEADER_VALUE.test(v)),
  },
  errorLogger: aFunction,
  warnLogger: aFunction,
  eventLogger: aFunction,
  eventNames: {
    allowed: `an object with some of ${Object.keys(EVENT_NAMES).join(', ')}, each a string`,
    ok: (v) =>
      plainObject(v) &&
      Object.entries(v).every(
        ([k, s]) => Object.hasOwn(EVENT_NAMES, k) && (s === undefined || typeof s === 'string'),
      ),
  },
};

/** What each option of runServer may be, for whoever reads options out of something else. */
export const OPTION_RULES: Readonly<Record<keyof ServerOptions, Rule>> = { ...POOL_RULES, ...SERVER_RULES };

// ---------------------------------------------------------------------------------------------------------- resolved

/** Pool options with the defaults filled in. */
export interface ResolvedPoolOptions {
  readonly nMin: number;
  readonly nMax: number;
  readonly queueSize: number;
  readonly concurrency: number;
  readonly threadIdleTimeout: number;
  readonly niceIncrement: number;
  readonly recycleAfter: { readonly requests: number; readonly ms: number; readonly heapMb: number };
  readonly batchMicros: number;
  readonly prefix: string;
  readonly resourceLimits: ResourceLimits | undefined;
  readonly env: NodeJS.ProcessEnv | undefined;
  readonly execArgv: string[] | undefined;
}

/** What is left of the server options when pool and handler have been taken care of. */
export interface ResolvedServerOptions {
  readonly ip: string;
  readonly port: number;
  readonly reusePort: boolean;
  readonly unix: string | undefined;
  readonly unixMode: number | undefined;
  readonly tls: TlsOptions | undefined;
  readonly trustProxy: boolean | number | readonly string[];
  readonly proxyProtocol: 'disable' | 'enable' | 'optional';
  readonly proxyProtocolFrom: readonly string[];
  readonly maxBody: number;
  readonly streamBody: boolean;
  readonly maxLine: number;
  readonly maxWs: number;
  readonly wsIdleTimeout: number;
  readonly wsCompression: 'none' | 'shared' | 'dedicated';
  readonly development: boolean;
  readonly limits: TimeLimits;
  readonly serverHeader: string | null;
  readonly errorLogger: (message: string, error: unknown) => void;
  readonly warnLogger: (message: string, error: unknown) => void;
  readonly eventLogger: ((name: string) => void) | undefined;
  readonly eventNames: Readonly<EventNames>;
}

/** Names of the options of a pool. */
export const POOL_KEYS = Object.keys(POOL_RULES) as (keyof WorkerPoolOptions)[];

export function resolvePoolOptions(options: unknown = {}, where = 'createWorkerPool'): ResolvedPoolOptions {
  check(where, options, POOL_RULES);
  const given = options as WorkerPoolOptions;
  const cores = availableParallelism();
  // A single given bound moves the default of the other, so that { nMin: 8 } and { nMax: 1 } mean what they say.
  const nMin = given.nMin ?? Math.min(Math.max(1, cores - 1), given.nMax ?? Number.POSITIVE_INFINITY);
  const nMax = given.nMax ?? Math.max(nMin, cores);
  if (nMin > nMax) refuse(where, 'nMin', nMin, `at most nMax, which is ${nMax}`);
  return {
    nMin,
    nMax,
    queueSize: given.queueSize ?? 1024,
    concurrency: given.concurrency ?? 64,
    threadIdleTimeout: given.threadIdleTimeout ?? 30_000,
    niceIncrement: given.niceIncrement ?? 10,
    recycleAfter: {
      requests: given.recycleAfter?.requests ?? Number.POSITIVE_INFINITY,
      ms: given.recycleAfter?.ms ?? Number.POSITIVE_INFINITY,
      heapMb: given.recycleAfter?.heapMb ?? Number.POSITIVE_INFINITY,
    },
    batchMicros: given.batchMicros ?? 1000,
    prefix: given.prefix ?? 'offloop-worker-',
    resourceLimits: given.resourceLimits,
    env: given.env,
    execArgv: given.execArgv,
  };
}

/** Default error and warn logger: one line, then the stack if there is an error. */
function toStandardError(message: string, error: unknown): void {
  if (error === undefined || error === null) console.error(`[offloop] ${message}`);
  else console.error(`[offloop] ${message}`, error);
}

export function resolveServerOptions(
  options: unknown = {},
  where = 'runServer',
): {
  server: ResolvedServerOptions;
  dispatch: boolean;
  workerPool: WorkerPool | undefined;
  /** Options for the server's own pool, checked; made only when something is dispatched. */
  pool: ResolvedPoolOptions;
} {
  check(where, options, OPTION_RULES);
  const given = options as ServerOptions;
  const poolOptions = Object.fromEntries(
    POOL_KEYS.filter((key) => given[key] !== undefined).map((key) => [key, given[key]]),
  );
  if (given.workerPool !== undefined) {
    const [clash] = Object.keys(poolOptions);
    if (clash !== undefined) {
      refuse(
        where,
        clash,
        (poolOptions as Record<string, unknown>)[clash],
        'nothing beside workerPool, which has options of its own',
      );
    }
  }
  if (given.unix !== undefined) {
    for (const clash of ['ip', 'port', 'reusePort'] as const) {
      if (given[clash] !== undefined)
        refuse(where, clash, given[clash], 'nothing beside unix: a server listens in one place');
    }
  } else if (given.unixMode !== undefined) {
    refuse(where, 'unixMode', given.unixMode, 'nothing without unix');
  }
  if (given.tls !== undefined) checkTls(where, given.tls);
  if ((given.proxyProtocol ?? 'disable') !== 'disable') {
    if (given.tls !== undefined)
      refuse(where, 'proxyProtocol', given.proxyProtocol, "'disable' beside tls: let the balancer end TLS");
    if (given.reusePort === true)
      refuse(where, 'proxyProtocol', given.proxyProtocol, "'disable' beside reusePort");
  } else if (given.proxyProtocolFrom !== undefined) {
    refuse(where, 'proxyProtocolFrom', given.proxyProtocolFrom, 'nothing without proxyProtocol');
  }
  // Elsewhere the last one that binds gets everything, or nobody can.
  if (given.reusePort === true && process.platform !== 'linux')
    refuse(
      where,
      'reusePort',
      true,
      `false on ${process.platform}, whose kernel does not share connections out`,
    );
  // The engine never shares a port that the system has chosen.
  if (given.reusePort === true && given.port === 0)
    refuse(where, 'port', 0, 'a port above 0 beside reusePort: nobody else could know which one to share');
  return {
    server: {
      ip: given.ip ?? '0.0.0.0',
      port: given.port ?? 8090,
      reusePort: given.reusePort ?? false,
      unix: given.unix,
      unixMode: given.unixMode,
      tls: given.tls,
      trustProxy: given.trustProxy ?? false,
      proxyProtocol: given.proxyProtocol ?? 'disable',
      proxyProtocolFrom: given.proxyProtocolFrom ?? PRIVATE,
      maxBody: given.maxBody ?? 8 * 1024 * 1024,
      streamBody: given.streamBody ?? false,
      maxLine: given.maxLine ?? 8192,
      maxWs: given.maxWs ?? 4 * 1024 * 1024,
      wsIdleTimeout: given.wsIdleTimeout ?? 120_000,
      wsCompression: compressionOf(given.wsCompression ?? false),
      development: given.development ?? false,
      limits: {
        queueTimeout: given.queueTimeout ?? 0,
        handlerTimeout: given.handlerTimeout ?? 0,
        killAfter: given.killAfter ?? 1000,
      },
      serverHeader: given.serverHeader === undefined ? 'offloop' : given.serverHeader,
      errorLogger: given.errorLogger ?? toStandardError,
      warnLogger: given.warnLogger ?? toStandardError,
      eventLogger: given.eventLogger,
      eventNames: { ...EVENT_NAMES, ...withoutUndefined(given.eventNames) },
    },
    dispatch: given.dispatch ?? true,
    workerPool: given.workerPool,
    pool: resolvePoolOptions(poolOptions, where),
  };
}

function compressionOf(given: boolean | 'shared' | 'dedicated'): 'none' | 'shared' | 'dedicated' {
  if (typeof given === 'string') return given;
  return given ? 'shared' : 'none';
}

function withoutUndefined<T extends object>(object: T | undefined): Partial<T> {
  return Object.fromEntries(Object.entries(object ?? {}).filter(([, v]) => v !== undefined)) as Partial<T>;
}

/** Check the options of `server.mount` and `server.unmount`. */
export interface MountOptions extends TimeLimitOptions, BodyOptions {
  /** Path prefix, matched on segment boundaries. Default '/'. */
  path?: string;
  /**
   * Host name, or names, that the mount answers for; `*.example.com` for every name below example.com, at any depth, that has
   * no mount of its own. Default: every host that no other mount claims.
   */
  virtualHost?: string | readonly string[];
  /** As in {@link ServerOptions}. Default true. */
  dispatch?: boolean;
  /** Pool of this mount. Default: the server's. */
  workerPool?: WorkerPool;
}

const HOST_NAME = /^(?:\*\.)?[A-Za-z0-9._~-]+$|^\[[0-9A-Fa-f:.]+\]$/;
const isHostName = (v: unknown): boolean => typeof v === 'string' && HOST_NAME.test(v);
// biome-ignore lint/suspicious/noControlCharactersInRegex: a mount path with control characters can never match
const MOUNT_PATH = /^\/[^\s?#\x00-\x1f\x7f]*$/;

export const MOUNT_RULES: Record<keyof MountOptions, Rule> = {
  ...TIME_RULES,
  ...BODY_RULES,
  path: {
    allowed: "a path that starts with '/' and has no '?', '#' or white space",
    ok: (v) => typeof v === 'string' && MOUNT_PATH.test(v),
  },
  virtualHost: {
    allowed:
      "a host name without a port, '*.' and a host name for all below that, or a non-empty array of them",
    ok: (v) => isHostName(v) || (Array.isArray(v) && v.length > 0 && v.every(isHostName)),
  },
  dispatch: SERVER_RULES.dispatch,
  workerPool: SERVER_RULES.workerPool,
};

export interface ResolvedMountOptions {
  readonly path: string;
  readonly virtualHosts: readonly string[];
  readonly dispatch: boolean;
  readonly workerPool: WorkerPool | undefined;
  /** Those that are given; the server's hold for the others. */
  readonly limits: Partial<TimeLimits>;
  /** The same. */
  readonly bodies: BodyOptions;
}

export function resolveMountOptions(options: unknown = {}, where = 'mount'): ResolvedMountOptions {
  check(where, options, MOUNT_RULES);
  const given = options as MountOptions;
  const hosts = given.virtualHost ?? [];
  if (given.dispatch === false && given.workerPool !== undefined)
    refuse(where, 'dispatch', false, 'true beside workerPool: what runs inline runs on no pool');
  return {
    path: given.path ?? '/',
    virtualHosts: typeof hosts === 'string' ? [hosts] : hosts,
    dispatch: given.dispatch ?? true,
    workerPool: given.workerPool,
    limits: withoutUndefined({
      queueTimeout: given.queueTimeout,
      handlerTimeout: given.handlerTimeout,
      killAfter: given.killAfter,
    }),
    bodies: withoutUndefined({ maxBody: given.maxBody, streamBody: given.streamBody }),
  };
}

export interface StopOptions {
  /** Ms that running and queued work may take before it is cut. Default 10000. */
  timeout?: number;
  /**
   * Ms for which requests over connections that are open are still answered, each answer closing its connection, while no new connections
   * are taken. On Linux it is over when no connection is left. Default 0: they are refused with a 503 at once.
   */
  grace?: number;
}

const MS_RULE = integer(0, MAX_MS, 'whole milliseconds from 0 to 2^31 - 1');

export function resolveStopOptions(options: unknown = {}, where = 'stop'): Readonly<Required<StopOptions>> {
  // A pool has no connections.
  check(where, options, where === 'stop' ? { timeout: MS_RULE, grace: MS_RULE } : { timeout: MS_RULE });
  const { timeout = 10_000, grace = 0 } = options as StopOptions;
  return { timeout, grace };
}

/** Options of `server.profileWorker`. */
export interface ProfileOptions {
  /**
   * Which thread: a worker by its `threadId` in `stats()`, or 'io' for the I/O thread. Default: the worker that has the most to do at the
   * moment.
   */
  worker?: number | 'io';
  /** Look for the worker in this pool. Default: in all pools that the server's handlers run on. */
  workerPool?: WorkerPool;
  /** 'cpu': where the time goes; 'heap': which functions allocate what is then still alive. Default 'cpu'. */
  kind?: 'cpu' | 'heap';
  /** Ms to be profiled, 1 to 60000. Default 5000. */
  duration?: number;
}

const PROFILE_RULES: Record<keyof ProfileOptions, Rule> = {
  worker: {
    allowed: "the threadId of a worker, a whole number from 1, or 'io' for the I/O thread",
    ok: (v) => v === 'io' || (Number.isSafeInteger(v) && (v as number) > 0),
  },
  workerPool: SERVER_RULES.workerPool,
  kind: { allowed: "'cpu' or 'heap'", ok: (v) => v === 'cpu' || v === 'heap' },
  // The profile comes as one message, which the I/O thread has to read: some 10 KB for each second.
  duration: integer(1, 60_000, 'whole milliseconds from 1 to 60000'),
};

export interface ResolvedProfileOptions {
  readonly worker: number | 'io' | undefined;
  readonly workerPool: WorkerPool | undefined;
  readonly kind: 'cpu' | 'heap';
  readonly duration: number;
}

export function resolveProfileOptions(
  options: unknown = {},
  where = 'profileWorker',
): ResolvedProfileOptions {
  check(where, options, PROFILE_RULES);
  const { worker, workerPool, kind = 'cpu', duration = 5000 } = options as ProfileOptions;
  if (worker === 'io' && workerPool !== undefined)
    refuse(where, 'worker', worker, 'the threadId of a worker beside workerPool');
  return { worker, workerPool, kind, duration };
}
