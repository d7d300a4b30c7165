/** The I/O side of a response whose body is read bit by bit, on the thread of its handler. Lives on the I/O thread. */
import { BODY_CHUNK, type BodyLine, type BodyOwner } from '../protocol.js';

/** What a body needs of its exchange. */
export interface BodyExchange {
  startStream(status: number, head: string, flags: number, length: number | null): void;
  /** When anything of it was last given or taken; undefined before `startStream`. */
  readonly movedAt: number | undefined;
  /** Returns false when the client reads slowly; `drained` follows. */
  writeStream(data: Uint8Array): boolean;
  /** Whether it still has some of what was written. */
  readonly holdsAny: boolean;
  endStream(): void;
  /** Log why the rest will never come, and cut the connection. */
  failStream(error: unknown): void;
}

export class ResponseBody implements BodyLine {
  private readonly openedAt = performance.now();
  private ended = false;
  private sent = 0;
  private flowing = true;
  private tracked = false;
  /** Memory of what has been written. */
  private spare: ArrayBuffer[] = [];

  constructor(
    private readonly owner: BodyOwner,
    private readonly exchange: BodyExchange,
  ) {}

  get movedAt(): number {
    return this.exchange.movedAt ?? this.openedAt;
  }

  // ------------------------------------------------------------------------------------------------ from its owner

  start(status: number, head: string, flags: number, length: number | null): void {
    if (!this.ended) this.exchange.startStream(status, head, flags, length);
  }

  send(data: Uint8Array, track: boolean): void {
    if (this.ended) return;
    this.sent += data.byteLength;
    if (data.byteLength > 0) {
      this.flowing = this.exchange.writeStream(data);
      if (data.buffer.byteLength === BODY_CHUNK && !this.exchange.holdsAny)
        this.spare.push(data.buffer as ArrayBuffer);
    }
    if (!track || this.ended) return;
    if (this.flowing) this.flowed();
    else this.tracked = true;
  }

  end(): void {
    if (this.ended) return;
    this.exchange.endStream();
    this.close(true);
  }

  fail(error: unknown): void {
    if (this.ended) return;
    this.exchange.failStream(error);
    this.close(false);
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
    this.flowed();
  }

  private flowed(): void {
    const { spare } = this;
    this.spare = [];
    this.owner.flowed(this.sent, spare);
  }

  /** The client is gone. */
  gone(): void {
    this.close(false);
  }

  private close(whole: boolean): void {
    if (this.ended) return;
    this.ended = true;
    this.owner.closed(this, whole);
  }
}
