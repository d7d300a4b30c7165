/** The body of a request whose handler was started before all of it was there. Runs on the thread of the handler. */
import type { ReadableStream as Stream } from 'node:stream/web';
import { OffloopError, OffloopTypeError } from '../errors.js';
import { BODY_WINDOW, type BodyProblem, type BodySink, type BodySource } from '../protocol.js';
import { clientGone } from './reasons.js';

/** Bytes taken after which the source is told, so that more comes while the handler works on what it has. */
const TELL_FROM = BODY_WINDOW / 2;

/** The body is larger than `maxBody`. Uncaught it is a 413. */
export class BodyTooLargeError extends OffloopError {
  override readonly name = 'BodyTooLargeError';
  readonly status = 413;
}

/** Declared lengths up to this get their memory at once; what is declared to be larger has to come first. */
const BELIEVED = 64 * 1024 * 1024;

/** What a body needs of the request it belongs to. */
export interface BodyRequest {
  /** Why its signal has fired. */
  readonly _abortReason: unknown;
  /** As declared, or null. */
  readonly contentLength: number | null;
  _abort(reason: unknown): void;
}

type Bytes = Uint8Array<ArrayBuffer>;

/** All of the body, while it is being collected. */
interface Collection {
  /** Where it goes, or the parts of it. */
  readonly whole: Bytes | undefined;
  readonly parts: Bytes[];
  readonly resolve: (bytes: Bytes) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Read once, as a stream or as a whole, and not before somebody reads. Of what has come and has not been taken there is never more
 * than the window.
 */
export class StreamedBody implements BodySink {
  /** Bytes that have come. */
  size = 0;
  /** All has come. */
  ended = false;

  private readonly queue: Bytes[] = [];
  /** Taken, and not told to the source. */
  private owed = BODY_WINDOW;
  private failure: OffloopError | undefined;
  private cancelled = false;
  private made: Stream<Uint8Array> | undefined;
  private controller!: ReadableByteStreamController;
  /** Somebody has read from the stream. */
  private disturbed = false;
  /** Somebody waits for the stream to go on. */
  private wanted = false;
  private collecting: Collection | undefined;
  private collected: Promise<Bytes> | undefined;

  constructor(
    private readonly source: BodySource,
    private readonly request: BodyRequest,
  ) {}

  // -------------------------------------------------------------------------------------------------- from the source

  data(chunks: readonly Bytes[], last: boolean): void {
    if (this.cancelled) return;
    this.ended = last;
    if (this.collecting !== undefined) {
      this.collect(chunks, this.collecting);
      return;
    }
    for (const chunk of chunks) this.size += chunk.byteLength;
    this.queue.push(...chunks);
    if (this.wanted) this.feed();
  }

  broken(problem: BodyProblem): void {
    if (this.ended || this.failure !== undefined || this.cancelled) return;
    this.failure = this.errorFor(problem);
    this.queue.length = 0;
    this.collecting?.reject(this.failure);
    this.collecting = undefined;
    if (this.made !== undefined) this.controller.error(this.failure);
  }

  private errorFor(problem: BodyProblem): OffloopError {
    const { request } = this;
    switch (problem.kind) {
      case 'gone':
        request._abort(clientGone());
        return aborted('the client went away before the request body was complete', request._abortReason);
      case 'answered':
        return aborted('the request was answered before its body was read to the end', request._abortReason);
      case 'too-large':
        return new BodyTooLargeError(
          'OFFLOOP_REQUEST_TOO_LARGE',
          `request body ${problem.size}; max request body ${problem.max}`,
        );
      default:
        throw new Error(`unknown problem ${JSON.stringify(problem satisfies never)}`);
    }
  }

  /** All has been taken and more is needed. */
  private ask(): void {
    const { owed } = this;
    this.owed = 0;
    this.source.pull(this, owed, true);
  }

