/**
 * The error catalogue. To the developer an error has a stable `code`, the value that was wrong and the cause; to the
 * client it is a status and a calm sentence with nothing of our insides. Which failure means which status is decided
 * here and nowhere else.
 */
import type { EventKey } from './options.js';
import type { ErrorRecord } from './protocol.js';

/** Every `code` offloop gives its own errors, with what to do about it. Each stands in docs/errors.md (a test looks). */
export const ERROR_CODES = {
  OFFLOOP_BAD_OPTION:
    'An option is unknown, of the wrong type or out of range; the message names it, its value and what is allowed.',
  OFFLOOP_FUNCTION_NEEDS_INLINE:
    'A function cannot cross threads: pass { dispatch: false } to run it inline, or the path of a module.',
  OFFLOOP_NO_HANDLER: 'The module was loaded but its default export is not a handler.',
  OFFLOOP_MODULE_NOT_FOUND: 'There is no file at the path of the handler module.',
  OFFLOOP_NO_ENGINE: 'No build of uWebSockets.js loads on this Node, platform and C library.',
  OFFLOOP_LISTEN_FAILED:
    'The address could not be bound; `code` is the system’s own (EADDRINUSE, EACCES, ...) where it is known.',
  OFFLOOP_BAD_TLS:
    'A certificate or a key cannot be read or used; the message says which, why, and what to do.',
  OFFLOOP_STOPPED: 'The server or the pool has been stopped and takes no more work.',
  OFFLOOP_OVERLOADED: 'Every thread is busy and the queue is full; the client got a 503 with Retry-After.',
  OFFLOOP_HANDLER_TIMEOUT:
    'The reason of `req.signal` when a handler has run for its handlerTimeout; the client got a 504.',
  OFFLOOP_HANDLER_STUCK:
    'A handler kept its worker from turning for killAfter beyond its handlerTimeout; the thread was ended.',
  OFFLOOP_THREAD_LOST: 'A thread was told to end and did not: it hangs in native code and cannot be freed.',
  OFFLOOP_WORKER_LOST:
    'The worker thread that ran the invocation ended before it answered; `cause` says why.',
  OFFLOOP_START_TIMEOUT: 'A worker did not become ready: its module or its onWorkerStart never finished.',
  OFFLOOP_NO_PROFILE:
    'A profile could not be taken: there is no such thread, it is being profiled already, or it does not answer.',
  OFFLOOP_BAD_RESPONSE:
    'A handler returned something that is no response, or one with a bad status, header, body or Content-Length.',
  OFFLOOP_BAD_CHANNEL:
    'A wrong call of asChannel, of a channel or of publish; the message says what is allowed.',
  OFFLOOP_BAD_REQUEST:
    'The request body is not what the handler asked for (JSON, form); uncaught it is answered 400.',
  OFFLOOP_REQUEST_TOO_LARGE:
    'The request body has grown larger than maxBody while it was being read; uncaught it is answered 413.',
  OFFLOOP_BODY_USED: 'The request body has been read through req.body, so it cannot be read as a whole.',
  OFFLOOP_BODY_TOO_LARGE:
    'A stream or a file for one WebSocket message is larger than 64 MiB; or more than 16 MiB wait for a client of a native handler.',
  OFFLOOP_MISSING_PACKAGE:
    'A middleware, or runDev, needs a package that is not installed; the message says which, and how to install it.',
  OFFLOOP_NOT_SHARED:
    'Sessions or counts were to be kept in the memory of a worker, which is one of several and not forever.',
  OFFLOOP_SESSION_TOO_LARGE: 'A session does not fit into the cookie that is to hold it.',
  OFFLOOP_FILE_CHANGED: 'A file became shorter while it was sent, so what was promised cannot be sent.',
  OFFLOOP_ABORTED: 'The reason of an aborted `req.signal`: the client is gone or the server stopped.',
} as const;
export type ErrorCode = keyof typeof ERROR_CODES;

