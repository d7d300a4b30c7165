/**
 * Channels: one handle for WebSockets, streamed responses and long polls, after http-kit's. A channel lives on the
 * thread of the handler that opened it; its callbacks run there, one at a time, in order.
 */
import { sizeOf } from '../bytes.js';
import { OffloopError, OffloopTypeError } from '../errors.js';
import {
  type Accept,
  type Answer,
  type ChannelStatus,
  CUT,
  FLAG_PRESET,
  OP,
  type OpField,
} from '../protocol.js';
import { type Begun, chunksOf, Gather, isUnread, type Unread } from './gather.js';
import { handshakeProblem } from './handshake.js';
import { WINDOW } from './pump.js';
import { clientGone, isThenable } from './reasons.js';
import type { ChannelOpener, RingRequest } from './request.js';
import { copyOfBytes, type Encoded, encode, encodeHead, type RequestInfo } from './respond.js';
import { ownBytes, type Source, wellFormed } from './source.js';
import type { Body, HttpRequest, HttpResponse } from './types.js';

/** Why a channel ended: the close code of a WebSocket, 1005 without one, 1006 when the connection broke; 0 for HTTP. */
export interface CloseInfo {
  readonly code: number;
  readonly reason: string;
}

/** What to do with what does not fit under the high-water mark of a channel; see {@link ChannelOptions.overflow}. */
export type Overflow = 'wait' | 'drop' | 'close';

/** A message of a WebSocket: a string when it was sent as text, else bytes. */
export type Message = string | Uint8Array;

export interface ChannelOptions {
  /** Called first, before anything is sent. */
  init?: (channel: Channel) => unknown;
  /** The channel is open; called before `asChannel` returns. Messages wait until its promise settles. */
  onOpen?: (channel: Channel) => unknown;
  /** A message of a WebSocket. The next one waits until its promise settles. */
  onReceive?: (channel: Channel, message: Message) => unknown;
  /** A ping of a WebSocket. It has been answered already. */
  onPing?: (channel: Channel, data: Uint8Array) => unknown;
  /** The last callback, called exactly once. */
  onClose?: (channel: Channel, status: ChannelStatus, info: CloseInfo) => unknown;
  /** The request asks for a WebSocket in a way that cannot be granted. It may `send` a response; without one, 400 or 426. */
  onHandshakeError?: (channel: Channel, reason: string) => unknown;
  /** Status of the first HTTP response when `send` is given a bare body. Default 200. */
  status?: number;
  /** Headers of that response, or of the 101 that accepts a WebSocket. */
  headers?: HttpResponse['headers'];
  /** Subprotocol of a WebSocket: one of those the client offers. */
  protocol?: string;
  /** Topics to subscribe to at once. */
  topics?: readonly string[];
  /** Bytes that may wait to be sent: at most 16 MiB, default 1 MiB. */
  highWater?: number;
  /**
   * What `send` does beyond `highWater`. 'wait': refuse, returning false; await `drained()` and try again. 'drop': the
   * same, and count in `dropped`. 'close': close the channel, 1013 for a WebSocket. Default 'wait'.
   */
  overflow?: Overflow;
  /** Close the channel (1011 for a WebSocket) when a callback throws, instead of only logging it. Default false. */
  closeOnError?: boolean;
  /** What an HTTP channel that has sent nothing answers when the server stops. Default: the server's own 503. */
  stopResponse?: HttpResponse;
}

/** One open connection to talk to. Made by {@link asChannel}. */
export interface Channel {
  /** Names it in all threads: see {@link channel}. */
  readonly id: string;
  readonly isOpen: boolean;
  readonly isWebSocket: boolean;
  /** Bytes sent that are not known to have left the server. Never too low; up to 16 KiB too high. */
  readonly bufferedAmount: number;
  /** Messages that were not sent because of `overflow: 'drop'`. */
  readonly dropped: number;
  /**
   * Send a message, a chunk or a response. The first one of an HTTP channel may carry status and headers. `close`: whether
   * it is the last; default true for HTTP, false for a WebSocket. Returns false when it will not be sent: the channel is
   * closed or over its high-water mark.
   */
  send(data: Body | HttpResponse, close?: boolean): boolean;
  /** The same, waiting for room; true when the bytes have left the server's buffers, false if they never will. */
  sendAsync(data: Body | HttpResponse, close?: boolean): Promise<boolean>;
  /** Resolves when everything sent so far has left the server's buffers, or the channel is closed. */
  drained(): Promise<void>;
  /** Close it, a WebSocket with this code (default 1000) and reason (at most 123 bytes). True the first time. */
  close(code?: number, reason?: string): boolean;
  /** From now on it gets what is published under this topic. */
  subscribe(topic: string): void;
  unsubscribe(topic: string): void;
}

