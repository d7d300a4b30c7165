/** What invocations of each target have cost their thread lately, in microseconds. */

/** What one batch may be worth, in microseconds; whatever costs more travels alone. */
export const BATCH_BUDGET = 1000;

/**
 * Each further sample counts the worst one before this much less. A target with one slow invocation in twenty never
 * gets below the budget, so nothing travels behind its slow ones; a single pause for garbage is forgotten in two dozen.
 */
const DECAY = 0.9;

/** Answers given without waiting in a row after which a target is not async any more. */
const ASYNC_MEMORY = 64;

export class ServiceTimes {
  private readonly worst: number[] = [];
  /** How many more answers in time it takes until a target counts as synchronous again. */
  private readonly async: number[] = [];
  /** Exponential mean over all targets, for Retry-After. */
  mean = 0;
  private sampled = false;

  /** What to expect of the next invocation: the decaying worst. A target never seen travels alone. */
  expected(target: number): number {
    return this.worst[target] ?? BATCH_BUDGET;
  }

  /** Whether its handler has lately returned promises that had to wait: their continuations will want a thread too. */
  isAsync(target: number): boolean {
    return (this.async[target] ?? 0) > 0;
  }

  sample(target: number, micros: number, pending: boolean): void {
    const async = this.async[target] ?? 0;
    if (pending) this.async[target] = ASYNC_MEMORY;
    else if (async > 0) this.async[target] = async - 1;
    const faded = (this.worst[target] ?? 0) * DECAY;
    this.worst[target] = Math.max(micros, faded);
    // The first sample counts in full: a server just started knows no better.
    this.mean += (micros - this.mean) * (this.sampled ? 0.05 : 1);
    this.sampled = true;
  }
}
