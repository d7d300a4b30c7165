/**
 * The plain data that crosses threads, and the door between the rooms. Imports nothing.
 *
 * Two tagged unions travel on a lane (one MessagePort per worker): a {@link Notice} goes from the I/O thread to the
 * worker, a {@link Command} from the worker to the I/O thread. Both are structured-cloned, so they hold strings,
 * numbers, bytes and flat arrays only. An unknown tag is a bug and shouts.
 */

// ------------------------------------------------------------------------------------------------ the request head

/**
 * A request head, packed into one string so that it is copied across threads in one go. Lines are separated by `\n`,
 * which the engine lets through nowhere in a request head:
 *
 * ```text
 * method \n path \n query \n remoteAddr \n scheme \n context [\n name \n value]...
 * ```
 *
 * `query` is empty when the target had no `?`, and starts with `?` when it had one. `remoteAddr` may be
 * {@link ASK_ADDRESS}. Behind the scheme there may be a space and, as JSON, which proxies are believed. Header names are lower-case; duplicates are still separate here, the reader joins them.
 */
export type PackedHead = string;

/**
 * In place of the address in a packed head: whoever wants it has to ask. The engine hands out addresses at a tenth of
 * the price of a whole cheap request, and few handlers look.
 */
export const ASK_ADDRESS = '*';

/** Index of the first header line in a split {@link PackedHead}. */
export const HEAD_FIELDS = 6;

// ------------------------------------------------------------------------------------------------------ the answer

/**
 * What follows the head of an answer.
 *
 * - string, bytes: the body; its true length becomes Content-Length.
 * - number: no bytes, but `Content-Length: n` (0 for an empty body; the length of the body left out for HEAD).
 * - null: no bytes and no Content-Length (204, 304).
 */
export type Payload = string | Uint8Array | number | null;

/** The handler asked for `Connection: close`. */
export const FLAG_CLOSE = 1;
/** The handler set its own `Server` header. */
export const FLAG_SERVER = 2;
/** The handler returned nothing: a 404 that is counted under its own event name. */
export const FLAG_NOTHING = 4;

/** Of a channel: status and head are those its line has been given before, see {@link ChannelLine.preset}. */
export const FLAG_PRESET = 8;

/**
 * An encoded answer. `head` holds the header lines joined by `\r\n`, without a trailing one; every name and value in
 * it has been checked by the encoder, so that the writer may put it on the wire as it is.
 */
export interface Answer {
  readonly status: number;
  readonly head: string;
  readonly payload: Payload;
  readonly flags: number;
  /** Nobody else has the buffer its bytes lie in, so that it can change hands instead of being copied. */
  readonly owned?: boolean;
}

// -------------------------------------------------------------------------------------------------------- the door

/** Request bodies of at least this many bytes lie in shared memory; smaller ones are cheaper to copy. */
export const SHARE_FROM = 4096;

/**
 * One request on its way through a dispatcher, seen from the dispatcher. Owned by the I/O thread, implemented by the
 * Exchange in src/io and by fakes in tests. Exactly one of `answer`, `fail` and `refuse` is called, once, on the I/O thread.
 */
export interface Invocation {
  readonly isHead: boolean;
  /** Put together when first read: an inline handler that looks at nothing never needs it. */
  readonly head: PackedHead;
  /**
   * The whole request body, or null when there is none. Its buffer is exactly as large and, from {@link SHARE_FROM} bytes
   * on, shared if it is for other threads: it crosses without a copy, and is still here if the invocation has to be given
   * to another worker.
   */
  readonly body: Uint8Array | null;
  /** Set instead while the body is not complete: whoever runs the handler takes it from there. */
  readonly incoming?: IncomingBody | null;
  /**
   * The peer's address, or '' when the client is gone. Asking once makes later heads for the same mount carry it.
   */
  addressOf(): string;
  answer(status: number, head: string, payload: Payload, flags: number): void;
  /** The handler threw, or the thread it ran on died: a calm 500 for the client, `error` for the error logger. */
  fail(error: unknown): void;
  /**
   * The handler wants to go on talking: no answer follows, what is said from now on goes through the line. `accept` says
   * how an upgrade to WebSocket is answered, null for plain HTTP. Null when there is nobody to talk to any more.
   */
  openChannel(id: string, owner: ChannelOwner, accept: Accept | null): ChannelLine | null;
  /** The handler has answered with a body that comes bit by bit. Null when nobody waits for it any more. */
  openBody(owner: BodyOwner): BodyLine | null;
  /** The handler wants no answer to be given: cut the connection. */
  cut?(): void;
  /** It will not be run, or nobody waits for it any more: the answer that stands for this. */
  refuse(reason: RefusalReason, detail: RefusalDetail): void;
}

