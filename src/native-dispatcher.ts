/**
 * Runs handlers written for uWebSockets.js, on the I/O thread. What they are handed is made of an {@link Invocation}, like any other
 * request, so that what the engine punishes by ending the process is harmless here: a throw, a response that is used after its end or
 * after its client has gone, a request that is read after the callback, a hook that is missing.
 */
import { payloadSize } from './bytes.js';
import { Deadlines, type Due, type Excusable, excuse } from './deadlines.js';
import { OffloopError, OffloopTypeError } from './errors.js';
import { asBytes, encodeHead, encodeText } from './handlers/respond.js';
import { show, wellFormed } from './handlers/source.js';
import {
  type NativeData,
  type NativeExchange,
  type NativeHandler,
  StandInRequest,
  StandInResponse,
} from './native.js';
import {
  type Accepted,
  BODY_WINDOW,
  type BodyLine,
  type BodyOwner,
  type BodyProblem,
  type BodySink,
  type Dispatcher,
  FLAG_CLOSE,
  type Invocation,
  type TimeLimits,
} from './protocol.js';

/** Bytes that may wait for a client that reads slowly while more is written. */
const MOST_WAITING = 16 * 1024 * 1024;

export class NativeDispatcher implements Dispatcher {
  readonly crossesThreads = false;
  private readonly deadlines: Deadlines<Running>;

  constructor(
    private readonly handler: NativeHandler,
    private readonly limits: TimeLimits,
    private readonly log: (message: string, error: unknown) => void,
  ) {
    this.deadlines = new Deadlines((running) => {
      if (!excuse(this.deadlines, running, limits.handlerTimeout)) running.late();
    });
  }

  dispatch(invocation: Invocation): Accepted {
    const running = new Running(invocation, this.deadlines, this.log);
    running.run(() => this.handler.handle(new StandInResponse(running), new StandInRequest(invocation)));
    if (running.waiting && this.limits.handlerTimeout > 0)
      this.deadlines.set(running, this.limits.handlerTimeout, performance.now());
    return running;
  }

  close(): void {
    // Deadlines of what still runs hold; their timer keeps nothing alive.
  }
}

interface Head {
  readonly status: number;
  readonly head: string;
  readonly flags: number;
}

/** One request in the hands of its handler. Nothing it is asked for throws: it may be a timer of the handler's that asks. */
class Running implements NativeExchange, Accepted, Excusable, BodyOwner, BodySink {
  dueAt = 0;
  dueLine: Due['dueLine'] = undefined;
  duePrev: Due['duePrev'] = undefined;
  dueNext: Due['dueNext'] = undefined;

  /** Answered, or nobody waits for an answer. */
  over = false;
  private aborted = false;
  private status = 200;
  private readonly headers: [name: string, value: string][] = [];
  private readonly whenAborted: (() => void)[] = [];
  private whenData: ((chunk: ArrayBuffer, isLast: boolean) => void) | undefined;
  private whenWritable: ((offset: number) => boolean) | undefined;

  /** A body that is being sent. */
  private line: BodyLine | null = null;
  /** Its length, if that has been promised. */
  private total: number | null = null;
  private sent = 0;
  private left = 0;
  private sending = false;
  private blocked = false;

  /** What has come of the request body and has not been handed over. */
  private inbox: [chunk: ArrayBuffer, isLast: boolean][] = [];
  private paused = false;
  excused = 0;

  constructor(
    readonly invocation: Invocation,
    private readonly deadlines: Deadlines<Running>,
    private readonly log: (message: string, error: unknown) => void,
  ) {}

  /** Nothing of an answer is there. */
  get waiting(): boolean {
    return !this.over && this.line === null;
  }

  /** Call something of the handler's, or do something that may throw for it. */
  run(work: () => unknown): void {
    try {
      const result = work();
      // An async handler, or callback: what it rejects with would end the process.
      if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function')
        Promise.resolve(result).catch((error: unknown) => this.failed(error));
    } catch (error) {
      this.failed(error);
    }
  }

  private failed(error: unknown): void {
    if (this.over) {
      // What comes of it when its client has gone is nobody's business.
      if (!this.aborted) this.log('a native handler failed behind its answer', error);
      return;
    }
    this.settle();
    if (this.line === null) this.invocation.fail(error);
    else this.line.fail(error);
  }