/** Ask for word of what has left at least every so many bytes. */
const TRACK_EVERY = 16 * 1024;
const HIGH_WATER = 1024 * 1024;
/** The engine drops what waits beyond. */
const MOST_HIGH_WATER = 16 * 1024 * 1024;
/** Bytes of a WebSocket message that is read from a stream or a file: it has to be there as a whole. */
const MESSAGE_LIMIT = 64 * 1024 * 1024;
const MAX_REASON = 123;

/** What is sent behind the head of a response, or over a WebSocket, depends on no request. */
const NO_REQUEST: RequestInfo = { isHead: false, method: 'GET', headers: {} };

interface Waiter {
  readonly position: number;
  readonly resolve: (sent: boolean) => void;
}

export class HandlerChannel implements Channel {
  isOpen = true;
  dropped = 0;
  /** Bytes sent since it was opened, those of which it is known that they left, and up to where word was asked for. */
  protected sent = 0;
  protected gone = 0;
  protected tracked = 0;
  /** HTTP: the head of the response is out. */
  protected started = false;
  /** HTTP: only the line knows the status and headers it was opened with. */
  protected isPreset = false;
  private running = false;
  protected tail: Promise<void> | undefined;
  /** Callbacks that became due while one was being called: they come behind its promise. */
  private behind: (() => unknown)[] = [];
  /** Bodies that are being read; what is sent behind them waits. */
  private reading: Promise<void> | undefined;
  protected source: Source | undefined;
  private waiters: Waiter[] | undefined;

  constructor(
    protected readonly opener: ChannelOpener,
    readonly id: string,
    readonly isWebSocket: boolean,
    private readonly isHead: boolean,
    protected readonly options: ChannelOptions,
    private readonly request: RingRequest | undefined,
  ) {}

  get bufferedAmount(): number {
    return this.sent - this.gone;
  }

  // ------------------------------------------------------------------------------------------------------- sending

  send(data: Body | HttpResponse, close = !this.isWebSocket): boolean {
    if (!this.isOpen) return false;
    if (this.reading !== undefined) {
      // Accepted here, and so sent whatever the mark says by then.
      this.after(this.reading, () => void this.deliver(data, close, true));
      return true;
    }
    return this.deliver(data, close, false);
  }

  private deliver(data: Body | HttpResponse, close: boolean, accepted: boolean): boolean {
    const sent = this.isWebSocket ? this.message(data, accepted) : this.respond(data, close, accepted);
    if (sent && close) this.close();
    return sent;
  }

  async sendAsync(data: Body | HttpResponse, close = !this.isWebSocket): Promise<boolean> {
    while (this.isOpen && !this.hasRoom(sizeToSend(data))) await this.drained();
    if (!this.isOpen || !this.send(data, false)) return false;
    await this.reading;
    const all = await this.sentOut(this.sent);
    // Not before: what is on its way when a channel is closed is never heard of again.
    if (close) this.close();
    return all;
  }

  async drained(): Promise<void> {
    await this.reading;
    await this.sentOut(this.sent);
  }

  private get highWater(): number {
    return this.options.highWater ?? HIGH_WATER;
  }

  /** Resolves with true when the first `position` bytes have left, with false when the channel is closed before. */
  private sentOut(position: number): Promise<boolean> {
    if (this.gone >= position) return Promise.resolve(true);
    if (!this.isOpen) return Promise.resolve(false);
    return new Promise((resolve) => {
      this.waiters ??= [];
      this.waiters.push({ position, resolve });
      if (this.tracked < position) {
        this.tracked = this.sent;
        this.opener.op(OP.send, this.id, '', true, null);
      }
    });
  }

  /** Whether so many bytes fit. A message of any size does where nothing is known to wait. */
  private hasRoom(bytes: number): boolean {
    return this.tracked <= this.gone || this.bufferedAmount + bytes <= this.highWater;
  }

