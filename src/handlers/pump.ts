/**
 * Sends bodies that do not go out as a whole: read from their source as their clients take them, on the thread of the
 * handler. There are never more than so many bytes of one on their way, wherever they lie.
 */
import { sizeOf } from '../bytes.js';
import { type Answer, BODY_CHUNK, type BodyOutlet } from '../protocol.js';
import { type Begun, Gather, SLICE, type Unread } from './gather.js';
import { clientGone, isThenable, TAKEN } from './reasons.js';
import type { RingRequest } from './request.js';
import { asChunk, type Chunk, type Measure, ownBytes, type Result, type Source } from './source.js';
import { copyToSend } from './spare.js';
import type { HttpResponse } from './types.js';

/** Bytes of one body that may be on their way. A chunk of up to {@link PIECE} more is taken as a whole. */
export const WINDOW = 256 * 1024;
/** The same for all bodies of a thread: with more than 256 of them each has less. */
const TOGETHER = 64 * 1024 * 1024;
/** Bodies that a thread sends at the same time; further ones wait for their turn. */
export const BODIES = 1024;
/** Small chunks are put together to so many bytes; larger ones go piece by piece. */
const PIECE = BODY_CHUNK;
/** From so many bytes on a chunk goes by itself. */
const LARGE = 16 * 1024;
const NO_BYTES = new Uint8Array(0);

/** What a body asks of the thread it is read on. */
export interface BodyOpener {
  /** Answer the request with this body. Null when nobody waits for it any more. */
  openBody(body: OpenBody, request: RingRequest): BodyOutlet | null;
  /** Call this before what the current turn of the loop has asked for is sent. */
  beforeSending(work: () => void): void;
  log(message: string, error: unknown): void;
}

/** A body as its thread sees it. */
export interface OpenBody {
  /** So many bytes of it have left the server. */
  flowed(total: number): void;
  /** Nobody wants the rest. */
  unwanted(): void;
}

/**
 * Answer a request with a body that is still to be read. The answer is there when it is known that it is small, or when the
 * head is out; it rejects when the source fails before that.
 */
export function sendBody(
  unread: Unread,
  req: RingRequest,
  opener: BodyOpener,
  response: object,
): Answer | Promise<Answer> {
  const gather = new Gather(unread);
  let known: Answer | Begun | Promise<Answer | Begun>;
  try {
    known = gather.run();
  } catch (error) {
    writeFailed(error, req, opener, response);
    throw error;
  }
  if (!isThenable<Answer | Begun>(known)) return begin(known, req, opener, response);
  req._sending = gather;
  return known.then(
    (known) => {
      req._sending = undefined;
      return begin(known, req, opener, response);
    },
    (error: unknown) => {
      req._sending = undefined;
      // One that has been told to stop has not failed.
      if (!req._aborted) writeFailed(error, req, opener, response);
      throw error;
    },
  );
}

function begin(
  known: Answer | Begun,
  req: RingRequest,
  opener: BodyOpener,
  response: object,
): Answer | Promise<Answer> {
  if (!('unread' in known)) return known;
  const turn = bodies.enter();
  if (turn === undefined) return new Body(known, req, opener, response).start(known);
  // Its handler is not done before that: so it counts, and handlerTimeout is for it.
  req._sending = turn;
  return turn.promise.then(
    () => {
      req._sending = undefined;
      return new Body(known, req, opener, response).start(known);
    },
    (reason: unknown) => {
      known.unread.source.letGo(false, reason);
      throw reason;
    },
  );
}

/** Tell a response that it could not be sent. Its handler may be told more than the log. */
export function writeFailed(error: unknown, req: RingRequest, opener: BodyOpener, response: object): void {
  try {
    const { onWriteError } = response as HttpResponse;
    const told: unknown = onWriteError?.(error, req, response as HttpResponse);
    if (isThenable(told)) told.then(undefined, (reason: unknown) => failedAgain(reason, req, opener));
  } catch (reason) {
    failedAgain(reason, req, opener);
  }
}

function failedAgain(error: unknown, { method, path }: RingRequest, opener: BodyOpener): void {
  opener.log(`${method} ${path}: onWriteError failed`, error);
}

class Body implements OpenBody {
  /** Waits for its turn in {@link turns}. */
  queued = false;

  private readonly source: Source;
  private readonly measure: Measure;
  private outlet: BodyOutlet | undefined;
  private over = false;
  /** Bytes given away, those of which it is known that they have left, and up to where word was asked for. */
  private sent = 0;
  private gone = 0;
  private tracked = 0;
  /** What is left of the last chunk. */
  private rest: Chunk | undefined;
  private at = 0;
  /** What would make it complete. It waits until it is certain that it does. */
  private held: Uint8Array | undefined;
  private ended = false;
  /** The source has been asked. */
  private reading = false;
  private until = 0;

