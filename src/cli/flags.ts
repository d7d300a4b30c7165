/**
 * The flags and environment variables of the command line, all from one table. A flag is text; what it means is checked by the rules
 * of the options themselves.
 */
import { integer, type Rule } from '../check.js';
import { OPTION_RULES, type ServerOptions } from '../options.js';
import { UsageError } from './errors.js';

export interface Flag {
  /** Without the dashes. */
  readonly flag: string;
  /** What stands for its value in the help; none: it is switched on by its name, and off by `--no-` before that. */
  readonly value?: string;
  readonly help: string;
  /** Turn text into a value. What it makes no sense of it gives back, for the rule to refuse. */
  readonly read: (text: string) => unknown;
  /** May be given again, for a further value. */
  readonly many?: boolean;
  /** What is allowed, where text is not as the option is. */
  readonly allowed?: string;
  /** Its value is no business of whoever reads messages. */
  readonly secret?: boolean;
}

const text = (given: string): unknown => given;
const number = (given: string): unknown =>
  /^-?\d+(\.\d+)?$/.test(given) || given === 'Infinity' ? Number(given) : given;
const SWITCH: Record<string, boolean> = { true: true, 1: true, false: false, 0: false };
const yesOrNo = (given: string): unknown => SWITCH[given] ?? given;
/** 'requests=1000,ms=60000' */
const numbers = (given: string): unknown => {
  const pairs = given.split(',').map((pair) => pair.split('='));
  return pairs.every((pair) => pair.length === 2)
    ? Object.fromEntries(pairs.map(([key, value]) => [key, number(String(value))]))
    : given;
};
/** 'cert=/a.pem,key=/b.pem' */
const texts = (given: string): unknown => {
  const pairs = given.split(',').map((pair) => /^(\w+)=(.+)$/.exec(pair));
  return pairs.every((pair) => pair !== null)
    ? Object.fromEntries(pairs.map((pair) => [pair[1], pair[2]]))
    : given;
};
const list = (given: string): unknown => given.split(',').map((part) => part.trim());
const octal = (given: string): unknown =>
  /^(0o?)?[0-7]{1,4}$/.test(given) ? Number.parseInt(given.replace('o', ''), 8) : given;
const either =
  (values: Record<string, unknown>) =>
  (given: string): unknown =>
    Object.hasOwn(values, given) ? values[given] : given;