  private settle(): void {
    this.over = true;
    this.inbox = [];
    this.deadlines.clear(this);
  }

  // -------------------------------------------------------------------------------------------------------- answering

  setStatus(status: NativeData): void {
    this.run(() => {
      const text = textOf(status);
      if (!/^[2-5]\d\d(?: |$)/.test(text))
        throw bad(`status ${show(text)} does not begin with a number from 200 to 599`);
      this.status = Number(text.slice(0, 3));
    });
  }

  addHeader(name: NativeData, value: NativeData): void {
    this.run(() => this.headers.push([textOf(name), textOf(value)]));
  }

  private head(): Head {
    return {
      status: this.status,
      ...encodeHead(this.status, this.headers as unknown as Record<string, string>),
    };
  }

  /** All of the response, or what is left of it. A number, or null, in place of a body: the length a HEAD response says. */
  answer(payload: NativeData | number | null, close: boolean): void {
    if (this.over) return;
    this.run(() => {
      if (typeof payload === 'number') checkSize(payload);
      const body = typeof payload === 'object' && payload !== null ? bytesOf(payload) : payload;
      if (this.line !== null) this.endLine(this.line, body);
      else this.answerWith(this.head(), body, close);
    });
  }

  private endLine(line: BodyLine, body: string | Uint8Array | number | null): void {
    if (body !== null && typeof body !== 'number') this.send(body);
    // Its client may have gone meanwhile, or the promised length been reached.
    if (this.over) return;
    if (this.total !== null) throw bad(`the response ends after ${this.sent} of ${this.total} bytes`);
    this.settle();
    line.end();
  }

  private answerWith(
    { status, head, flags: given }: Head,
    body: string | Uint8Array | number | null,
    close: boolean,
  ): void {
    const flags = close ? given | FLAG_CLOSE : given;
    const { invocation } = this;
    this.settle();
    // RFC 9110, 8.6 and 15: no content and no length for 204 and 304; 205 says it is empty.
    if (status === 204 || status === 304) invocation.answer(status, head, null, flags);
    else if (status === 205) invocation.answer(status, head, 0, flags);
    else if (invocation.isHead) invocation.answer(status, head, payloadSize(body), flags);
    else if (typeof body === 'number' || body === null || body.length === 0)
      invocation.answer(status, head, 0, flags);
    else invocation.answer(status, head, typeof body === 'string' ? wellFormed(body) : body, flags);
  }

  /** A part of a body, `total` bytes long or chunked. Returns whether the client keeps up. */
  write(chunk: NativeData, total: number | null): boolean {
    if (this.over) return false;
    this.run(() => {
      const data = typeof chunk === 'string' ? chunk : bytesOf(chunk);
      if (total !== null) checkSize(total);
      if (this.line === null) this.begin(total);
      if (this.over) return;
      if (this.blocked && this.sent - this.left > MOST_WAITING)
        throw new OffloopError(
          'OFFLOOP_BODY_TOO_LARGE',
          'a native handler writes on while 16 MiB wait for a client that reads slowly',
        );
      this.send(data);
    });
    return !this.blocked && !this.aborted;
  }

  private begin(total: number | null): void {
    const head = this.head();
    if (this.invocation.isHead || total === 0 || [204, 205, 304].includes(head.status)) {
      // There is no body, whatever is written of one.
      this.answerWith(head, total, false);
      if (total !== 0) queueMicrotask(() => this.tellAborted());
      return;
    }
    this.line = this.invocation.openBody(this);
    if (this.line === null) {
      this.abort();
      return;
    }
    this.total = total;
    this.deadlines.clear(this);
    this.line.start(head.status, head.head, head.flags, total);
  }

  private send(data: string | Uint8Array): void {
    let bytes = typeof data === 'string' ? Buffer.from(data) : Uint8Array.from(data);
    if (this.total !== null) bytes = bytes.subarray(0, this.total - this.sent);
    this.sent += bytes.byteLength;
    this.sending = true;
    this.line?.send(bytes, true);
    this.sending = false;
    this.blocked = this.left < this.sent;
    if (this.total === null || this.sent < this.total || this.over) return;
    this.settle();
    this.line?.end();
  }