  constructor(
    { unread, measure }: Begun,
    private readonly req: RingRequest,
    private readonly opener: BodyOpener,
    private readonly response: object,
  ) {
    this.source = unread.source;
    this.measure = measure;
  }

  /** Send the head and what has been read. */
  start({ unread, parts, last, reading }: Begun): Answer {
    this.req._answered = true;
    const outlet = this.opener.openBody(this, this.req);
    if (outlet === null) {
      this.source.letGo(false, clientGone());
      bodies.leave();
      return TAKEN;
    }
    const { status, head, flags, length } = unread;
    this.outlet = outlet;
    outlet.start(status, head, flags, length);
    try {
      for (const part of parts) this.put(part);
      if (last !== undefined) this.hold(last);
    } catch (error) {
      this.fail(error, false);
      return TAKEN;
    }
    if (reading === undefined) turns.add(this);
    else this.wait(reading);
    return TAKEN;
  }

  // -------------------------------------------------------------------------------------------------------- reading

  /** Read on, until there is no room, nothing there, or no time. */
  go(until: number): void {
    this.until = until;
    try {
      this.read();
    } catch (error) {
      this.fail(error, false);
    }
  }

  private read(): void {
    while (!this.over && !this.reading) {
      if (!this.hasRoom) this.flush();
      if (!this.hasRoom) {
        // `flowed` goes on then.
        this.askForWord();
        return;
      }
      if (this.rest === undefined) this.ask();
      else this.takePiece(this.rest);
      if (performance.now() > this.until) {
        if (!this.reading) turns.add(this);
        return;
      }
    }
  }

  private ask(): void {
    let result: Result | PromiseLike<Result>;
    try {
      result = this.source.next();
    } catch (error) {
      this.fail(error, true);
      return;
    }
    if (isThenable<Result>(result)) this.wait(Promise.resolve(result));
    else this.take(result);
  }

  private wait(result: Promise<Result>): void {
    this.reading = true;
    result.then(this.got, this.lost);
  }

  private readonly got = (result: Result): void => {
    this.reading = false;
    if (this.over) return;
    try {
      this.take(result);
      if (performance.now() < this.until) this.read();
      else turns.add(this);
    } catch (error) {
      this.fail(error, false);
    }
  };

  private readonly lost = (error: unknown): void => this.fail(error, true);

  private take(result: Result): void {
    if (result.done === true) this.end();
    else this.accept(asChunk(result.value));
  }

  private accept(chunk: Chunk): void {
    const { measure } = this;
    if (measure.length !== null) measure.add(sizeOf(chunk));
    this.hold(chunk);
  }

  private hold(chunk: Chunk): void {
    if (typeof chunk === 'string' ? chunk.length <= LARGE : chunk.byteLength <= PIECE) {
      this.put(chunk);
    } else {
      this.rest = chunk;
      this.at = 0;
    }
  }

  /** Of what is too large to be taken as a whole. Its source is not asked for more before all of it has been taken. */
  private takePiece(rest: Chunk): void {
    const from = this.at;
    if (typeof rest === 'string') {
      let to = Math.min(rest.length, from + LARGE);
      // Not between the two halves of a character.
      if (to < rest.length && (rest.charCodeAt(to - 1) & 0xfc00) === 0xd800) to--;
      this.at = to;
      this.put(rest.slice(from, to));
    } else {
      this.at = Math.min(rest.byteLength, from + PIECE);
      this.put(rest.subarray(from, this.at));
    }
    if (this.at === rest.length) this.rest = undefined;
  }

  // -------------------------------------------------------------------------------------------------------- sending

  private get window(): number {
    return Math.min(WINDOW, TOGETHER / bodies.open);
  }
  private get hasRoom(): boolean {
    return this.sent + scratch.heldFor(this) - this.gone < this.window;
  }

  private put(chunk: Chunk): void {
    if (typeof chunk === 'string' || chunk.byteLength < LARGE) {
      scratch.add(this, chunk);
      return;
    }
    this.flush();
    const isWhole = chunk.buffer instanceof ArrayBuffer && chunk.byteLength === chunk.buffer.byteLength;
    this.give(this.source.owned && isWhole ? chunk : copyToSend(chunk));
  }

  /** Give away what has been put together. */
  readonly flush = (): void => {
    const bytes = scratch.take(this);
    if (bytes !== undefined) this.give(bytes);
  };

  private give(bytes: Uint8Array): void {
    if (!this.ended && this.sent + bytes.byteLength === this.measure.length) {
      this.held = bytes;
      return;
    }
    this.sent += bytes.byteLength;
    // Twice a window: the one half is being sent while the other is read.
    const track = this.sent - this.tracked >= this.window / 2;
    if (track) this.tracked = this.sent;
    this.outlet?.send(bytes, track);
  }