  private took(bytes: number): void {
    this.owed += bytes;
    if (this.owed < TELL_FROM || this.ended) return;
    const { owed } = this;
    this.owed = 0;
    this.source.pull(this, owed, false);
  }

  // -------------------------------------------------------------------------------------------------------- a stream

  /** The same one each time, and another one when all of it has been read by {@link bytes}. */
  get stream(): Stream<Uint8Array> {
    const { collected } = this;
    if (collected !== undefined) return later(collected);
    this.made ??= new ReadableStream(
      {
        type: 'bytes',
        start: (controller) => {
          this.controller = controller;
          if (this.failure !== undefined) controller.error(this.failure);
        },
        pull: () => {
          this.disturbed = true;
          this.wanted = true;
          if (this.queue.length > 0 || this.ended) this.feed();
          else this.ask();
        },
        cancel: () => {
          this.disturbed = true;
          this.cancelled = true;
          this.queue.length = 0;
          if (!this.ended) this.source.cancel();
        },
      },
      { highWaterMark: 0 },
    );
    return this.made;
  }

  /** Give the stream its next chunk, or its end. */
  private feed(): void {
    const { controller } = this;
    const chunk = this.queue.shift();
    this.wanted = false;
    if (chunk !== undefined) {
      this.took(chunk.byteLength);
      // May ask for the next one before it returns.
      controller.enqueue(chunk);
    } else if (this.ended) {
      controller.close();
      // A reader with a buffer of its own gets it back.
      controller.byobRequest?.respond(0);
    }
  }

  // ------------------------------------------------------------------------------------------------------- as a whole

  /** All of it, in one array: the same each time. */
  bytes(): Promise<Bytes> {
    const { made } = this;
    if (this.collected === undefined && (this.disturbed || made?.locked === true)) {
      const message =
        'the request body cannot be read as a whole: it is being read, or has been, through req.body';
      return Promise.reject(new OffloopTypeError('OFFLOOP_BODY_USED', message));
    }
    this.collected ??= new Promise<Bytes>((resolve, reject) => {
      if (this.failure !== undefined) {
        reject(this.failure);
        return;
      }
      // Nobody else shall read from it now.
      made?.getReader();
      const { contentLength } = this.request;
      const whole =
        contentLength === null || contentLength > BELIEVED ? undefined : new Uint8Array(contentLength);
      this.collecting = { whole, parts: [], resolve, reject };
      this.ask();
    });
    return this.collected;
  }

  private collect(chunks: readonly Bytes[], { whole, parts, resolve, reject }: Collection): void {
    for (const chunk of chunks) {
      if (whole === undefined) parts.push(chunk);
      else whole.set(chunk, this.size);
      this.size += chunk.byteLength;
      this.owed += chunk.byteLength;
    }
    if (!this.ended) {
      this.ask();
      return;
    }
    this.collecting = undefined;
    try {
      resolve(whole ?? join(parts, this.size));
    } catch (error) {
      // More than an array can hold.
      reject(error);
    }
  }
}

function join(parts: readonly Bytes[], size: number): Bytes {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

/** A stream over bytes that are being collected. It has a copy: who takes the chunks away leaves the bytes alone. */
function later(bytes: Promise<Bytes>): Stream<Uint8Array> {
  return new ReadableStream(
    {
      type: 'bytes',
      pull: async (controller: ReadableByteStreamController) => {
        const copy = (await bytes).slice();
        if (copy.byteLength > 0) controller.enqueue(copy);
        controller.close();
        controller.byobRequest?.respond(0);
      },
    },
    { highWaterMark: 0 },
  );
}

function aborted(message: string, cause: unknown): OffloopError {
  const error = new OffloopError('OFFLOOP_ABORTED', message, cause === undefined ? undefined : { cause });
  // As those of the platform are called when their signal fires.
  Object.defineProperty(error, 'name', { value: 'AbortError', configurable: true });
  return error;
}