  get offset(): number {
    return this.sent;
  }

  onWritable(handler: (offset: number) => boolean): void {
    this.whenWritable = handler;
  }

  flowed(total: number): void {
    this.left = total;
    if (this.sending || !this.blocked || this.over || total < this.sent) return;
    this.blocked = false;
    const { whenWritable } = this;
    if (whenWritable !== undefined) this.run(() => whenWritable(this.sent));
  }

  // ----------------------------------------------------------------------------------------------------------- the end

  onAborted(handler: () => void): void {
    this.whenAborted.push(handler);
  }

  /** The client is gone. */
  cancel(): void {
    this.abort();
  }

  closed(_line: BodyLine, whole: boolean): void {
    if (!whole) this.abort();
  }

  cut(): void {
    if (this.over) return;
    this.abort();
    this.invocation.cut?.();
  }

  late(): void {
    this.abort();
    this.invocation.refuse('handlerTimeout', { retryAfter: 0 });
  }

  private abort(): void {
    if (this.over) return;
    this.settle();
    this.tellAborted();
  }

  /** Nobody waits for what the handler still has to say. */
  private tellAborted(): void {
    this.aborted = true;
    for (const handler of this.whenAborted) this.run(handler);
  }

  // ------------------------------------------------------------------------------------------------------ request body

  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): void {
    const first = this.whenData === undefined;
    this.whenData = handler;
    if (!first || this.over) return;
    const { incoming, body } = this.invocation;
    if (incoming) {
      incoming.pull(this, BODY_WINDOW, true);
      return;
    }
    this.inbox.push([body === null ? new ArrayBuffer(0) : Uint8Array.from(body).buffer, true]);
    // As from the engine, never before the handler has returned.
    queueMicrotask(() => this.deliver());
  }

  data(chunks: readonly Uint8Array<ArrayBuffer>[], last: boolean): void {
    if (this.over) return;
    chunks.forEach((chunk, i) => {
      this.inbox.push([wholeBuffer(chunk), last && i === chunks.length - 1]);
    });
    if (last && chunks.length === 0) this.inbox.push([new ArrayBuffer(0), true]);
    this.deliver();
  }

  private deliver(): void {
    let taken = 0;
    let ended = false;
    const { whenData } = this;
    while (whenData !== undefined && !this.paused && this.inbox.length > 0) {
      const [chunk, isLast] = this.inbox.shift() as [ArrayBuffer, boolean];
      taken += chunk.byteLength;
      ended = isLast;
      this.run(() => whenData(chunk, isLast));
    }
    if (taken > 0 && !ended && !this.over) this.invocation.incoming?.pull(this, taken, !this.paused);
  }

  broken(problem: BodyProblem): void {
    if (problem.kind !== 'too-large' || this.over) return;
    const text = `request body ${problem.size}; max request body ${problem.max}`;
    if (this.line !== null) {
      this.failed(new OffloopError('OFFLOOP_REQUEST_TOO_LARGE', text));
      return;
    }
    this.abort();
    const { status, head, payload, flags } = encodeText(413, text, this.invocation.isHead);
    this.invocation.answer(status, head, payload, flags);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    queueMicrotask(() => this.deliver());
  }
}

function bad(message: string): OffloopTypeError {
  return new OffloopTypeError('OFFLOOP_BAD_RESPONSE', message);
}

function checkSize(size: unknown): void {
  if (!Number.isSafeInteger(size) || (size as number) < 0)
    throw bad(`${show(size)} (${typeof size}) is no number of bytes`);
}

function bytesOf(data: ArrayBuffer | ArrayBufferView): Uint8Array {
  const bytes = typeof data === 'object' && data !== null ? asBytes(data) : undefined;
  if (bytes === undefined) throw bad(`${show(data)} (${typeof data}) is neither a string nor bytes`);
  return bytes;
}

function textOf(data: NativeData): string {
  return typeof data === 'string' ? data : Buffer.from(bytesOf(data)).toString();
}

/** The engine hands out whole buffers. */
function wholeBuffer({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): ArrayBuffer {
  return byteLength === buffer.byteLength ? buffer : buffer.slice(byteOffset, byteOffset + byteLength);
}
