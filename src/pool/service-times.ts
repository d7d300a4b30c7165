/** What invocations of each target have cost their thread lately, in microseconds. */

/** What one batch may be worth, in microseconds; whatever costs more travels alone. */
export const BATCH_BUDGET = 1000;

/**
 * Each further sample counts the worst one before this much less. A target with one slow invocation in twenty never
 * gets below the budget, so nothing travels behind its slow ones; a single pause for garbage is forgotten in two dozen.
 */
const DECAY = 0.9;

export class ServiceTimes {
  private readonly worst: number[] = [];
  /** Exponential mean over all targets, for Retry-After. */
  mean = 0;

  /** What to expect of the next invocation: the decaying worst. A target never seen travels alone. */
  expected(target: number): number {
    return this.worst[target] ?? BATCH_BUDGET;
  }

  sample(target: number, micros: number): void {
    const faded = (this.worst[target] ?? 0) * DECAY;
    this.worst[target] = Math.max(micros, faded);
    this.mean += (micros - this.mean) * 0.05;
  }
}