  /** There is no room: see that word comes when there is. The window may have become smaller since. */
  private askForWord(): void {
    if (this.tracked > this.gone && this.sent - this.tracked < PIECE) return;
    this.tracked = this.sent;
    this.outlet?.send(NO_BYTES, true);
  }

  flowed(total: number): void {
    this.gone = total;
    if (!this.over && !this.reading) turns.add(this);
  }

  // ---------------------------------------------------------------------------------------------------------- ending

  private end(): void {
    this.source.letGo(true);
    this.measure.end();
    this.ended = true;
    this.flush();
    if (this.held !== undefined) this.give(this.held);
    if (this.over) return;
    this.close();
    this.outlet?.end();
  }

  /** `ended`: the source itself has failed. */
  private fail(error: unknown, ended: boolean): void {
    if (this.over) return;
    this.source.letGo(ended, error);
    this.close();
    this.outlet?.fail(error);
    writeFailed(error, this.req, this.opener, this.response);
  }

  unwanted(): void {
    if (this.over) return;
    this.close();
    const reason = clientGone();
    this.source.letGo(false, reason);
    this.req._abort(reason);
  }

  private close(): void {
    this.over = true;
    this.rest = undefined;
    this.held = undefined;
    scratch.drop(this);
    bodies.leave();
  }

  /** Have `flush` called in time. */
  flushSoon(): void {
    this.opener.beforeSending(this.flush);
  }
}

// ------------------------------------------------------------------------------------------- shared by all of a thread

/** Where small chunks are put together, for one body at a time: 64 KiB for each would be much for those that idle. */
const scratch = {
  buffer: undefined as Buffer | undefined,
  owner: undefined as Body | undefined,
  length: 0,

  heldFor(body: Body): number {
    return this.owner === body ? this.length : 0;
  },

  /** A copy is made here and now: whoever made the bytes may use their memory again. */
  add(body: Body, chunk: Chunk): void {
    if (this.owner !== body) {
      this.owner?.flush();
      this.owner = body;
      body.flushSoon();
    }
    const isText = typeof chunk === 'string';
    let most = isText ? chunk.length * 3 : chunk.byteLength;
    if (most > PIECE - this.length) {
      if (isText) most = Buffer.byteLength(chunk);
      if (most > PIECE - this.length) {
        body.flush();
        this.owner = body;
      }
    }
    this.buffer ??= Buffer.allocUnsafeSlow(PIECE);
    if (isText) this.length += this.buffer.write(chunk, this.length);
    else {
      this.buffer.set(chunk, this.length);
      this.length += chunk.byteLength;
    }
  },

  /** What has been put together for this body, in memory of its own. */
  take(body: Body): Uint8Array | undefined {
    if (this.owner !== body) return undefined;
    const bytes = this.length === 0 ? undefined : ownBytes((this.buffer as Buffer).subarray(0, this.length));
    this.drop(body);
    return bytes;
  },

  drop(body: Body): void {
    if (this.owner !== body) return;
    this.owner = undefined;
    this.length = 0;
  },
};

/** Lets bodies read one after the other, and everything else its turn after a slice of time. */
const turns = {
  queue: [] as Body[],
  scheduled: false,

  add(body: Body): void {
    if (body.queued) return;
    body.queued = true;
    this.queue.push(body);
    if (this.scheduled) return;
    this.scheduled = true;
    setImmediate(run);
  },
};

function run(): void {
  const { queue } = turns;
  const until = performance.now() + SLICE;
  // Those that want to go on come behind all others.
  for (let n = queue.length; n > 0; n--) {
    const body = queue.shift() as Body;
    body.queued = false;
    body.go(until);
    if (performance.now() > until) break;
  }
  turns.scheduled = queue.length > 0;
  if (turns.scheduled) setImmediate(run);
}

/** One that waits until it may begin. */
interface Turn {
  readonly promise: Promise<void>;
  readonly begin: () => void;
  abort(reason: unknown): void;
}

/** Counts the bodies that are being sent. */
const bodies = {
  open: 0,
  waiting: new Set<Turn>(),

  /** undefined = at once. */
  enter(): Turn | undefined {
    if (this.open < BODIES) {
      this.open++;
      return undefined;
    }
    let begin!: () => void;
    let reject!: (reason: unknown) => void;
    const promise = new Promise<void>((yes, no) => {
      begin = yes;
      reject = no;
    });
    const turn: Turn = {
      promise,
      begin,
      abort: (reason) => {
        if (this.waiting.delete(turn)) reject(reason);
      },
    };
    this.waiting.add(turn);
    return turn;
  },

  /** Its place goes to whoever has waited longest. */
  leave(): void {
    for (const next of this.waiting) {
      this.waiting.delete(next);
      next.begin();
      return;
    }
    this.open--;
  },
};