// -------------------------------------------------------------------------------------------------------- bodies

/**
 * Bytes of a body that may be on their way to its handler, or wait there, before it takes them; and as many may wait for
 * it before it has begun to read. One read of the engine more, 512 KiB, may be on top: it comes as a whole.
 */
export const BODY_WINDOW = 512 * 1024;

/** Where the handler of a request gets a body from that was not complete when the handler started. */
export interface BodySource {
  /**
   * So many bytes more may come, to `sink`. The first call names it; nothing comes before. `waiting`: all that has come has been
   * taken, and the handler waits for more.
   */
  pull(sink: BodySink, bytes: number, waiting: boolean): void;
  /** Nobody wants the rest. Nothing comes any more. */
  cancel(): void;
}

/** Who gets it. `data` as often as it takes, until `last`; or `broken`, once, and nothing else after that. */
export interface BodySink {
  /** The memory is the sink's from now on. No chunk is empty, but there may be none when it is the last call. */
  data(chunks: readonly Uint8Array<ArrayBuffer>[], last: boolean): void;
  broken(problem: BodyProblem): void;
}

/** Why the rest of a body will not come. */
export type BodyProblem =
  /** The client went away, or broke its framing. */
  | { readonly kind: 'gone' }
  /** The request has been answered: what is left of the body is thrown away. */
  | { readonly kind: 'answered' }
  /** It has grown larger than `maxBody`. */
  | { readonly kind: 'too-large'; readonly size: number; readonly max: number };

/** A body that is still coming, on the I/O thread. */
export interface IncomingBody extends BodySource {
  /** Ms for which the handler has had to wait for the client so far. */
  readonly waited: number;
}

/** In place of a body in a batch: it is not complete, and is asked for with `read`. */
export const BODY_FOLLOWS = -1;
/** Another number is the length of a small one, which lies with others: see Parcel. */
export type BatchBody = Uint8Array | number | null;

/** Why the dispatcher answers in the server's own name. What each says to the client stands in errors.ts. */
export type RefusalReason =
  /** Every thread is busy and the queue full. */
  | 'overloaded'
  /** It has waited for `queueTimeout`. */
  | 'queueTimeout'
  /** Its handler has run for `handlerTimeout`. */
  | 'handlerTimeout'
  /** No worker can start. */
  | 'noWorker'
  | 'stopping';

export interface RefusalDetail {
  /** Whole seconds after which the client may try again, at least 1; 0 when trying again is no use. */
  readonly retryAfter: number;
  /** What is behind it; told to the client in development only. */
  readonly cause?: unknown;
}

/** An accepted invocation, seen from src/io. */
export interface Accepted {
  /** The client is gone: forget it if it is still waiting, tell its `signal` if it runs. No answer follows. */
  cancel(): void;
}

/** How long what is dispatched may take, in ms; 0 = as long as it likes. */
export interface TimeLimits {
  /** From admission until a thread begins with it: 503. */
  readonly queueTimeout: number;
  /** From when it is given to a thread, a few ms before it starts at worst: 504. */
  readonly handlerTimeout: number;
  /** After the 504 until a thread whose event loop is still stuck is ended. */
  readonly killAfter: number;
}

/** The door between sockets and threads: each mount has one. */
export interface Dispatcher {
  /** Whether handlers run on other threads than the I/O thread. */
  readonly crossesThreads: boolean;
  /** Run it when there is a thread for it. Returns null when that is out of the question: it has been refused by then. */
  dispatch(invocation: Invocation): Accepted | null;
  /** The mount is gone: no more invocations will come. */
  close(): void;
}

// -------------------------------------------------------------------------------------------------------- channels

/** The answer to a WebSocket handshake: checked header lines joined by CRLF, and the subprotocol or ''. */
export interface Accept {
  readonly head: string;
  readonly protocol: string;
}

/**
 * Why a channel ended, in http-kit's words. `server-close`: by this side. `client-close`: the client of an HTTP channel
 * is gone. The rest: what the close code of the WebSocket means.
 */
export type ChannelStatus =
  | 'server-close'
  | 'client-close'
  | 'normal'
  | 'going-away'
  | 'protocol-error'
  | 'unsupported'
  | 'no-status-received'
  | 'abnormal'
  | 'invalid-payload-data'
  | 'policy-violation'
  | 'message-too-big'
  | 'mandatory-extension'
  | 'internal-server-error'
  | 'unknown';