  /** Make room for so many bytes, or say what becomes of them. */
  private admit(bytes: number): boolean {
    if (this.hasRoom(bytes)) return true;
    if (this.options.overflow === 'drop') this.dropped++;
    else if (this.options.overflow === 'close') this.close(1013, 'Too slow');
    return false;
  }

  private put(data: string | Uint8Array, accepted: boolean): boolean {
    const bytes = sizeOf(data);
    if (!accepted && !this.admit(bytes)) return false;
    this.sent += bytes;
    const track = this.sent - this.tracked >= Math.min(TRACK_EVERY, this.highWater / 2);
    if (track) this.tracked = this.sent;
    this.opener.op(OP.send, this.id, data, track, null);
    return true;
  }

  private putBody(body: NonNullable<Body>, accepted: boolean): boolean {
    if (typeof body === 'string') return this.put(wellFormed(body), accepted);
    const bytes = copyOfBytes(body);
    if (bytes !== undefined) return this.put(bytes, accepted);
    if (!accepted && !this.admit(1)) return false;
    this.read(body);
    return true;
  }

  private message(data: Body | HttpResponse, accepted: boolean): boolean {
    const body = isResponse(data) ? (data.body ?? null) : data;
    if (body === null) return true;
    return this.putBody(body, accepted);
  }

  private respond(data: Body | HttpResponse, close: boolean, accepted: boolean): boolean {
    const response: HttpResponse = isResponse(data) ? data : { body: data };
    if (!this.started) {
      const { status = this.options.status ?? 200, headers = this.options.headers } = response;
      const whole = { status, ...(headers !== undefined && { headers }), body: response.body };
      if (this.isHead && !close) {
        // The body would come in chunks: its length is not known.
        this.started = true;
        this.answer({ status, ...encodeHead(status, headers), payload: null });
        return true;
      }
      const preset =
        this.isPreset && response.status === undefined && response.headers === undefined ? FLAG_PRESET : 0;
      if (close || status === 204 || status === 205 || status === 304) {
        const encoded = encode(whole, this.request ?? NO_REQUEST);
        const known = isThenable<Encoded>(encoded) || !isUnread(encoded) ? encoded : this.gather(encoded);
        this.started = true;
        this.answer(known, preset);
        return true;
      }
      const { head, flags } = encodeHead(status, headers);
      this.started = true;
      this.opener.op(OP.start, this.id, status + 1024 * (flags + preset), head, null);
    }
    const body = response.body ?? null;
    if (body === null || body === '') return true;
    return this.putBody(body, accepted);
  }

  /** A whole response, which ends the channel. */
  private answer(answer: Answer | Begun | PromiseLike<Encoded | Begun>, preset = 0): void {
    if (isThenable<Encoded | Begun>(answer) || 'unread' in answer) {
      this.after(this.answerLater(answer, preset), () => undefined);
      return;
    }
    const { status, head, payload, flags } = answer;
    // Inline, word of the end comes before this returns.
    this.isOpen = false;
    this.opener.op(OP.answer, this.id, status + 1024 * (flags + preset), head, ownPayload(payload));
    void this.end('server-close', 0, '');
  }

  private async answerLater(answer: Begun | PromiseLike<Encoded | Begun>, preset: number): Promise<void> {
    const encoded = await answer;
    const known = 'source' in encoded ? await this.gather(encoded) : encoded;
    if (!this.isOpen) return;
    if (!('unread' in known)) {
      this.answer(known, preset);
      return;
    }
    const { status, head, flags, length } = known.unread;
    this.opener.op(OP.start, this.id, status + 1024 * (flags + preset), head, length);
    await this.pour(known);
    // Now, and not behind what else has been sent: this was all.
    if (!this.isOpen) return;
    this.isOpen = false;
    this.opener.op(OP.close, this.id, 1000, '', null);
    void this.end('server-close', 0, '');
  }

  private gather(unread: Unread): Answer | Begun | Promise<Answer | Begun> {
    this.source = unread.source;
    return new Gather(unread).run();
  }

  /** Read a body, and send it: bit by bit over HTTP, as one message over a WebSocket. */
  private read(body: Body): void {
    this.after(Promise.resolve(encode({ body }, NO_REQUEST)).then(this.sendRead), () => undefined);
  }

