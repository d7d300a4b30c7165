/**
 * Channels whose callbacks are known by name instead of being closures, so that any worker that has imported the
 * definition can run them: they outlive the worker that opened them.
 */
import { deserialize, serialize } from 'node:v8';
import { OffloopTypeError } from '../errors.js';
import { type Accept, type ChannelStatus, OP } from '../protocol.js';
import {
  type Channel,
  type ChannelOptions,
  type CloseInfo,
  checkOptions,
  HandlerChannel,
  type Message,
  openChannel,
} from './channel.js';
import { clientGone } from './reasons.js';
import type { ChannelOpener } from './request.js';
import type { HttpRequest } from './types.js';

/** Bytes of the state of one channel, serialized. */
const MAX_STATE = 64 * 1024;

/** A channel of a definition, as its callbacks get it. */
export interface DefinedChannel<S> extends Channel {
  /**
   * What is kept with the channel. Change it, or what is in it, in a callback; the next one, in whatever worker, finds it so.
   * Anything that structured clone takes, up to 64 KiB; the prototypes of classes are lost.
   */
  state: S;
}

/** What {@link defineChannel} is given. The callbacks are those of {@link ChannelOptions}. */
export interface ChannelCallbacks<S> extends Pick<ChannelOptions, 'highWater' | 'overflow' | 'closeOnError'> {
  /** The channel is open; called before `open` returns. */
  onOpen?: (channel: DefinedChannel<S>) => unknown;
  onReceive?: (channel: DefinedChannel<S>, message: Message) => unknown;
  onPing?: (channel: DefinedChannel<S>, data: Uint8Array) => unknown;
  onClose?: (channel: DefinedChannel<S>, status: ChannelStatus, info: CloseInfo) => unknown;
}

/** What may differ from channel to channel. */
export interface OpenOptions<S>
  extends Pick<
    ChannelOptions,
    'status' | 'headers' | 'protocol' | 'topics' | 'stopResponse' | 'onHandshakeError'
  > {
  /** The state it begins with. */
  state?: S;
}

/** A kind of channel, made by {@link defineChannel}. */
export interface ChannelDefinition<S> {
  readonly name: string;
  /** Answer a request with a channel of this kind; as {@link asChannel} otherwise. */
  open(req: HttpRequest, options?: OpenOptions<S>): DefinedChannel<S>;
}

/**
 * Define a kind of channel at the top level of a handler module. Its callbacks use nothing but what they are given and what
 * every worker has: each may run in another worker than the last. One callback of a channel runs at a time, in the order of
 * what happened. Such channels survive a crash, a recycle and a reload of workers without being closed; a message whose
 * callback was running in a thread that died is lost, and logged.
 *
 * @param name tells definitions apart, and what comes after a reload has to have the same; unique in the process.
 * @throws OFFLOOP_BAD_CHANNEL
 */
export function defineChannel<S = undefined>(
  name: string,
  callbacks: ChannelCallbacks<S>,
): ChannelDefinition<S> {
  if (typeof name !== 'string' || !/^[^\0\n]{1,100}$/.test(name))
    throw bad(`a name is a string of 1 to 100 characters without line breaks, not ${show(name)}`);
  if (typeof callbacks !== 'object' || callbacks === null)
    throw bad(`the callbacks of '${name}' are ${show(callbacks)}, not an object`);
  const where = `defineChannel '${name}'`;
  checkOptions(callbacks as ChannelOptions, where);
  if (definitions.has(name)) throw bad(`there is another channel called '${name}' in this thread`);
  definitions.set(name, callbacks as ChannelOptions);
  return {
    name,
    open(req, options = {}) {
      const { state, ...others } = options;
      checkOptions(others, where);
      const all = { ...(callbacks as ChannelOptions), ...others };
      const encoded = encodeState(state, name);
      return openChannel(
        req,
        all,
        (...args) => new DefinedHandle(name, state, encoded, ...args),
      ) as unknown as DefinedChannel<S>;
    },
  };
}

function bad(message: string, cause?: unknown): OffloopTypeError {
  return new OffloopTypeError('OFFLOOP_BAD_CHANNEL', `defineChannel: ${message}`, { cause });
}

function show(value: unknown): string {
  return typeof value === 'string'
    ? JSON.stringify(value.slice(0, 120))
    : `${String(value)} (${typeof value})`;
}

// Not a variable of the module: a package installed twice would have two of it.
const DEFINITIONS = Symbol.for('offloop.definitions');
const here = globalThis as { [DEFINITIONS]?: Map<string, ChannelOptions> };
here[DEFINITIONS] ??= new Map();
const definitions: Map<string, ChannelOptions> = here[DEFINITIONS];

