/**
 * Deadlines without a timer each. There are few different lengths (one for each setting of a mount) and many deadlines of
 * each, so those of one length stand in a line: the first set is the first due. Setting, clearing and finding the next
 * cost the same however many there are, and one timer serves all. Belongs to no thread.
 */

import type { Invocation } from './protocol.js';

/** What can have a deadline: at most one at a time. The fields belong to {@link Deadlines}. */
export interface Due {
  dueAt: number;
  dueLine: DueLine | undefined;
  duePrev: Due | undefined;
  dueNext: Due | undefined;
}

interface DueLine {
  first: Due | undefined;
  last: Due | undefined;
}

/** Ms a timer can be set for. When it goes off too soon, it is set again. */
const LONGEST = 2 ** 31 - 1;

/** What is not charged for the time its client takes to send its body. */
export interface Excusable extends Due {
  readonly invocation: Pick<Invocation, 'incoming'>;
  /** Ms it has been excused so far. */
  excused: number;
}

/**
 * To be asked when the time of `item` is up, `ms` long: what it has waited for its client does not count, so its deadline is put off by
 * that, in the row of its length, as if it had begun so much later. Returns false when there is nothing to put it off for.
 */
export function excuse<T extends Excusable>(deadlines: Deadlines<T>, item: T, ms: number): boolean {
  const waited = item.invocation.incoming?.waited ?? 0;
  const more = waited - item.excused;
  item.excused = waited;
  if (more > 0) deadlines.set(item, ms, performance.now() + more - ms);
  return more > 0;
}

export class Deadlines<T extends Due> {
  private readonly lines = new Map<number, DueLine>();
  private timer: NodeJS.Timeout | undefined;
  private timerAt = Number.POSITIVE_INFINITY;

  /** @param expired called for each deadline that has passed; it is cleared by then. */
  constructor(private readonly expired: (item: T) => void) {}

  /** Give `item` a deadline `ms` after `now` (of the performance.now() clock; it may be past), in place of the one it has. */
  set(item: T, ms: number, now: number): void {
    this.clear(item);
    let line = this.lines.get(ms);
    if (line === undefined) {
      line = { first: undefined, last: undefined };
      this.lines.set(ms, line);
    }
    const dueAt = now + ms;
    item.dueAt = dueAt;
    item.dueLine = line;
    // Taken back from a thread, an old one comes late: it goes before those set after it.
    let before = line.last;
    while (before !== undefined && before.dueAt > dueAt) before = before.duePrev;
    const after = before === undefined ? line.first : before.dueNext;
    item.duePrev = before;
    item.dueNext = after;
    if (before === undefined) line.first = item;
    else before.dueNext = item;
    if (after === undefined) line.last = item;
    else after.duePrev = item;
    if (dueAt < this.timerAt) this.arm(dueAt);
  }

  clear(item: T): void {
    const line = item.dueLine;
    if (line === undefined) return;
    if (item.duePrev === undefined) line.first = item.dueNext;
    else item.duePrev.dueNext = item.dueNext;
    if (item.dueNext === undefined) line.last = item.duePrev;
    else item.dueNext.duePrev = item.duePrev;
    item.dueLine = undefined;
    item.duePrev = undefined;
    item.dueNext = undefined;
  }

  private arm(at: number): void {
    clearTimeout(this.timer);
    this.timerAt = at;
    this.timer = setTimeout(this.look, Math.min(LONGEST, Math.max(1, Math.ceil(at - performance.now()))));
    this.timer.unref();
  }

  private readonly look = (): void => {
    this.timerAt = Number.POSITIVE_INFINITY;
    const now = performance.now();
    for (const line of this.lines.values()) {
      while (line.first !== undefined && line.first.dueAt <= now) {
        const item = line.first as T;
        this.clear(item);
        this.expired(item);
      }
    }
    // Most of those the timer was set for are done by now; the next one decides.
    for (const { first } of this.lines.values())
      if (first !== undefined && first.dueAt < this.timerAt) this.arm(first.dueAt);
  };
}
