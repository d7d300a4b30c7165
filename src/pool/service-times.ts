/** What invocations of one mount have cost their thread lately, in microseconds. */

/**
 * Each further sample counts the worst one before this much less. A mount with one slow invocation in twenty never
 * gets below the budget, so nothing travels behind its slow ones; a single pause for garbage is forgotten in two dozen.
 */
const DECAY = 0.9;

/** Answers given without waiting in a row after which a mount is not async any more. */
const ASYNC_MEMORY = 64;

export class ServiceTimes {
  private worst = -1;
  /** How many more answers in time it takes until the mount counts as synchronous again. */
  private async = 0;
  private average = 0;

  /** What to expect of the next invocation: the decaying worst. Undefined as long as nothing has been seen. */
  get expected(): number | undefined {
    return this.worst < 0 ? undefined : this.worst;
  }

  /** Whether its handler has lately returned promises that had to wait: their continuations will want a thread too. */
  get isAsync(): boolean {
    return this.async > 0;
  }

  /** Exponential mean, for Retry-After. */
  get mean(): number {
    return this.average;
  }

  /** Whether it is known to take at most this many microseconds on average. */
  isBrief(micros: number): boolean {
    return this.worst >= 0 && this.average <= micros;
  }

  sample(micros: number, pending: boolean): void {
    if (pending) this.async = ASYNC_MEMORY;
    else if (this.async > 0) this.async--;
    // The first sample counts in full: a server just started knows no better.
    this.average += (micros - this.average) * (this.worst < 0 ? 1 : 0.05);
    this.worst = Math.max(micros, this.worst * DECAY);
  }
}