/** @internal What an event of a defined channel says of the channel. */
export interface Snapshot {
  readonly isWebSocket: boolean;
  readonly isHead: boolean;
  readonly started: boolean;
  readonly sent: number;
  readonly waiting: number;
  readonly state: string;
}

/**
 * The handle of a defined channel in one thread. In a worker it is there for as long as a callback runs; inline it lives as
 * long as the channel, as other channels do.
 */
export class DefinedHandle extends HandlerChannel {
  private value: unknown;
  private isDecoded = true;
  /** Its callback is through: the state is on its way to another. */
  private through = false;

  constructor(
    readonly name: string,
    state: unknown,
    private encoded: string,
    ...args: ConstructorParameters<typeof HandlerChannel>
  ) {
    super(...args);
    this.value = state;
  }

  /** @internal What a worker adds when it opens the channel. */
  get _definition(): string {
    return `\n${this.name}\n${this.encoded}`;
  }

  get state(): unknown {
    if (!this.isDecoded) {
      this.value = decodeState(this.encoded);
      this.isDecoded = true;
    }
    return this.value;
  }
  set state(value: unknown) {
    if (this.through) throw bad(`the state of '${this.name}' can be changed in its callbacks only`);
    this.value = value;
    this.isDecoded = true;
  }

  /** @internal Carry on where another worker has left off. */
  _resume({ isWebSocket: _, started, sent, waiting, state }: Snapshot): void {
    this.encoded = state;
    this.isDecoded = false;
    this.isPreset = true;
    this.through = false;
    this.started = started;
    this.sent = sent;
    this.gone = Math.max(0, sent - waiting);
    this.tracked = this.gone;
    if (waiting === 0) return;
    this.tracked = sent;
    this.opener.op(OP.send, this.id, '', true, null);
  }

  /** @internal A callback is through. Returns the state if it has changed. */
  _suspend(): string | null {
    this.through = true;
    if (!this.isAwaited) this.opener.forget(this);
    if (!this.isDecoded) return null;
    try {
      const encoded = encodeState(this.value, this.name);
      if (encoded === this.encoded) return null;
      this.encoded = encoded;
      return encoded;
    } catch (error) {
      this.failed(error);
      return null;
    }
  }

  override _open(): void {
    super._open();
    if (!this.opener.isOneOfMany) return;
    const settle = (): void => this.opener.op(OP.settled, this.id, this._suspend(), null, null);
    if (this.tail === undefined) settle();
    else void this.tail.then(settle);
  }

  override _flowed(total: number): void {
    if (total === -1) {
      this.isOpen = false;
      this.source?.letGo(false, clientGone());
      this.neverLeaves();
    } else super._flowed(total);
    if (this.through && !this.isAwaited) this.opener.forget(this);
  }

  /** @internal The last event. */
  _ended(status: ChannelStatus, code: number, reason: string): Promise<void> | undefined {
    this.isOpen = false;
    return this.runClose(status, code, reason);
  }

  protected override end(status: ChannelStatus, code: number, reason: string): Promise<void> | undefined {
    if (!this.opener.isOneOfMany) return super.end(status, code, reason);
    // The callback for it is an event of its own: it may run in another worker, behind what has come before.
    this.isOpen = false;
    this.source?.letGo(false, clientGone());
    this.neverLeaves();
    return undefined;
  }
}

/** @internal A handle for a channel of this name, or undefined when there is no such definition in this thread. */
export function resumeDefined(
  opener: ChannelOpener,
  id: string,
  name: string,
  snapshot: Snapshot,
): DefinedHandle | undefined {
  const options = definitions.get(name);
  if (options === undefined) return undefined;
  const { isWebSocket, isHead } = snapshot;
  return new DefinedHandle(name, undefined, '', opener, id, isWebSocket, isHead, options, undefined);
}

/** @internal The subprotocol as a worker sends it, with what else there is to say of a channel that is opened. */
export function openingOf(channel: HandlerChannel, accept: Accept | null): string {
  const protocol = accept?.protocol ?? '';
  return channel instanceof DefinedHandle ? protocol + channel._definition : protocol;
}

function encodeState(state: unknown, name: string): string {
  if (state === undefined) return '';
  let bytes: Buffer;
  try {
    bytes = serialize(state);
  } catch (cause) {
    throw bad(`the state of '${name}' cannot be cloned: ${(cause as Error).message}`, cause);
  }
  if (bytes.byteLength > MAX_STATE)
    throw bad(`the state of '${name}' has ${bytes.byteLength} bytes; allowed: ${MAX_STATE}`);
  // As text: it travels in the string of a batch.
  return bytes.toString('base64');
}

function decodeState(encoded: string): unknown {
  return encoded === '' ? undefined : deserialize(Buffer.from(encoded, 'base64'));
}
