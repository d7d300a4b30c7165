/** The I/O side of channels: a WebSocket, or a response whose body goes on. Lives on the I/O thread. */
import { sizeOf, textOf } from '../bytes.js';
import {
  type Answer,
  type ChannelFlow,
  type ChannelLine,
  type ChannelOwner,
  type ChannelStatus,
  CUT,
  FLAG_PRESET,
  type Payload,
} from '../protocol.js';
import type { EngineWebSocket, UpgradeContext, WebSocketEvents } from './engine.js';

/** Bytes that may wait for a client that reads slowly; what is published beyond is dropped for it. */
export const MAX_BACKPRESSURE = 16 * 1024 * 1024;

/** What a channel needs of the server it belongs to. */
export interface ChannelHost {
  /** Whether messages that compress well are compressed. */
  readonly compress: boolean;
  /** Whether connections are encrypted. */
  readonly secure: boolean;
  channelOpened(line: ServerLine): void;
  /** `told`: when its owner has been told. */
  channelClosed(line: ServerLine, told: Promise<unknown> | undefined): void;
  /** More has come than could be taken. */
  channelOverflow(): void;
  /** A channel ends, and those callbacks that would hear of it are gone. */
  channelLost(): void;
  subscribe(topic: string, line: StreamLine): void;
  unsubscribe(topic: string, line: StreamLine): void;
  broken(error: unknown): void;
}

/** A channel as its server sees it. */
export interface ServerLine extends ChannelLine {
  /** The server is stopping: say so and end. */
  stop(): void;
}

/** Why a WebSocket was closed, by the code of its Close frame. RFC 6455, 7.4.1; the words are http-kit's. */
const STATUSES: Record<number, ChannelStatus> = {
  1000: 'normal',
  1001: 'going-away',
  1002: 'protocol-error',
  1003: 'unsupported',
  1005: 'no-status-received',
  // No Close frame: the connection broke. http-kit calls that so, too.
  1006: 'going-away',
  1007: 'invalid-payload-data',
  1008: 'policy-violation',
  1009: 'message-too-big',
  1010: 'mandatory-extension',
  1011: 'internal-server-error',
};

/** The engine's reason when a message is larger than `maxWs`. */
const TOO_BIG = 'Received too big message';

export class WebSocketLine implements ServerLine, WebSocketEvents {
  private ws: EngineWebSocket | undefined;
  private publishElsewhere: UpgradeContext['last']['publishElsewhere'] | undefined;
  private sent = 0;
  private tracked = false;
  private corked = false;
  /** The upgrade has returned. */
  private known = false;
  private ended = false;
  private closedAs: { readonly code: number; readonly reason: string } | undefined;

  constructor(
    readonly id: string,
    private readonly owner: ChannelOwner,
    private readonly host: ChannelHost,
  ) {}

  /** Over TLS the engine forgets what it has read and not decrypted yet when anything is sent from one of its callbacks. */
  get defers(): boolean {
    return this.host.secure;
  }

  // ------------------------------------------------------------------------------------------------ from its owner

  answer(): void {
    // Responses are for HTTP; the owner knows which kind it has.
  }
  start(): void {}
  preset(): void {}
  presetStop(): void {}

  get flow(): ChannelFlow {
    const waiting = this.ended ? 0 : (this.ws?.getBufferedAmount() ?? 0);
    return { isWebSocket: true, isHead: false, started: true, sent: this.sent, waiting };
  }

  send(data: string | Uint8Array, track: boolean): void {
    const { ws } = this;
    if (ws === undefined || this.ended) return;
    if (typeof data !== 'string' || data !== '' || !track) {
      this.sent += sizeOf(data);
      ws.send(data, typeof data !== 'string', this.host.compress);
    }
    if (!track) return;
    this.tracked = true;
    if (!this.corked) this.tellIfFlowed();
  }

  together(work: () => void): void {
    if (this.ws === undefined || this.ended) return;
    this.corked = true;
    this.ws.cork(() => this.guard(work));
    this.corked = false;
    // In the cork the engine does not say what waits.
    this.tellIfFlowed();
  }

  private tellIfFlowed(): void {
    if (!this.tracked || this.ws?.getBufferedAmount() !== 0) return;
    this.tracked = false;
    this.owner.flowed(this, this.sent);
  }