/** An error of offloop's own. `code` is stable; the message may be reworded between versions. */
export class OffloopError extends Error {
  override readonly name: string = 'OffloopError';
  readonly code: string;
  constructor(code: ErrorCode | (string & {}), message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A wrong argument: bad option, function where a module is needed, module without a handler. */
export class OffloopTypeError extends TypeError {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

// ------------------------------------------------------------------------------------- what the client is told

export interface Refusal {
  readonly status: number;
  /** Plain text of the body; '' for none. */
  readonly text: string;
  /** Whether the connection is closed behind the answer. */
  readonly close: boolean;
  /** Key of the event it is counted under; without one it counts as an answer of its status. */
  readonly event: EventKey | undefined;
}

const refusal = (status: number, text: string, close: boolean, event?: EventKey): Refusal => ({
  status,
  text,
  close,
  event,
});

/** Every answer the server gives in its own name. Texts follow http-kit, but for the 500, which says nothing of the error. */
export const REFUSALS = {
  badRequest: (text: string): Refusal => refusal(400, text, true),
  notFound: refusal(404, '', false, 'serverStatus404'),
  bodyTooLarge: (size: number, max: number): Refusal =>
    refusal(413, `request body ${size}; max request body ${max}`, true, 'serverStatus413'),
  uriTooLong: (max: number): Refusal => refusal(414, `exceed max line ${max}`, true, 'serverStatus414'),
  headerTooLong: (max: number): Refusal => refusal(431, `exceed max line ${max}`, true, 'serverStatus431'),
  headTooLarge: (max: number): Refusal =>
    refusal(431, `HTTP headers exceed ${max} bytes`, true, 'serverStatus431'),
  failed: refusal(500, 'Internal Server Error', false, 'serverStatus500'),
  overloaded: refusal(503, 'Server unavailable, please try again', false, 'serverStatus503'),
  queueTimeout: refusal(503, 'Server unavailable, please try again', false, 'serverStatus503Waited'),
  noWorker: refusal(503, 'Server unavailable, please try again', false, 'serverStatus503NoWorker'),
  handlerTimeout: refusal(504, 'The request took too long', false, 'serverStatus504'),
  stopping: refusal(503, 'Server is shutting down', true, 'serverStatus503Stopping'),
} as const;

// --------------------------------------------------------------------------------------------- crossing threads

const BUILT_IN = new Map<string, ErrorConstructor>(
  [Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError].map((Class) => [
    Class.name,
    Class,
  ]),
);

const MAX_CAUSES = 8;

/** Turn whatever was thrown into a record that survives the way to another thread. Never throws. */
export function toErrorRecord(thrown: unknown, depth = 0): ErrorRecord {
  try {
    if (thrown !== null && typeof thrown === 'object') {
      const error = thrown as Partial<Error> & { code?: unknown };
      return {
        name: String(error.name ?? 'Error'),
        message: String(error.message ?? ''),
        stack: typeof error.stack === 'string' ? error.stack : undefined,
        code: typeof error.code === 'string' ? error.code : undefined,
        cause: error.cause == null || depth >= MAX_CAUSES ? undefined : toErrorRecord(error.cause, depth + 1),
      };
    }
    return { name: 'Error', message: String(thrown), stack: undefined, code: undefined, cause: undefined };
  } catch {
    // A hostile getter or toString. There is nothing better to say.
    return {
      name: 'Error',
      message: 'unprintable error',
      stack: undefined,
      code: undefined,
      cause: undefined,
    };
  }
}

/** Rebuild an error from its record: built-in classes come back as themselves, with stack, code and cause. */
export function fromErrorRecord(record: ErrorRecord): Error {
  const Class = BUILT_IN.get(record.name) ?? Error;
  const error = new Class(
    record.message,
    record.cause === undefined ? undefined : { cause: fromErrorRecord(record.cause) },
  );
  if (error.name !== record.name)
    Object.defineProperty(error, 'name', { value: record.name, configurable: true });
  if (record.stack !== undefined)
    Object.defineProperty(error, 'stack', { value: record.stack, configurable: true, writable: true });
  if (record.code !== undefined) Object.assign(error, { code: record.code });
  return error;
}
