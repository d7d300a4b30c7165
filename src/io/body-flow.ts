import { copyInto, memoryFor } from '../bytes.js';
import { BODY_WINDOW, type BodyProblem, type BodySink, type IncomingBody, SHARE_FROM } from '../protocol.js';
import { Brake, type Braked } from './brake.js';
import { ChunkBuffer } from './chunk-buffer.js';
import type { EngineResponse } from './engine.js';

/** Bytes of a body after which its handler is started though there is more to come. */
export const STREAM_FROM = 1024 * 1024;
/** Bytes that are read and thrown away of a body that nobody wants, so that its connection can be kept. */
export const DROP_AT_MOST = 256 * 1024;

/** Whose body it is. Called from within the engine's callback. */
export interface FlowOwner {
  /** Some of an answer that goes out while the body comes waits for the client to read. */
  readonly answerWaits: boolean;
  /** All of it is here, or as much as is waited for while more is to come. */
  bodyReady(): void;
  /** More bytes than it may have (`most`) have come before it was ready. What follows is thrown away. */
  bodyTooLarge(size: number, most: number): void;
  /** The last byte has come of one that was not complete when it was ready. `resumed`: reading was stopped until now. */
  bodyEnded(resumed: boolean): void;
  /** More has been thrown away than was allowed for. Nothing is read until it is dropped anew. */
  bodyEndless(): void;
  tryWriting(): void;
  /** The client sends and sends, and reads nothing of its answer. */
  stuck(): void;
  /** Something of ours threw: it must not get into the engine. */
  rescue(error: unknown): void;
}

export interface FlowLimits {
  /** Bytes it may have in all. */
  readonly most: number;
  /** Bytes after which it is ready though there is more to come; 0 = it is from the start. */
  readonly readyFrom: number;
  /** Content-Length, or -1. */
  readonly declared: number;
  /** Whether it is to be read on another thread. */
  readonly crossesThreads: boolean;
}

/** The share of a declared length that has to be there for memory to be got for all of it: declaring costs a client nothing. */
const BELIEVED_FROM = 1 / 2;

/**
 * The body of one request on its way in: collected at first, and from a certain size on handed over as fast as its reader takes
 * it, the socket being paused meanwhile. Lives on the I/O thread, from the engine's callback for the head until the last byte has come
 * or the exchange is over. The engine allows one listener for a body, so this one stays to the end.
 */
export class BodyFlow implements IncomingBody, Braked {
  /** Whether anything has come since this was last set to false. */
  heard = false;
  /** Whether the last byte has come. */
  ended = false;
  /** It is larger than it may be: its connection is of no more use. */
  tooLarge = false;

  private phase: 'collecting' | 'flowing' | 'whole' | 'dropping' = 'collecting';
  private readonly kept = new ChunkBuffer();
  /** Where all of it goes, and what has come of it lies, once that is worth it. */
  private target: Uint8Array | undefined;
  private size = 0;
  private complete: Uint8Array | null = null;
  private reader: BodySink | undefined;
  /** Somebody is to read it. */
  private claimed = false;
  /** The reader has begun, and may get so many bytes more. */
  private asked = false;
  private credit = 0;
  private deliveryScheduled = false;
  /** What has become of it, for a reader that comes later. */
  private problem: BodyProblem | undefined;
  private dropMost = 0;
  private dropped = 0;
  private waitedBefore = 0;
  private waitingSince: number | undefined;
  private readonly brake: Brake;

  constructor(
    res: EngineResponse,
    private readonly owner: FlowOwner,
    private readonly limits: FlowLimits,
  ) {
    this.brake = new Brake(res, this);
    if (limits.readyFrom === 0) this.phase = 'flowing';
    res.onData((chunk, isLast) => {
      try {
        this.take(chunk, isLast);
      } catch (error) {
        this.drop(0);
        owner.rescue(error);
      }
    });
  }

  private take(chunk: ArrayBuffer, isLast: boolean): void {
    this.heard = true;
    this.ended = isLast;
    this.size += chunk.byteLength;
    this.stopWaiting();
    this.brake.released();
    if (this.phase === 'dropping') this.throwAway(chunk.byteLength);
    else if (this.size > this.limits.most) this.excess();
    else if (this.phase === 'collecting') this.collect(chunk, isLast);
    else {
      this.kept.push(chunk);
      this.scheduleDelivery();
      if (isLast) this.end();
      else this.brake.check();
    }
  }

  private end(): void {
    this.owner.bodyEnded(this.brake.ended());
  }

  private collect(chunk: ArrayBuffer, isLast: boolean): void {
    const { declared, readyFrom } = this.limits;
    if (isLast) {
      this.place(chunk, this.size);
      this.becomeWhole();
      this.owner.bodyReady();
    } else if (declared > 0 && declared <= readyFrom && this.size >= declared * BELIEVED_FROM) {
      this.place(chunk, declared);
    } else {
      this.kept.push(chunk);
      if (this.size <= readyFrom) return;
      this.phase = 'flowing';
      this.brake.check();
      this.owner.bodyReady();
    }
  }

  /** Copy the chunk that has just come to where it will stay. The body will have `size` bytes. */
  private place(chunk: ArrayBuffer, size: number): void {
    copyInto(this.targetFor(size), new Uint8Array(chunk), this.size - chunk.byteLength);
  }

