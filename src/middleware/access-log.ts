/** A line for each request. */
import type { Writable } from 'node:stream';
import { integer, type Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { isThenable } from '../handlers/reasons.js';
import type { HttpRequest, Returns } from '../handlers/types.js';
import { sinkTo } from './log-sink.js';
import { hasChannel, logError, statusFor } from './request.js';
import { bodySize, Draft, type Result } from './response.js';
import { aFunction, checkOptions } from './rules.js';

/** What is known of a request when its handler has answered. */
export interface LogEntry {
  /** When the handler was called. */
  readonly time: Date;
  readonly remoteAddr: string;
  /** Who the client is, if {@link basicAuth} stands around this. */
  readonly user: string | null;
  /** If {@link requestId} stands around this. */
  readonly requestId: string | null;
  readonly method: string;
  /** Path and query as they came. */
  readonly target: string;
  readonly protocol: string;
  /** null where it is decided later: for files, and channels that are no WebSocket. */
  readonly status: number | null;
  /** Bytes of the body; null where they are not known yet. */
  readonly bytes: number | null;
  /** Ms from the call of the handler to its answer. */
  readonly ms: number;
  /** Whole ms the request had waited for a thread before that. */
  readonly queueMs: number;
  readonly referer: string | null;
  readonly userAgent: string | null;
}

export interface AccessLogOptions {
  /** 'common' and 'combined' as of Apache, 'json', or a function that makes the line, without its end. Default 'common'. */
  format?: 'common' | 'combined' | 'json' | ((entry: LogEntry) => string);
  /**
   * Where lines go: a file descriptor or the path of a file, written through the package sonic-boom; a stream; or a function.
   * Default 1, standard output.
   */
  to?: number | string | Writable | ((line: string, entry: LogEntry) => void);
  /** Bytes that may wait to be written; lines beyond it are dropped. Default 1 MiB. */
  maxWaiting?: number;
  /** Says which requests get no line. */
  skip?: (entry: LogEntry) => boolean;
}

const FORMATS = { common, combined, json: jsonLine };

const RULES: Record<keyof AccessLogOptions, Rule> = {
  format: {
    allowed: "'common', 'combined', 'json', or a function",
    ok: (v) => typeof v === 'function' || (typeof v === 'string' && Object.hasOwn(FORMATS, v)),
  },
  to: {
    allowed: 'a file descriptor above 0, the path of a file, a stream, or a function',
    ok: (v) =>
      (typeof v === 'number' && Number.isInteger(v) && v > 0) ||
      (typeof v === 'string' && v !== '') ||
      typeof v === 'function' ||
      (typeof v === 'object' && v !== null && typeof (v as Partial<Writable>).write === 'function'),
  },
  maxWaiting: integer(1, 2 ** 31 - 1, 'whole bytes from 1 to 2^31 - 1'),
  skip: aFunction,
};

/**
 * Writes a line for each request when its handler has answered, before the answer is on its way. Nothing waits for the log:
 * lines that cannot be written in time are dropped, and counted in the server's `errorLogger`. Each worker writes for itself.
 * @throws OFFLOOP_BAD_OPTION, OFFLOOP_MISSING_PACKAGE, or what opening the file throws.
 */
export function accessLog(options: AccessLogOptions = {}): Middleware {
  checkOptions('accessLog', options, RULES);
  const { format = 'common', to = 1, maxWaiting = 1024 * 1024, skip } = options;
  const lineOf = typeof format === 'function' ? format : FORMATS[format];
  const sink = typeof to === 'function' ? undefined : sinkTo(to, maxWaiting);

  const write = (req: HttpRequest, began: Date, start: number, outcome: Outcome): void => {
    try {
      const entry = entryOf(req, began, performance.now() - start, outcome);
      if (skip?.(entry) === true) return;
      const line = lineOf(entry);
      if (sink === undefined) (to as (line: string, entry: LogEntry) => void)(line, entry);
      else sink.write(`${line}\n`);
    } catch (error) {
      logError(req, 'accessLog: a line could not be written', error);
    }
    const complaint = sink?.complaint();
    if (complaint !== undefined) logError(req, complaint.message, complaint.error);
  };

  return (handler) => (req) => {
    const began = new Date();
    const start = performance.now();
    const failed = (error: unknown): never => {
      write(req, began, start, { status: statusFor(error, req) ?? 500, bytes: null });
      throw error;
    };
    const answered = (result: Result): Result => {
      write(req, began, start, outcomeOf(req, result));
      return result;
    };
    let result: Result | Promise<Result>;
    try {
      result = handler(req) as Returns | Promise<Returns>;
    } catch (error) {
      return failed(error);
    }
    return isThenable<Result>(result) ? (result.then(answered, failed) as Promise<Result>) : answered(result);
  };
}

interface Outcome {
  readonly status: number | null;
  readonly bytes: number | null;
}

function outcomeOf(req: HttpRequest, result: Result): Outcome {
  if (hasChannel(req)) return { status: req.isWebSocket ? 101 : null, bytes: null };
  if (result === null || result === undefined) return { status: 404, bytes: 0 };
  const draft = Draft.of(result);
  // A WebSocketResponse, or what the server will refuse.
  if (draft === null) return { status: req.isWebSocket ? 101 : null, bytes: null };
  const { body, status } = draft;
  const bytes = req.method === 'HEAD' || status === 204 || status === 304 ? 0 : bodySize(body);
  return { status: bytes === 'file' ? null : status, bytes: bytes === 'file' ? null : bytes };
}

function entryOf(req: HttpRequest, time: Date, ms: number, { status, bytes }: Outcome): LogEntry {
  const { headers, query } = req;
  const { user, requestId } = req as { user?: unknown; requestId?: unknown };
  return {
    time,
    remoteAddr: req.remoteAddr,
    user: typeof user === 'string' ? user : null,
    requestId: typeof requestId === 'string' ? requestId : null,
    method: req.method,
    target: query === null ? req.path : `${req.path}?${query}`,
    protocol: req.protocol,
    status,
    bytes,
    ms: Math.round(ms * 1000) / 1000,
    queueMs: req.queueTime,
    referer: headers['referer'] ?? null,
    userAgent: headers['user-agent'] ?? null,
  };
}

// ----------------------------------------------------------------------------------------------------------- formats

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const two = (n: number): string => String(n).padStart(2, '0');

/** As of Apache, in UTC. */
function clf(time: Date): string {
  const date = `${two(time.getUTCDate())}/${MONTHS[time.getUTCMonth()]}/${time.getUTCFullYear()}`;
  return `${date}:${two(time.getUTCHours())}:${two(time.getUTCMinutes())}:${two(time.getUTCSeconds())} +0000`;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what it is about
const UNSAFE = /["\\\x00-\x1f\x7f-\x9f]/g;
const UNSAFE_IN_JSON = /[\x7f-\x9f]/g;
const hex = (c: string, digits: number): string => c.charCodeAt(0).toString(16).padStart(digits, '0');

/** So that what a client sends can neither end its field or line, nor speak to a terminal. */
function safe(text: string | null): string {
  if (text === null || text === '') return '-';
  return text.replace(UNSAFE, (c) => `\\x${hex(c, 2)}`);
}
const word = (text: string | null): string => safe(text).replaceAll(' ', '\\x20');

function common(entry: LogEntry): string {
  const { remoteAddr, user, time, method, target, protocol, status, bytes } = entry;
  const request = `${safe(method)} ${safe(target)} ${protocol}`;
  return `${word(remoteAddr)} - ${word(user)} [${clf(time)}] "${request}" ${status ?? '-'} ${bytes ?? '-'}`;
}

function combined(entry: LogEntry): string {
  return `${common(entry)} "${safe(entry.referer)}" "${safe(entry.userAgent)}"`;
}

function jsonLine(entry: LogEntry): string {
  return JSON.stringify(entry).replace(UNSAFE_IN_JSON, (c) => `\\u${hex(c, 4)}`);
}