/** A flag for each option of runServer; null: it has none, since it is no plain value or of no use here. */
export const SERVER_FLAGS: Readonly<Record<keyof ServerOptions, Flag | null>> = {
  ip: { flag: 'host', value: 'address', read: text, help: 'address to bind (0.0.0.0)' },
  port: { flag: 'port', value: 'n', read: number, help: 'port to bind; 0 = any free one (8090)' },
  unix: { flag: 'unix', value: 'path', read: text, help: 'listen on a Unix domain socket instead' },
  unixMode: {
    flag: 'unix-mode',
    value: 'octal',
    read: octal,
    allowed: 'an octal number from 0 to 777, as in 660',
    help: 'permissions of the file of that socket (700)',
  },
  tls: {
    flag: 'tls',
    value: 'cert=file,key=file,...',
    read: texts,
    secret: true,
    allowed:
      'cert=file,key=file and some of ca=file, passphrase=text, minVersion=TLSv1.3, separated by commas',
    help: 'speak TLS with this certificate and nothing else; SIGHUP takes new ones into use',
  },
  trustProxy: {
    flag: 'trust-proxy',
    value: 'whom',
    read: (given) => {
      const one = number(given);
      if (typeof one === 'number') return one;
      return given === 'true' || given === 'false' ? yesOrNo(given) : list(given);
    },
    help: "proxies that are believed: 'true', how many, or addresses and CIDR ranges, separated by commas (false)",
  },
  proxyProtocol: {
    flag: 'proxy-protocol',
    value: 'whether',
    read: text,
    help: "PROXY protocol: 'enable', 'optional' or 'disable' (disable)",
  },
  proxyProtocolFrom: {
    flag: 'proxy-protocol-from',
    value: 'addresses',
    read: list,
    help: 'whose PROXY headers are taken, as for --trust-proxy (loopback and private addresses)',
  },
  dispatch: {
    flag: 'dispatch',
    value: 'where',
    read: either({ pool: true, inline: false }),
    allowed: "'pool' or 'inline'",
    help: "'pool': on worker threads; 'inline': on the I/O thread (pool)",
  },
  nMin: { flag: 'n-min', value: 'n', read: number, help: 'threads kept (cores - 1)' },
  nMax: { flag: 'n-max', value: 'n', read: number, help: 'threads at most (cores)' },
  queueSize: {
    flag: 'queue-size',
    value: 'n',
    read: number,
    help: 'requests that may wait for a thread; one more is answered 503 (1024)',
  },
  concurrency: {
    flag: 'concurrency',
    value: 'n',
    read: number,
    help: 'promises of handlers that may be pending in one thread (64)',
  },
  queueTimeout: {
    flag: 'queue-timeout',
    value: 'ms',
    read: number,
    help: 'how long a request may wait for a thread until it is answered 503; 0 = no limit (0)',
  },
  handlerTimeout: {
    flag: 'handler-timeout',
    value: 'ms',
    read: number,
    help: 'how long a handler may run until its request is answered 504; 0 = no limit (0)',
  },
  killAfter: {
    flag: 'kill-after',
    value: 'ms',
    read: number,
    help: 'from the 504 until a thread that is still stuck is ended and replaced (1000)',
  },
  maxBody: { flag: 'max-body', value: 'bytes', read: number, help: 'request body; more is a 413 (8388608)' },
  streamBody: {
    flag: 'stream-body',
    read: yesOrNo,
    help: 'start handlers before the request body is complete',
  },
  maxLine: {
    flag: 'max-line',
    value: 'bytes',
    read: number,
    help: 'request line (414) and each header line (431) (8192)',
  },
  maxWs: { flag: 'max-ws', value: 'bytes', read: number, help: 'WebSocket message (4194304)' },
  wsIdleTimeout: {
    flag: 'ws-idle-timeout',
    value: 'ms',
    read: number,
    help: 'without traffic until a WebSocket is closed; 0 = never (120000)',
  },
  wsCompression: {
    flag: 'ws-compression',
    value: 'how',
    read: (given) => yesOrNo(given),
    allowed: "'shared', 'dedicated', 'true' or 'false'",
    help: "permessage-deflate: 'shared', 'dedicated' or 'false' (false)",
  },
  niceIncrement: {
    flag: 'nice-increment',
    value: 'n',
    read: number,
    help: 'how much less urgent workers are than the process, on Linux (10)',
  },
  threadIdleTimeout: {
    flag: 'thread-idle-timeout',
    value: 'ms',
    read: number,
    help: 'a thread above --n-min may idle before it ends (30000)',
  },
  recycleAfter: {
    flag: 'recycle-after',
    value: 'requests=n,ms=n,heapMb=n',
    read: numbers,
    allowed: 'some of requests=n, ms=n, heapMb=n, separated by commas, each n above 0',
    help: 'replace a thread after so much (never)',
  },
  resourceLimits: {
    flag: 'resource-limits',
    value: 'maxOldGenerationSizeMb=n,...',
    read: numbers,
    allowed:
      'some of maxYoungGenerationSizeMb=n, maxOldGenerationSizeMb=n, codeRangeSizeMb=n, stackSizeMb=n, separated by commas, each n above 0',
    help: "heap limits of each thread (V8's own)",
  },
  execArgv: {
    flag: 'exec-argv',
    value: 'flag',
    read: text,
    many: true,
    help: 'Node flag of the threads, as in --exec-argv=--enable-source-maps',
  },
  batchMicros: {
    flag: 'batch-micros',
    value: 'us',
    read: number,
    help: 'expected work that travels to a thread at once (1000)',
  },
  prefix: {
    flag: 'prefix',
    value: 'text',
    read: text,
    help: 'of the names of the threads (offloop-worker-)',
  },
  serverHeader: {
    flag: 'server-header',
    value: 'text',
    read: (given) => (given === 'none' ? null : given),
    allowed: "a string of visible characters, or 'none'",
    help: "value of the Server header; 'none' = no such header (offloop)",
  },
  development: {
    flag: 'development',
    read: yesOrNo,
    help: 'show errors and their stacks to clients',
  },
  // The command line sets it for the processes of --processes.
  reusePort: null,
  // The threads have the environment of the process.
  env: null,
  // No plain values.
  workerPool: null,
  errorLogger: null,
  warnLogger: null,
  eventLogger: null,
  eventNames: null,
};

/** What the command line does with a server. */
export interface ServeOptions {
  processes: number;
  mount: string[];
  mountInline: string[];
  readyPath: string | undefined;
  statsPath: string | undefined;
  drainDelay: number;
  stopTimeout: number;
  quiet: boolean;
  watch: string[];
}

