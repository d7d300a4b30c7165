/** Takes the place of the connection, of which the thread of a handler has none. */
import { Duplex } from 'node:stream';

/** What a socket needs of the call it belongs to. */
export interface SocketOwner {
  readonly remoteAddr: string;
  readonly scheme: 'http' | 'https';
  readonly serverPort: number;
  /** Written and not yet taken. */
  readonly waiting: number;
  /** See Writable.write; false asks to wait for 'drain'. */
  written(data: string | Uint8Array, encoding: BufferEncoding | null, done: Done | undefined): boolean;
  /** Nothing has moved for as long as was asked for. Returns whether anybody was listening. */
  timedOut(): boolean;
  /** The request is being read, and has nothing left. */
  wanted(): void;
  /** It is gone: destroyed by the handler, or because the client is. */
  dropped(error: Error | null): void;
}

export type Done = (error?: Error | null) => void;

/**
 * `req.socket` and `res.socket`. Tells what frameworks ask of a connection, and takes what a ServerResponse writes; nobody else
 * can write to it, and it has nothing to read: the body of the request comes to the request itself.
 */
export class NodeSocket extends Duplex {
  /** Fields of net.Socket that are the same for all. */
  readonly connecting = false;
  readonly pending = false;
  /** Keeps Node from reporting the end of a response whose connection is gone. */
  _hadError = false;
  private timer: NodeJS.Timeout | undefined;
  /** In ms; 0 = none. As in net.Socket. */
  timeout = 0;

  constructor(readonly owner: SocketOwner) {
    super({ autoDestroy: false });
  }

  /** Undefined on a Unix domain socket. */
  get remoteAddress(): string | undefined {
    return this.owner.remoteAddr || undefined;
  }
  get remoteFamily(): 'IPv4' | 'IPv6' | undefined {
    const { remoteAddr } = this.owner;
    return remoteAddr === '' ? undefined : remoteAddr.includes(':') ? 'IPv6' : 'IPv4';
  }
  /** The port the client has asked for. */
  get localPort(): number {
    return this.owner.serverPort;
  }
  get encrypted(): boolean {
    return this.owner.scheme === 'https';
  }
  get readyState(): 'open' | 'closed' {
    return this.destroyed ? 'closed' : 'open';
  }

  address(): { port: number } {
    return { port: this.localPort };
  }
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }

  /** As of net.Socket: 'timeout' when nothing has been read or written for so long. Where nobody listens, it is destroyed. */
  setTimeout(ms: number, listener?: () => void): this {
    clearTimeout(this.timer);
    this.timeout = ms;
    this.timer = undefined;
    if (ms > 0) {
      this.timer = setTimeout(() => {
        if (!this.owner.timedOut() && !this.emit('timeout')) this.destroy();
      }, ms);
      this.timer.unref();
    }
    if (listener !== undefined) {
      if (ms > 0) this.once('timeout', listener);
      else this.removeListener('timeout', listener);
    }
    return this;
  }

  /** Something has been read or written. */
  moved(): void {
    this.timer?.refresh();
  }

  override write(chunk: unknown, encoding?: unknown, done?: unknown): boolean {
    if (this.destroyed) return false;
    this.moved();
    const last = typeof encoding === 'function' ? encoding : done;
    return this.owner.written(
      chunk as string | Uint8Array,
      typeof encoding === 'string' ? (encoding as BufferEncoding) : null,
      typeof last === 'function' ? (last as Done) : undefined,
    );
  }

  // A response is ended, not its connection.
  override end(): this {
    return this.destroy();
  }
  destroySoon(): void {
    this.destroy();
  }

  /** How a request asks for more of its body. */
  override resume(): this {
    this.owner.wanted();
    return this;
  }

  override _read(): void {}

  // The error is for the call: as an 'error' event nobody listens to it would end the thread.
  override _destroy(error: Error | null, done: Done): void {
    clearTimeout(this.timer);
    this._hadError = true;
    this.owner.dropped(error);
    done(null);
  }
}

// A property to the types of Node, and an accessor in truth: what a response has waiting is part of its own length.
Object.defineProperty(NodeSocket.prototype, 'writableLength', {
  get(this: NodeSocket): number {
    return this.owner.waiting;
  },
  configurable: true,
});