  private readonly sendRead = async (encoded: Encoded): Promise<void> => {
    // Only a file has something else to say.
    if (encoded.status !== 200)
      throw new OffloopError('OFFLOOP_BAD_CHANNEL', `the file that was sent is a ${encoded.status}`);
    const known = isUnread(encoded) ? await this.gather(encoded) : encoded;
    if (!('unread' in known)) {
      const { payload } = known;
      if (this.isOpen && (typeof payload === 'string' || payload instanceof Uint8Array))
        this.put(payload, true);
    } else if (this.isWebSocket) {
      const message = await collect(chunksOf(known));
      if (this.isOpen) this.put(message, true);
    } else {
      await this.pour(known);
    }
  };

  /** Send what a source gives, when there is room for it. */
  private async pour(begun: Begun): Promise<void> {
    const window = Math.min(WINDOW, this.highWater);
    for await (const chunk of chunksOf(begun)) {
      if (!this.isOpen) return;
      this.put(typeof chunk === 'string' ? wellFormed(chunk) : chunk, true);
      if (this.bufferedAmount >= window) await this.sentOut(this.sent - window + 1);
    }
  }

  /** What is sent from now on waits until this is there. */
  private after<T>(work: PromiseLike<T>, then: (value: T) => void): void {
    const reading: Promise<void> = Promise.resolve(work)
      .then((value) => {
        if (this.reading === reading) this.reading = undefined;
        if (this.isOpen) then(value);
      })
      .catch((error: unknown) => {
        if (this.reading === reading) this.reading = undefined;
        // A source that has been told that nobody reads on may say what it thinks of it.
        if (!this.isOpen) return;
        this.failed(error);
        if (!this.isWebSocket) this.giveUp();
      });
    this.reading = reading;
  }

  /** HTTP: half a response is none, and must not look like a whole one. */
  private giveUp(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.opener.op(OP.close, this.id, CUT, '', null);
    void this.end('server-close', 0, '');
  }

  close(code = 1000, reason = ''): boolean {
    checkClose(code, reason);
    if (!this.isOpen) return false;
    if (this.reading !== undefined) {
      this.after(this.reading, () => this.close(code, reason));
      return true;
    }
    if (!this.isWebSocket && !this.started) {
      // A close that says nothing is still an answer.
      this.respond({ body: null }, true, true);
      return true;
    }
    this.isOpen = false;
    this.opener.op(OP.close, this.id, code, reason, null);
    void this.end('server-close', this.isWebSocket ? code : 0, this.isWebSocket ? reason : '');
    return true;
  }

  subscribe(topic: string): void {
    if (this.isOpen) this.opener.op(OP.subscribe, this.id, checkTopic(topic), null, null);
  }
  unsubscribe(topic: string): void {
    if (this.isOpen) this.opener.op(OP.unsubscribe, this.id, checkTopic(topic), null, null);
  }

  // -------------------------------------------------------------------------------------------------------- events

  /** @internal */
  _open(): void {
    for (const topic of this.options.topics ?? []) this.subscribe(topic);
    const { onOpen } = this.options;
    if (onOpen !== undefined) void this.run(() => onOpen(this));
  }

  /** @internal A message or ping has come. Returns a promise when its callback does not return at once. */
  _message(message: Message): Promise<void> | undefined {
    const { onReceive } = this.options;
    return onReceive === undefined ? undefined : this.run(() => onReceive(this, message));
  }
  /** @internal */
  _ping(data: Uint8Array): Promise<void> | undefined {
    const { onPing } = this.options;
    return onPing === undefined ? undefined : this.run(() => onPing(this, data));
  }

  /** @internal The other side, or the server, has ended it. */
  _closed(status: ChannelStatus, code: number, reason: string): Promise<void> | undefined {
    if (status === 'client-close') this.request?._abort(clientGone());
    return this.isOpen ? this.end(status, code, reason) : undefined;
  }

  /** @internal Everything up to this byte has left the server. */
  _flowed(total: number): void {
    // Over, by -1: its end is on its way here, and says so.
    if (total < this.gone) return;
    this.gone = total;
    const waiting = this.waiters;
    if (waiting === undefined) return;
    this.waiters = undefined;
    for (const waiter of waiting) {
      if (waiter.position <= total) waiter.resolve(true);
      else void this.sentOut(waiter.position).then(waiter.resolve);
    }
  }