/** The I/O side of a channel, as its owner sees it. Calls on one that is closed do nothing. I/O thread. */
export interface ChannelLine {
  /** Nothing may be sent before the callback that tells of an event has returned: who would, does it a turn later. */
  readonly defers?: boolean;
  readonly id: string;
  /** A whole HTTP response, which ends the channel. */
  answer(status: number, head: string, payload: Payload, flags: number): void;
  /** The head of an HTTP response whose body comes bit by bit: `length` bytes of it, or chunked when that is null. */
  start(status: number, head: string, flags: number, length: number | null): void;
  /**
   * A bit of the body, or a message. `track`: say when everything up to here has left, see {@link ChannelOwner}. Bytes are not
   * changed from here on.
   */
  send(data: string | Uint8Array, track: boolean): void;
  /** Let what `work` sends leave together. */
  together(work: () => void): void;
  /** Finish the response, cut it for {@link CUT}, or close the WebSocket with this code and reason. */
  close(code: number, reason: string): void;
  subscribe(topic: string): void;
  unsubscribe(topic: string): void;
  /** More has come than its handler can take: close a WebSocket with 1013. */
  overflow(): void;
  /** Its handler has to go: close a WebSocket with 1012, cut a response. */
  abandon(): void;
  /** Its handler is gone: report that, and abandon it. */
  lose(): void;
  /** HTTP: status and head of what is sent before its handler has sent anything. */
  preset(status: number, head: string, flags: number): void;
  /** HTTP: what is answered when the server stops before anything has been sent. */
  presetStop(status: number, head: string, payload: Payload, flags: number): void;
  readonly flow: ChannelFlow;
}

/** How far a channel has come. */
export interface ChannelFlow {
  readonly isWebSocket: boolean;
  readonly isHead: boolean;
  /** HTTP: the head of the response is out. */
  readonly started: boolean;
  /** Bytes sent since it was opened. */
  readonly sent: number;
  /** Those of them that wait for the client to read, or a few more. */
  readonly waiting: number;
}

/** Who has the callbacks of a channel, as src/io sees it. I/O thread. */
export interface ChannelOwner {
  message(line: ChannelLine, data: ArrayBuffer, isText: boolean): void;
  ping(line: ChannelLine, data: ArrayBuffer): void;
  /** All that had been sent when this was asked for has left: so many bytes since the channel was opened. */
  flowed(line: ChannelLine, total: number): void;
  /** The last event, exactly once. Resolves when its callback has run, or never will. */
  closed(
    line: ChannelLine,
    status: ChannelStatus,
    code: number,
    reason: string,
  ): Promise<unknown> | undefined;
}

/**
 * Where the thread that reads a body puts it, bit by bit. Its answer is out of the hands of its handler; it has no callbacks
 * and no topics, and is nobody's channel. Calls on one that is closed do nothing.
 */
export interface BodyOutlet {
  /** The head: `length` bytes follow, or chunks when that is null. */
  start(status: number, head: string, flags: number, length: number | null): void;
  /** Bytes are the outlet's from here on. `track`: say when everything up to here has left. */
  send(data: Uint8Array, track: boolean): void;
  /** That was all of it. */
  end(): void;
  /** The rest will never come: log why, and cut the connection, so that nobody takes it for the whole. */
  fail(error: unknown): void;
}

/** The I/O side of a body. */
export interface BodyLine extends BodyOutlet {
  /** When anything of it was last given or taken, on the performance.now() clock. */
  readonly movedAt: number;
}

/** Bytes of a body that are sent at once. Memory of exactly that size goes back to the thread it came from. */
export const BODY_CHUNK = 64 * 1024;

/** Who reads a body, as src/io sees it. I/O thread. */
export interface BodyOwner {
  /** So many bytes of it have left, see `track` above. `spare`: memory it was sent in that is of no more use here. */
  flowed(total: number, spare: ArrayBuffer[]): void;
  /** The last one. `whole`: it has been ended; else nobody wants the rest. */
  closed(line: BodyLine, whole: boolean): void;
}

/** Where published data reaches subscribers: every server is one. I/O thread. */
export interface TopicHost {
  publish(topic: string, data: string | Uint8Array, close: boolean, except: string): void;
}

/**
 * What the thread of a handler asks of the I/O thread for its channels and bodies: five fields for each, in one flat array.
 * Bytes are the line's: whoever asks has made them for that, keeps nothing of them, and they are whole buffers.
 */