  private targetFor(size: number): Uint8Array {
    if (this.target === undefined) {
      const shared = this.limits.crossesThreads && size >= SHARE_FROM;
      this.target = shared ? new Uint8Array(new SharedArrayBuffer(size)) : memoryFor(size);
      this.kept.moveTo(this.target);
    }
    return this.target;
  }

  private becomeWhole(): void {
    this.phase = 'whole';
    if (this.size > 0) this.complete = this.targetFor(this.size);
    this.target = undefined;
  }

  /**
   * Its bytes, or null when there are none, or they have to be asked for. To be read each time its invocation is given to
   * somebody: what has come as a whole by then need not flow.
   */
  get whole(): Uint8Array | null {
    if (this.phase === 'flowing' && this.ended && !this.claimed && this.problem === undefined)
      this.becomeWhole();
    return this.complete;
  }

  /** Whether it has to be asked for. Read {@link whole} first. */
  get flows(): boolean {
    return this.phase !== 'whole';
  }

  // -------------------------------------------------------------------------------------------------------- reading

  pull(sink: BodySink, bytes: number, waiting: boolean): void {
    if (this.problem !== undefined) {
      sink.broken(this.problem);
      return;
    }
    this.claimed = true;
    this.reader = sink;
    this.credit += bytes;
    if (bytes > 0) this.asked = true;
    if (waiting && !this.ended && this.kept.bytes === 0) this.waitingSince ??= performance.now();
    this.deliver();
    this.brake.check();
  }

  /** All that comes in one turn goes to the reader together. */
  private scheduleDelivery(): void {
    if (this.deliveryScheduled || this.reader === undefined) return;
    this.deliveryScheduled = true;
    setImmediate(this.deliverLater);
  }

  private readonly deliverLater = (): void => {
    this.deliveryScheduled = false;
    try {
      this.deliver();
      this.brake.checkNow();
    } catch (error) {
      this.owner.rescue(error);
    }
  };

  private deliver(): void {
    const { reader, kept } = this;
    if (reader === undefined || !this.asked) return;
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    while (this.credit > 0) {
      const chunk = kept.shift();
      if (chunk === undefined) break;
      this.credit -= chunk.byteLength;
      chunks.push(chunk);
    }
    const last = this.ended && kept.bytes === 0;
    if (chunks.length === 0 && !last) return;
    if (last) this.reader = undefined;
    reader.data(chunks, last);
  }

  get waited(): number {
    return this.waitedBefore + (this.waitingSince === undefined ? 0 : performance.now() - this.waitingSince);
  }

  private stopWaiting(): void {
    this.waitedBefore = this.waited;
    this.waitingSince = undefined;
  }

  get isFull(): boolean {
    if (this.phase === 'dropping') return this.dropped > this.dropMost;
    return this.kept.bytes >= (this.asked ? this.credit : BODY_WINDOW);
  }

  get keptBytes(): number {
    return this.kept.bytes;
  }
  get answerWaits(): boolean {
    return this.owner.answerWaits;
  }
  tryWriting(): void {
    this.owner.tryWriting();
  }
  stuck(): void {
    this.owner.stuck();
  }

  /** Some of the answer waits for the client to read, or does no longer. */
  unsent(): void {
    this.brake.unsent();
  }
  sent(): void {
    this.brake.check();
  }

  // ------------------------------------------------------------------------------------------------------- dropping

  /** Its handler wants no more of it. As much is read as is allowed for, since that keeps the connection. */
  cancel(): void {
    this.reader = undefined;
    if (this.problem === undefined) this.drop(DROP_AT_MOST);
  }

  /**
   * Throw away what is left, `most` bytes at most. Returns false when it is known to be more. Whoever reads it is told that it has been
   * answered.
   */
  drop(most: number): boolean {
    this.fail({ kind: 'answered' });
    this.phase = 'dropping';
    this.dropMost = most;
    this.dropped = 0;
    this.brake.check();
    const { declared } = this.limits;
    return !this.tooLarge && (declared === -1 || declared - this.size <= most);
  }

  private throwAway(bytes: number): void {
    this.dropped += bytes;
    if (this.ended) {
      this.end();
      return;
    }
    this.brake.check();
    if (this.dropped > this.dropMost) this.owner.bodyEndless();
  }

  private excess(): void {
    const { size, limits } = this;
    const early = this.phase === 'collecting';
    this.tooLarge = true;
    this.fail({ kind: 'too-large', size, max: limits.most });
    this.drop(0);
    if (early) this.owner.bodyTooLarge(size, limits.most);
    else if (this.ended) this.end();
  }

  /** The exchange is over: `gone` when its client is, `answered` otherwise. The engine's response may not be touched again. */
  over(kind: 'gone' | 'answered'): void {
    this.brake.forget();
    this.fail({ kind });
  }

  private fail(problem: BodyProblem): void {
    const { reader } = this;
    this.reader = undefined;
    this.stopWaiting();
    this.kept.clear();
    this.target = undefined;
    // What came as a whole stays readable.
    if (this.phase === 'whole') return;
    this.problem ??= problem;
    reader?.broken(problem);
  }
}