  protected end(status: ChannelStatus, code: number, reason: string): Promise<void> | undefined {
    this.isOpen = false;
    this.opener.forget(this);
    this.source?.letGo(false, clientGone());
    this.neverLeaves();
    return this.runClose(status, code, reason);
  }

  protected runClose(status: ChannelStatus, code: number, reason: string): Promise<void> | undefined {
    const { onClose } = this.options;
    return onClose === undefined ? undefined : this.run(() => onClose(this, status, { code, reason }));
  }

  /** Somebody waits for what has been sent to leave. */
  protected get isAwaited(): boolean {
    return this.waiters !== undefined;
  }

  protected neverLeaves(): void {
    for (const waiter of this.waiters ?? []) waiter.resolve(false);
    this.waiters = undefined;
  }

  /** Run a callback when those before it are through: at once, if there are none. */
  private run(callback: () => unknown): Promise<void> | undefined {
    if (this.tail !== undefined) return this.hold(this.tail.then(() => this.call(callback)));
    if (this.running) {
      this.behind.push(callback);
      return undefined;
    }
    const result = this.call(callback);
    let held = isThenable(result) ? this.hold(result) : undefined;
    for (const next of this.behind.splice(0)) held = this.run(next);
    return held;
  }

  private hold(work: PromiseLike<unknown>): Promise<void> {
    const tail: Promise<void> = Promise.resolve(work).then(
      () => {
        if (this.tail === tail) this.tail = undefined;
      },
      (error: unknown) => {
        if (this.tail === tail) this.tail = undefined;
        this.failed(error);
      },
    );
    this.tail = tail;
    return tail;
  }

  private call(callback: () => unknown): unknown {
    this.running = true;
    try {
      return callback();
    } catch (error) {
      this.failed(error);
      return undefined;
    } finally {
      this.running = false;
    }
  }

  protected failed(error: unknown): void {
    this.opener.log(`channel ${this.id}: a callback failed`, error);
    if (this.options.closeOnError === true) this.close(1011, 'Internal error');
  }
}

/**
 * Answer a request with a channel: accept the WebSocket it asks for, or keep the response open. Return the channel from
 * the handler, or nothing; a response returned beside it is dropped and logged.
 *
 * A bad handshake is answered 400 or 426, or as `onHandshakeError` says; the channel is closed then.
 */
export function asChannel(req: HttpRequest, options: ChannelOptions = {}): Channel {
  checkOptions(options, 'asChannel');
  return openChannel(req, options);
}

/** How a channel that is not an ordinary one is made. */
export type MakeChannel<C extends HandlerChannel> = (
  ...args: ConstructorParameters<typeof HandlerChannel>
) => C;

/** @internal Open a channel, or refuse its handshake. `make`: what is opened if there is nothing to refuse. */
export function openChannel<C extends HandlerChannel>(
  req: HttpRequest,
  options: ChannelOptions,
  make?: MakeChannel<C>,
): HandlerChannel {
  const root = (req as Partial<RingRequest>)._root;
  const opener = root?._opener;
  if (root === undefined || opener === undefined) {
    throw new OffloopTypeError(
      'OFFLOOP_BAD_CHANNEL',
      'a channel needs the request that the handler was given',
    );
  }
  if (root._channel !== undefined) {
    throw new OffloopError('OFFLOOP_BAD_CHANNEL', 'this request has been answered with a channel already');
  }
  if (root._answered)
    throw new OffloopError('OFFLOOP_BAD_CHANNEL', 'the response to this request is under way already');
  const problem = root.isWebSocket ? handshakeProblem(root) : undefined;
  const isWebSocket = root.isWebSocket && problem === undefined;
  // Checked before anything is promised to anybody.
  const accept = isWebSocket ? acceptFor(root, options) : null;
  const presets = isWebSocket ? [] : presetsOf(options, root.isHead);
  const args: ConstructorParameters<typeof HandlerChannel> = [
    opener,
    opener.newId(),
    isWebSocket,
    root.isHead,
    options,
    isWebSocket ? undefined : root,
  ];
  const made = make === undefined || problem !== undefined ? new HandlerChannel(...args) : make(...args);
  root._channel = made;
  opener.open(made, accept, root._source);
  for (const [op, a, b, c] of presets) opener.op(op, made.id, a, b, c);
  options.init?.(made);
  if (problem === undefined) {
    made._open();
  } else {
    options.onHandshakeError?.(made, problem.text);
    const { status, text, headers } = problem;
    if (made.isOpen)
      made.send({
        status,
        // What its client does with the connection now is anybody's guess.
        headers: { ...headers, 'content-type': 'text/plain; charset=utf-8', connection: 'close' },
        body: text,
      });
  }
  return made;
}

