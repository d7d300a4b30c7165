import { BODY_WINDOW } from '../protocol.js';
import type { EngineResponse } from './engine.js';

/** Bytes that are kept at most while reading cannot be stopped for long. */
const KEPT_AT_MOST = 16 * 1024 * 1024;
/** Ms between reads then, while one window is kept; four times as long with two, nine times with three. */
const SHORT_PAUSE = 10;
const LONGEST_PAUSE = 5000;

/** What decides whether to read. */
export interface Braked {
  /** There is as much as may be. */
  readonly isFull: boolean;
  readonly keptBytes: number;
  /** Some of an answer that goes out at the same time waits for the client to read. */
  readonly answerWaits: boolean;
  /** See whether it can go on. */
  tryWriting(): void;
  /** The client sends and sends, and reads nothing of its answer. */
  stuck(): void;
}

/**
 * Stops reading from one socket, and goes on. The engine's way of doing that has its traps:
 *
 * - What a socket was polled for is remembered in two places for all sockets of the thread: one for those with unsent bytes, one for the
 *   others. `resume` takes what it finds there, nothing at all if nobody has been paused. So it comes right behind a `pause`, and nothing
 *   is paused in the engine's callback, which may end by sending what waited.
 * - A paused socket does not send what waits, either. So while an answer waits, pauses are short.
 * - Sending that does not get through makes a paused socket read again. When that are bytes the engine held itself, it does not say so.
 * - `resume` gives the client ten seconds, until it has sent all or is paused again.
 */
export class Brake {
  private on = false;
  private scheduled = false;
  private timer: NodeJS.Timeout | undefined;
  private over = false;

  constructor(
    private readonly res: EngineResponse,
    private readonly braked: Braked,
  ) {}

  /** Something has come, or has been taken. */
  check(): void {
    if (this.over) return;
    if (!this.braked.isFull) this.readOn();
    else if (!this.on && !this.scheduled) {
      this.scheduled = true;
      // Before the next packet is read.
      setImmediate(this.checkNow);
    }
  }

  /** The same, outside of the engine's callbacks. */
  readonly checkNow = (): void => {
    this.scheduled = false;
    if (this.over) return;
    if (!this.braked.isFull) {
      this.readOn();
    } else if (!this.on) {
      this.on = true;
      this.res.pause();
      if (this.braked.answerWaits) this.readOnSoon();
    }
  };

  private readOnSoon(): void {
    const { keptBytes } = this.braked;
    if (keptBytes > KEPT_AT_MOST) {
      this.braked.stuck();
      return;
    }
    const ms = SHORT_PAUSE * Math.max(1, keptBytes / BODY_WINDOW) ** 2;
    this.timer = setTimeout(
      () => {
        this.readOn();
        // What waited may have left unnoticed.
        this.braked.tryWriting();
        this.check();
      },
      Math.min(LONGEST_PAUSE, ms),
    );
  }

  private readOn(): void {
    if (!this.on) return;
    this.on = false;
    clearTimeout(this.timer);
    this.res.pause();
    this.res.resume();
  }

  /** Some of an answer was not sent. */
  unsent(): void {
    this.released();
    this.check();
  }

  /** Something comes, so it is read from: the engine may have begun that by itself, and unnoticed. */
  released(): void {
    this.on = false;
    clearTimeout(this.timer);
  }

  /** The last byte has come. Returns whether reading had to be started again: the engine's ten seconds run then. */
  ended(): boolean {
    const { on } = this;
    this.readOn();
    this.forget();
    return on;
  }

  /** The engine's response may not be touched again. */
  forget(): void {
    this.over = true;
    clearTimeout(this.timer);
  }
}