  close(code: number, reason: string): void {
    if (this.ws === undefined || this.ended) return;
    this.closedAs = { code, reason };
    // The engine tells of the end before it returns.
    this.ws.end(code, reason);
  }

  subscribe(topic: string): void {
    if (!this.ended) this.ws?.subscribe(topic);
  }
  unsubscribe(topic: string): void {
    if (!this.ended) this.ws?.unsubscribe(topic);
  }
  publishToOthers(topic: string, data: string | Uint8Array): boolean {
    if (this.ws === undefined || this.ended) return false;
    this.ws.publish(topic, data, typeof data !== 'string', this.host.compress);
    this.publishElsewhere?.(topic, data, typeof data !== 'string');
    return true;
  }

  overflow(): void {
    this.host.channelOverflow();
    this.close(1013, 'Server overloaded');
  }
  abandon(): void {
    this.close(1012, 'Service restart');
  }
  lose(): void {
    if (this.ws === undefined || this.ended) return;
    this.host.channelLost();
    this.abandon();
  }
  stop(): void {
    this.close(1001, 'Server is shutting down');
  }

  // ----------------------------------------------------------------------------------------------- from the engine

  opened({ opened, publishElsewhere }: UpgradeContext['last']): void {
    this.known = true;
    if (this.ended) return;
    this.ws = opened;
    this.publishElsewhere = publishElsewhere;
  }
  message(data: ArrayBuffer, isBinary: boolean): void {
    if (this.ended || this.closedAs !== undefined) return;
    // What `guard` does, without a function for each message.
    try {
      this.owner.message(this, data, !isBinary);
    } catch (error) {
      this.host.broken(error);
    }
  }
  ping(data: ArrayBuffer): void {
    if (this.ended || this.closedAs !== undefined) return;
    this.guard(() => this.owner.ping(this, data));
  }
  drain(): void {
    this.guard(() => this.tellIfFlowed());
  }
  closed(code: number, reason: ArrayBuffer): void {
    if (this.ended) return;
    this.ended = true;
    this.ws = undefined;
    const text = textOf(reason);
    if (this.known) this.tellOfEnd(code, text);
    // Its owner gets to know the line when the upgrade returns, and could make nothing of the end of one it does not know.
    else setImmediate(() => this.tellOfEnd(code, text));
  }

  private tellOfEnd(code: number, reason: string): void {
    const { closedAs } = this;
    this.guard(() => {
      const told =
        closedAs === undefined
          ? this.report(code, reason)
          : this.owner.closed(this, 'server-close', closedAs.code, closedAs.reason);
      this.host.channelClosed(this, told);
    });
  }

  private report(code: number, reason: string): Promise<unknown> | undefined {
    // The engine drops who sends too much without a Close frame.
    if (code === 1006 && reason === TOO_BIG) return this.owner.closed(this, 'message-too-big', 1009, reason);
    return this.owner.closed(this, STATUSES[code] ?? 'unknown', code, reason);
  }

  /** An exception must not get into the engine. */
  private guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.host.broken(error);
    }
  }
}

/** What a streamed response needs of its exchange. */
export interface StreamExchange {
  answer(status: number, head: string, payload: Payload, flags: number): void;
  startStream(status: number, head: string, flags: number, length: number | null): void;
  /** Returns false when the client reads slowly; `drained` follows. */
  writeStream(data: string | Uint8Array): boolean;
  /** Bytes that wait for the client to read. */
  readonly kept: number;
  readonly isHead: boolean;
  endStream(): void;
  /** Cut the connection: the rest will never come. */
  cutStream(): void;
  refuseStopping(): void;
  refuseFailed(): void;
}

export class StreamLine implements ServerLine {
  private started = false;
  private ended = false;
  private sent = 0;
  private flowing = true;
  private tracked = false;
  private readonly topics = new Set<string>();
  private status = 200;
  private head = '';
  private flags = 0;
  private atStop: Answer | undefined;

  constructor(
    readonly id: string,
    private readonly owner: ChannelOwner,
    private readonly host: ChannelHost,
    private readonly exchange: StreamExchange,
  ) {}

  // ------------------------------------------------------------------------------------------------ from its owner