/** What the line of an HTTP channel has to know, since it may have to answer in the name of the handler. */
function presetsOf(
  { status, headers, stopResponse }: ChannelOptions,
  isHead: boolean,
): (readonly [op: number, a: OpField, b: OpField, c: OpField])[] {
  const presets: (readonly [number, OpField, OpField, OpField])[] = [];
  if (status !== undefined || headers !== undefined) {
    const { head, flags } = encodeHead(status ?? 200, headers);
    presets.push([OP.preset, (status ?? 200) + 1024 * flags, head, null]);
  }
  if (stopResponse !== undefined) {
    const answer = encode(stopResponse, { ...NO_REQUEST, isHead });
    if (isThenable<Encoded>(answer) || isUnread(answer))
      throw new OffloopTypeError(
        'OFFLOOP_BAD_CHANNEL',
        'the body of a stopResponse is a string or bytes: there is no time to read anything else',
      );
    presets.push([
      OP.presetStop,
      answer.status + 1024 * answer.flags,
      answer.head,
      ownPayload(answer.payload),
    ]);
  }
  return presets;
}

function acceptFor(req: RingRequest, { headers, protocol }: ChannelOptions): Accept {
  const offered = (req.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
  if (protocol !== undefined && !offered.includes(protocol)) {
    // RFC 6455, 4.2.2: only what the client offers; it would have to fail the connection.
    return { head: encodeHead(101, headers).head, protocol: '' };
  }
  return { head: encodeHead(101, headers).head, protocol: protocol ?? '' };
}

/** Send to everybody who has subscribed to a topic: WebSockets, streams and long polls of every worker alike. */
export function publish(
  topic: string,
  data: string | Uint8Array,
  options: {
    /** Whether HTTP channels are ended by it, as long polls are. Default false. */
    close?: boolean;
    /** A channel that is left out, often the one the message came from. */
    except?: Channel;
  } = {},
): void {
  if (typeof data !== 'string' && !(data instanceof Uint8Array))
    throw new OffloopTypeError('OFFLOOP_BAD_CHANNEL', 'publish sends a string or bytes');
  const payload = typeof data === 'string' ? wellFormed(data) : ownBytes(data);
  wire().op(OP.publish, options.except?.id ?? '', checkTopic(topic), payload, options.close ?? false);
}

/** A handle for a channel of any thread: it can send and close. `isOpen` is a guess: true until it was closed here. */
export function channel(id: string): Pick<Channel, 'id' | 'send' | 'close' | 'subscribe' | 'unsubscribe'> {
  return new RemoteChannel(id);
}

class RemoteChannel {
  constructor(readonly id: string) {}

  /** Send a message or a chunk. Returns true: whether the channel is still open is known on the I/O thread only. */
  send(data: Body | HttpResponse, close = false): boolean {
    const body = isResponse(data) ? (data.body ?? null) : data;
    const payload = typeof body === 'string' ? wellFormed(body) : body === null ? '' : copyOfBytes(body);
    if (payload === undefined)
      throw new OffloopTypeError(
        'OFFLOOP_BAD_CHANNEL',
        'a channel of another thread is sent strings and bytes',
      );
    if (payload.length > 0) wire().op(OP.send, this.id, payload, false, null);
    if (close) this.close();
    return true;
  }
  close(code = 1000, reason = ''): boolean {
    checkClose(code, reason);
    wire().op(OP.close, this.id, code, reason, null);
    return true;
  }
  subscribe(topic: string): void {
    wire().op(OP.subscribe, this.id, checkTopic(topic), null, null);
  }
  unsubscribe(topic: string): void {
    wire().op(OP.unsubscribe, this.id, checkTopic(topic), null, null);
  }
}

// -------------------------------------------------------------------------------------------------------- this thread

/** How this thread reaches the channels of the process. */
export interface Wire {
  op(op: number, id: string, a: OpField, b: OpField, c: OpField): void;
}

// Not a variable of the module: a package installed twice would have two of it.
const WIRE = Symbol.for('offloop.wire');
const here = globalThis as { [WIRE]?: Wire };

/** @internal Set once in each thread that runs handlers. */
export function setWire(made: Wire): void {
  here[WIRE] = made;
}

/** @internal For handlers that run without a server: another one's way stays. */
export function setWireIfNone(made: Wire): void {
  here[WIRE] ??= made;
}

function wire(): Wire {
  const found = here[WIRE];
  if (found === undefined)
    throw new OffloopError('OFFLOOP_BAD_CHANNEL', 'no server runs handlers on this thread');
  return found;
}

/** Its sender may use the memory again: what is sent are the bytes at the time of the call. */
function ownPayload<T>(payload: T): T | Uint8Array {
  return payload instanceof Uint8Array ? ownBytes(payload) : payload;
}

async function collect(chunks: AsyncIterable<string | Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
    size += bytes.byteLength;
    if (size > MESSAGE_LIMIT)
      throw new OffloopError('OFFLOOP_BODY_TOO_LARGE', `a message of more than ${MESSAGE_LIMIT} bytes`);
    parts.push(bytes);
  }
  return ownBytes(Buffer.concat(parts));
}