export const OP = {
  /** id, number of the invocation, lines of the 101 or null, subprotocol; for a defined channel `\n name \n state` behind it. */
  open: 0,
  /** id, number of the invocation, microseconds. The handler has returned, its channel or its body answers. */
  done: 1,
  /** id, status + 1024 * flags, head, payload. */
  answer: 2,
  /** id, status + 1024 * flags, head, bytes of the body or null. */
  start: 3,
  /** id, data, track. */
  send: 4,
  /** id, code, reason. {@link CUT} for a code: a response that has failed. */
  close: 5,
  /** id, topic. */
  subscribe: 6,
  unsubscribe: 7,
  /** id of a channel that is left out or '', topic, data, close. */
  publish: 8,
  /** id, status + 1024 * flags, head: see {@link ChannelLine.preset}. */
  preset: 9,
  /** id, status + 1024 * flags, head, payload: see {@link ChannelLine.presetStop}. */
  presetStop: 10,
  /** id, state or null. The first callback of a defined channel is through. */
  settled: 11,
  /** id, number of the event, microseconds, state or null. An event of a defined channel is through. */
  handled: 12,
  /**
   * A {@link BodyOutlet}. Ops of its own, so that nobody who makes up the id of a channel writes into a response.
   * id, number of the invocation it answers.
   */
  openBody: 13,
  /** id, status + 1024 * flags, head, bytes of the body or null. */
  startBody: 14,
  /** id, data, track. */
  sendBody: 15,
  /** id. It is complete. */
  endBody: 16,
} as const;
export const OP_FIELDS = 5;
/** Where data that is sent stands among the fields of its op. */
const SENT = 2;
/** Whether this field is data that is sent: never a number, so that the length of it can stand there. */
export function isSent(ops: readonly OpField[], at: number): boolean {
  const op = ops[at - SENT];
  return at % OP_FIELDS === SENT && (op === OP.send || op === OP.sendBody);
}
/** In place of a close code: what was sent of a response is not all of it, and its client shall know. */
export const CUT = 0;
export type OpField = string | number | boolean | Uint8Array | null;

/** In place of a target: the record of a batch is an event of a channel, `id \n kind rest`; see {@link EVENT}. */
export const EVENT_TARGET = -1;
/** Kinds of events: what stands behind the id in a record. */
export const EVENT = {
  /** A short text message: the rest of the record. */
  text: 't',
  /** A text message in the body of the record. */
  longText: 'T',
  /** A binary message in the body. */
  binary: 'b',
  /** A ping; its payload is the body. */
  ping: 'p',
  /** The end: status, code and reason, separated by `\n`. */
  close: 'c',
  /**
   * An event of a defined channel, of which the worker knows nothing yet. The kind it would have otherwise, then
   * `name \n flags \n sent \n waiting \n state \n rest`, see {@link ChannelFlow} and {@link DEFINED}.
   */
  defined: '*',
} as const;
/** Flags in the event of a defined channel. */
export const DEFINED = { webSocket: 1, head: 2, started: 4 } as const;

// -------------------------------------------------------------------------------------------------------- the lane

/** An error made fit for crossing threads: structured clone would lose its class, `code` and other properties. */
export interface ErrorRecord {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  readonly code: string | undefined;
  readonly cause: ErrorRecord | undefined;
}

/**
 * The invocations given to a worker at once, packed into one string: cloning it costs a third less than cloning what is in
 * it. `first+time \0 target[+waited] \n head [\0 target[+waited] \n head]...`, the numbers on the lane being `first`, `first + 1`, ...; see
 * batch.ts. A head holds no `\0`, since the engine lets none through.
 */
export type PackedBatch = string;

export type Notice =
  /** Invocations without bodies, the usual case. */
  | PackedBatch
  /** `bodies` has an entry for each invocation, `small` is a Parcel of the small ones. */
  | {
      readonly kind: 'batch';
      readonly packed: PackedBatch;
      readonly bodies: readonly BatchBody[];
      readonly small: Uint8Array;
    }
  /** More of the body of an invocation that has asked for it. The chunks are transferred. */
  | {
      readonly kind: 'body';
      readonly seq: number;
      readonly chunks: readonly Uint8Array<ArrayBuffer>[];
      readonly last: boolean;
    }
  /** The rest of it will not come. */
  | { readonly kind: 'body-broken'; readonly seq: number; readonly problem: BodyProblem }
  /** The client of a running invocation is gone. */
  | { readonly kind: 'cancel'; readonly seq: number }
  /**
   * All that a channel or a body had sent when it asked has left the server: `total` bytes since it was opened. -1: the
   * channel is closed, and what has not left never will. `spare` has come from there and is transferred back.
   */
  | {
      readonly kind: 'flowed';
      readonly id: string;
      readonly total: number;
      readonly spare?: readonly ArrayBuffer[];
    }
  /** Nobody wants the rest of a body. */
  | { readonly kind: 'unwanted'; readonly id: string }
  /** A running invocation has used up its time: its signal fires. Answered by `alive`, by a loop that turns. */
  | { readonly kind: 'timeout'; readonly seq: number; readonly ms: number }
  /** Import a handler module and run its onWorkerStart; answered by `loaded` or `load-failed`. */
  | { readonly kind: 'load'; readonly target: number; readonly url: string }
  /** No more work will come: run onWorkerStop and end. Sent only when nothing is outstanding or time is up. */
  | { readonly kind: 'retire' };

