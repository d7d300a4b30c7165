import type { Answer } from '../protocol.js';
import { type BodyFlow, DROP_AT_MOST } from './body-flow.js';

/** Ms for which an answer that does not need the rest of the body waits for it, if there is little of it. */
const DROP_WITHIN = 250;
/** Ms between looks whether a client that has its answer still sends. */
const LINGER_STEP = 100;
/** Ms after which it is cut in any case. */
const LINGER_AT_MOST = 2000;

/** What is done with the answer. Not called when the exchange is over. */
export interface LeftoverOwner {
  readonly over: boolean;
  /** The body has come after all: answer as ever. */
  sendNow(answer: Answer): void;
  /** It has not: answer, and close the connection behind it. */
  sendAhead(answer: Answer): void;
}

/**
 * What is left of a body when its request has been answered: read and thrown away, so that the connection can be kept, or be closed without
 * the answer being lost. Answered while a body is still coming, the engine would take the connection for an idle one when that
 * has come, and leave it open for ever.
 */
export class Leftover {
  private answer: Answer | undefined;
  private timer: NodeJS.Timeout | undefined;
  private done: (() => void) | undefined;
  private since = 0;

  constructor(
    private readonly flow: BodyFlow,
    private readonly owner: LeftoverOwner,
  ) {}

  /** If little is left, and comes soon, the answer waits for it. `hurry`: it does not. */
  send(answer: Answer, hurry: boolean): void {
    this.answer = answer;
    if (!this.flow.drop(DROP_AT_MOST) || hurry) this.endless();
    else this.timer = setTimeout(this.endless, DROP_WITHIN);
  }

  /** It is too much, or takes too long. */
  readonly endless = (): void => {
    const answer = this.take();
    if (answer !== undefined && !this.owner.over) this.owner.sendAhead(answer);
  };

  /**
   * Do this when the client has stopped sending, or after two seconds. Closing on one that is still sending would reset the connection,
   * and what it has not read of the answer would be lost.
   */
  linger(done: () => void): void {
    this.done = done;
    this.since = performance.now();
    clearTimeout(this.timer);
    this.flow.drop(Number.POSITIVE_INFINITY);
    this.look();
  }

  private look(): void {
    const { flow } = this;
    flow.heard = false;
    this.timer = setTimeout(() => {
      if (flow.heard && !flow.ended && performance.now() - this.since < LINGER_AT_MOST) this.look();
      else this.finish();
    }, LINGER_STEP);
    this.timer.unref();
  }

  private readonly finish = (): void => {
    const { done } = this;
    this.done = undefined;
    clearTimeout(this.timer);
    if (!this.owner.over) done?.();
  };

  /** The last byte has come. */
  ended(): void {
    const answer = this.take();
    if (answer !== undefined) this.owner.sendNow(answer);
    else setImmediate(this.finish);
  }

  /** The client is gone. */
  forget(): void {
    clearTimeout(this.timer);
    this.answer = undefined;
    this.done = undefined;
  }

  private take(): Answer | undefined {
    const { answer } = this;
    this.answer = undefined;
    if (answer !== undefined) clearTimeout(this.timer);
    return answer;
  }
}