const MS = integer(0, 2 ** 31 - 1, 'whole milliseconds from 0 to 2^31 - 1');
const STRINGS: Rule = { allowed: 'text', ok: (v) => Array.isArray(v) };
const PATH: Rule = {
  allowed: "a path that starts with '/' and has no '?', '#' or white space",
  ok: (v) => typeof v === 'string' && /^\/[^\s?#]*$/.test(v),
};

/** Those that are no options of runServer, with their rules. */
export const OWN_FLAGS: Readonly<Record<keyof ServeOptions, Flag & { readonly rule: Rule }>> = {
  processes: {
    flag: 'processes',
    value: 'n',
    read: number,
    rule: integer(1, 256, 'a whole number from 1 to 256'),
    help: 'processes on the one port, each with threads of its own; Linux (1)',
  },
  mount: {
    flag: 'mount',
    value: '[host]/path=module',
    read: text,
    many: true,
    rule: STRINGS,
    help: 'a further module, for a path prefix; on the threads',
  },
  mountInline: {
    flag: 'mount-inline',
    value: '[host]/path=module',
    read: text,
    many: true,
    rule: STRINGS,
    help: 'the same, on the I/O thread',
  },
  readyPath: {
    flag: 'ready-path',
    value: 'path',
    read: text,
    rule: PATH,
    help: 'answered 200, and 503 from the signal to stop on (none)',
  },
  statsPath: {
    flag: 'stats-path',
    value: 'path',
    read: text,
    rule: PATH,
    help: 'answered with the numbers of the server as JSON (none)',
  },
  drainDelay: {
    flag: 'drain-delay',
    value: 'ms',
    read: number,
    rule: MS,
    help: 'how long to go on listening when told to stop, with --ready-path answering 503 (0)',
  },
  stopTimeout: {
    flag: 'stop-timeout',
    value: 'ms',
    read: number,
    rule: MS,
    help: 'what requests under way may take when the server stops (10000)',
  },
  quiet: {
    flag: 'quiet',
    read: yesOrNo,
    rule: { allowed: 'true or false', ok: (v) => typeof v === 'boolean' },
    help: 'no banner, no news; errors and warnings only',
  },
  watch: {
    flag: 'watch',
    value: 'folder',
    read: text,
    many: true,
    rule: STRINGS,
    help: 'folder to watch beside the modules and what they import',
  },
};

/** Name of the environment variable of a flag: OFFLOOP_QUEUE_SIZE for --queue-size. */
export const variableOf = ({ flag }: Flag): string => `OFFLOOP_${flag.replaceAll('-', '_').toUpperCase()}`;

/** As commander names the value of a flag: queueSize for --queue-size. */
const keyOf = ({ flag }: Flag): string => flag.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

/** The flag of an option, as users type it. */
export function flagOf(option: string): string {
  const found =
    (SERVER_FLAGS as Record<string, Flag | null>)[option] ?? (OWN_FLAGS as Record<string, Flag>)[option];
  return found ? `--${found.flag}` : option;
}

/** What commander has made of the arguments: text, switches, and lists of text. */
export type Given = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** The value of a flag: as given, else as the environment has it, else undefined. */
function readFlag(flag: Flag, rule: Rule, given: Given, env: NodeJS.ProcessEnv): unknown {
  const argument = given[keyOf(flag)];
  if (typeof argument === 'boolean') return argument;
  const variable = variableOf(flag);
  const fromEnv = env[variable];
  const where = argument === undefined ? variable : `--${flag.flag}`;
  const raw = argument ?? (fromEnv === '' ? undefined : fromEnv);
  if (raw === undefined) return undefined;
  const texts = typeof raw === 'string' ? (flag.many === true ? raw.split(/[\s,]+/) : [raw]) : raw;
  const value = flag.many === true ? texts.filter(Boolean) : flag.read(String(texts[0]));
  if (!rule.ok(value) || (flag.secret === true && typeof value === 'string')) {
    const shown = flag.secret === true ? 'something else' : JSON.stringify(raw);
    throw new UsageError(`${where} is ${shown}; allowed: ${flag.allowed ?? rule.allowed}.`);
  }
  return value;
}

export interface FromFlags {
  readonly server: ServerOptions;
  readonly own: ServeOptions;
  /** Variables that look as if they were meant for offloop and mean nothing to it. */
  readonly unknown: readonly string[];
}

/** Read all flags and variables. Throws a UsageError that names the flag or the variable, its value, and what is allowed. */
export function readFlags(given: Given, env: NodeJS.ProcessEnv): FromFlags {
  const server: Record<string, unknown> = {};
  const known = new Set<string>();
  for (const [option, flag] of Object.entries(SERVER_FLAGS)) {
    if (flag === null) continue;
    known.add(variableOf(flag));
    const value = readFlag(flag, OPTION_RULES[option as keyof ServerOptions], given, env);
    if (value !== undefined) server[option] = value;
  }
  const own: Record<string, unknown> = {};
  for (const [option, flag] of Object.entries(OWN_FLAGS)) {
    known.add(variableOf(flag));
    own[option] = readFlag(flag, flag.rule, given, env);
  }
  const unknown = Object.keys(env).filter((name) => name.startsWith('OFFLOOP_') && !known.has(name));
  return {
    server: server as ServerOptions,
    own: {
      processes: 1,
      mount: [],
      mountInline: [],
      drainDelay: 0,
      stopTimeout: 10_000,
      quiet: false,
      watch: [],
      readyPath: undefined,
      statsPath: undefined,
      ...Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined)),
    } as ServeOptions,
    unknown,
  };
}