  answer(status: number, head: string, payload: Payload, flags: number): void {
    if (this.ended) return;
    if (this.started) {
      // Published data was first, and brought a head of its own.
      if (payload !== null && typeof payload !== 'number') this.send(payload, false);
      this.close(1000);
      return;
    }
    if ((flags & FLAG_PRESET) === 0) this.exchange.answer(status, head, payload, flags);
    else this.exchange.answer(this.status, this.head, payload, this.flags);
    this.end('server-close');
  }

  preset(status: number, head: string, flags: number): void {
    this.status = status;
    this.head = head;
    this.flags = flags;
  }
  presetStop(status: number, head: string, payload: Payload, flags: number): void {
    this.atStop = { status, head, payload, flags };
  }

  get flow(): ChannelFlow {
    // The piece that the engine has is not counted as kept.
    const waiting = this.flowing ? 0 : this.exchange.kept + 1;
    const { started, sent } = this;
    return { isWebSocket: false, isHead: this.exchange.isHead, started, sent, waiting };
  }

  start(status: number, head: string, flags: number, length: number | null): void {
    if (this.ended || this.started) return;
    this.started = true;
    if ((flags & FLAG_PRESET) === 0) this.exchange.startStream(status, head, flags, length);
    else this.exchange.startStream(this.status, this.head, this.flags, length);
  }

  send(data: string | Uint8Array, track: boolean): void {
    if (this.ended) return;
    if (data.length > 0) {
      // Published data and `channel(id)` know nothing of heads.
      if (!this.started) this.start(this.status, this.head, this.flags, null);
      this.sent += sizeOf(data);
      this.flowing = this.exchange.writeStream(data);
    }
    if (!track) return;
    if (this.flowing) this.owner.flowed(this, this.sent);
    else this.tracked = true;
  }

  together(work: () => void): void {
    work();
  }

  close(code: number): void {
    if (this.ended) return;
    if (code === CUT) {
      this.fail();
    } else if (this.started) {
      this.exchange.endStream();
      this.end('server-close');
    } else {
      this.answer(this.status, this.head, 0, this.flags);
    }
  }

  /** Data published under a topic; `close` ends a long poll with it. */
  published(data: string | Uint8Array, close: boolean): void {
    if (this.ended) return;
    if (close && !this.started) this.answer(this.status, this.head, data, this.flags);
    else {
      // Its handler can bound what it sends itself, but not this.
      if (this.exchange.kept <= MAX_BACKPRESSURE) this.send(data, false);
      if (close) this.close(1000);
    }
  }

  /** The handler threw after it had opened the channel: if nothing has been said, nothing will be. */
  handlerFailed(): void {
    if (!this.started && !this.ended) this.fail();
  }

  /** The rest of the response will never come; nothing of it has, so it is a 500. */
  private fail(): void {
    if (this.started) this.exchange.cutStream();
    else this.exchange.refuseFailed();
    this.end('server-close');
  }

  subscribe(topic: string): void {
    if (this.ended) return;
    this.topics.add(topic);
    this.host.subscribe(topic, this);
  }
  unsubscribe(topic: string): void {
    this.topics.delete(topic);
    this.host.unsubscribe(topic, this);
  }

  overflow(): void {
    this.abandon();
  }
  abandon(): void {
    if (this.ended) return;
    this.exchange.cutStream();
    this.end('server-close');
  }
  lose(): void {
    if (this.ended) return;
    this.host.channelLost();
    this.abandon();
  }
  stop(): void {
    if (this.ended) return;
    const { atStop } = this;
    if (this.started) this.exchange.endStream();
    else if (atStop === undefined) this.exchange.refuseStopping();
    else this.exchange.answer(atStop.status, atStop.head, atStop.payload, atStop.flags);
    this.end('server-close');
  }

  // --------------------------------------------------------------------------------------------- from its exchange

  /** Whether all that was written is on its way to the client. */
  get isFlowing(): boolean {
    return this.flowing;
  }
  drained(): void {
    this.flowing = true;
    if (!this.tracked) return;
    this.tracked = false;
    this.owner.flowed(this, this.sent);
  }

  /** The client is gone. */
  gone(): void {
    this.end('client-close');
  }

  private end(status: ChannelStatus): void {
    if (this.ended) return;
    this.ended = true;
    for (const topic of this.topics) this.host.unsubscribe(topic, this);
    this.host.channelClosed(this, this.owner.closed(this, status, 0, ''));
  }
}