/** In place of the status of an answer: the handler returned a promise, its answer comes later. */
export const STATUS_PENDING = 0;
/** The same: the handler answers through a channel, or with a body that is under way. */
export const STATUS_TAKEN = 1;

export type Command =
  /** There is something in the outbox: see outbox.ts. Most answers go that way. A bare string is the cheapest to send. */
  | 'look'
  /** What channels ask for, in order: see {@link OP}. In place of small data that is sent stands its length; it lies in `small`, a Parcel. */
  | { readonly kind: 'channels'; readonly ops: OpField[]; readonly small: Uint8Array | undefined }
  /** An answer that does not fit the outbox. `micros` is how long the invocation has held the thread. */
  | {
      readonly kind: 'answer';
      readonly seq: number;
      readonly status: number;
      readonly head: string;
      readonly payload: Payload;
      readonly flags: number;
      readonly micros: number;
    }
  /** The source of a body failed when the head was out. What was sent of it before has come. */
  | { readonly kind: 'body-failed'; readonly id: string; readonly error: ErrorRecord }
  /** The handler threw, or its promise was rejected. */
  | { readonly kind: 'failed'; readonly seq: number; readonly error: ErrorRecord; readonly micros: number }
  /** A handler reads the address of the peer of a running invocation, and waits for it: see {@link AddressSlot}. */
  | { readonly kind: 'address'; readonly seq: number }
  /** A handler reads a body that was not complete: see {@link BodySource}. */
  | { readonly kind: 'read'; readonly seq: number; readonly bytes: number; readonly waiting: boolean }
  /** It wants no more of it. */
  | { readonly kind: 'unread'; readonly seq: number }
  | { readonly kind: 'ready'; readonly threadId: number }
  /** The event loop turns: it has come to the `timeout` of this invocation. */
  | { readonly kind: 'alive'; readonly seq: number }
  | { readonly kind: 'loaded'; readonly target: number }
  | { readonly kind: 'load-failed'; readonly target: number; readonly error: ErrorRecord }
  /** Something failed in the worker outside any invocation; the worker goes on. */
  | { readonly kind: 'stray-error'; readonly message: string; readonly error: ErrorRecord }
  /** An uncaught exception: the worker wants no new work, see {@link WorkerStart}. */
  | { readonly kind: 'poisoned'; readonly error: ErrorRecord };

// Fields of the board, the few numbers that a worker and the I/O thread share.

/**
 * The number of the next invocation nobody has claimed. The worker claims invocation n by moving it from n to n + 1, the
 * I/O thread takes the unstarted rest back by moving it to the end of what it gave. Whoever's compare-and-swap succeeds
 * owns the invocation, so nothing runs twice, and after a crash it is known what started.
 */
export const BOARD_CLAIM = 0;
/** KiB of JavaScript heap in use, written by the worker about once a second. */
export const BOARD_HEAP = 1;
export const BOARD_LENGTH = 2;

/** What a worker is given when it starts: the argument of the one Piscina task that is its whole life. */
export interface WorkerStart {
  /** The worker's end of the lane, transferred. */
  readonly lane: unknown;
  /** See {@link BOARD_CLAIM} and {@link BOARD_HEAP}. */
  readonly board: Int32Array;
  readonly address: AddressSlot;
  /** Memory of the ring its answers go through, see outbox.ts. */
  readonly outbox: SharedArrayBuffer;
  readonly name: string;
  /** Ids of its channels begin with this, so that they are unique in the process. */
  readonly channelPrefix: string;
  readonly modules: readonly { readonly target: number; readonly url: string }[];
}

/**
 * Shared memory through which a worker gets the answer to an `address` command while its handler waits: [0] is the
 * length, or -1 until it is there, then one character each. The I/O thread never waits for a worker, so this cannot
 * deadlock.
 */
export type AddressSlot = Int32Array;
/** Long enough for an IPv6 address with an embedded IPv4 one, the longest there is. */
export const ADDRESS_SLOT_LENGTH = 1 + 64;
