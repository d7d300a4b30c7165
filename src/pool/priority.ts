/**
 * Who goes first when every core is busy. On Linux each thread has a nice value of its own: that of workers is higher, so that
 * the I/O thread is scheduled as soon as a packet comes; one that is stuck runs at 19 until it is ended, so that it is in
 * nobody's way. Elsewhere the number would apply to the whole process, and nothing is done. I/O thread.
 */
import { readdirSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

/** The least urgent there is. */
const LEAST_URGENT = 19;

/** The kernel's number of a thread, undefined where it is not known. */
export type Tid = number | undefined;

/**
 * Do what starts one thread, and lower its priority by `increment` before it has done anything: its start is 30 ms of work, which
 * would otherwise go before the handlers that run meanwhile.
 */
export function startThread<T>(increment: number, start: () => T): { result: T; tid: Tid } {
  const before = new Set(threads());
  const result = start();
  const started = threads().filter((tid) => !before.has(tid));
  for (const tid of started) lower(tid, Math.min(LEAST_URGENT, ownPriority() + increment));
  return { result, tid: started.length === 1 ? started[0] : undefined };
}

/** Get a stuck thread out of the way. There is no way back without privileges. */
export function stepAside(tid: Tid): void {
  if (tid !== undefined) lower(tid, LEAST_URGENT);
}

function threads(): number[] {
  if (process.platform !== 'linux') return [];
  try {
    return readdirSync('/proc/self/task').map(Number);
  } catch {
    return []; // No /proc: everything works without.
  }
}

function ownPriority(): number {
  try {
    return getPriority(0);
  } catch {
    return 0;
  }
}

function lower(tid: number, priority: number): void {
  try {
    setPriority(tid, priority);
  } catch {
    // A sandbox that forbids it, or the thread has ended.
  }
}