// ------------------------------------------------------------------------------------------------------------ checks

function isResponse(data: Body | HttpResponse): data is HttpResponse {
  if (data === null || typeof data !== 'object') return false;
  const prototype: unknown = Object.getPrototypeOf(data);
  return (prototype === Object.prototype || prototype === null) && !(Symbol.iterator in data);
}

/** Bytes of what is to be sent; 1 for what has to be read first. */
function sizeToSend(data: Body | HttpResponse): number {
  const body = isResponse(data) ? (data.body ?? null) : data;
  if (body === null) return 0;
  if (typeof body === 'string') return sizeOf(body);
  return body instanceof ArrayBuffer || ArrayBuffer.isView(body) ? body.byteLength : 1;
}

function checkTopic(topic: string): string {
  if (typeof topic !== 'string' || topic === '')
    throw new OffloopTypeError(
      'OFFLOOP_BAD_CHANNEL',
      `a topic is a string of at least one character, not ${String(topic)}`,
    );
  return topic;
}

/** RFC 6455, 7.4: what an endpoint may send in a Close frame. */
function checkClose(code: number, reason: string): void {
  const allowed =
    Number.isInteger(code) &&
    ((code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)) || (code >= 3000 && code <= 4999));
  if (!allowed)
    throw new OffloopTypeError(
      'OFFLOOP_BAD_CHANNEL',
      `close code ${code} cannot be sent; allowed: 1000 to 1014 without 1004 to 1006, 3000 to 4999`,
    );
  if (typeof reason !== 'string' || Buffer.byteLength(reason) > MAX_REASON)
    throw new OffloopTypeError(
      'OFFLOOP_BAD_CHANNEL',
      `a close reason is a string of at most ${MAX_REASON} bytes`,
    );
}

/** @internal `where` begins the message. */
export function checkOptions(options: ChannelOptions, where: string): void {
  const bad = (problem: string): OffloopTypeError =>
    new OffloopTypeError('OFFLOOP_BAD_CHANNEL', `${where}: ${problem}`);
  for (const name of ['init', 'onOpen', 'onReceive', 'onPing', 'onClose', 'onHandshakeError'] as const) {
    const given: unknown = options[name];
    if (given !== undefined && typeof given !== 'function')
      throw bad(`${name} is a ${typeof given}, not a function`);
  }
  const { highWater, overflow } = options;
  if (
    highWater !== undefined &&
    !(Number.isInteger(highWater) && highWater > 0 && highWater <= MOST_HIGH_WATER)
  )
    throw bad(`highWater is ${String(highWater)}; allowed: 1 to ${MOST_HIGH_WATER} bytes`);
  if (overflow !== undefined && !['wait', 'drop', 'close'].includes(overflow))
    throw bad(`overflow is ${String(overflow)}; allowed: 'wait', 'drop', 'close'`);
}
