/**
 * Who goes first when every core is busy. On Linux each thread has a nice value of its own: workers run at 10, so that the
 * I/O thread is scheduled as soon as a packet comes; one that is stuck runs at 19 until it is ended, so that it is in
 * nobody's way, and so does one that starts ahead of need. Elsewhere the number would apply to the whole process, and nothing is done. I/O thread.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';

const WORKER = 10;
const LAST = 19;
/** CAP_SYS_NICE, capabilities(7). */
const MAY_RAISE = 1n << 23n;

/** The kernel's number of a thread, undefined where it is not known. */
export type Tid = number | undefined;

/**
 * Do what starts one thread, and lower its priority before it has done anything: its start is 30 ms of work, which would
 * otherwise go before the handlers that run meanwhile. `early`: nobody waits for it yet, so it starts behind everything
 * else, where there is a way back from that: see {@link catchUp}.
 */
export function startThread<T>(start: () => T, early: boolean): { result: T; tid: Tid } {
  const before = new Set(threads());
  const result = start();
  const started = threads().filter((tid) => !before.has(tid));
  for (const tid of started) set(tid, early && mayRaise() ? LAST : usual());
  return { result, tid: started.length === 1 ? started[0] : undefined };
}

/** The thread is wanted now: from behind everything else to where workers are. */
export function catchUp(tid: Tid): void {
  if (tid !== undefined && mayRaise()) set(tid, usual());
}

/** Get a stuck thread out of the way. */
export function stepAside(tid: Tid): void {
  if (tid !== undefined) set(tid, LAST);
}

let raising: boolean | undefined;

/** Whether this process may raise the priority of its threads, as it seldom may. */
function mayRaise(): boolean {
  raising ??= hasCapability();
  return raising;
}

function hasCapability(): boolean {
  try {
    const effective = /^CapEff:\t([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1];
    return effective !== undefined && (BigInt(`0x${effective}`) & MAY_RAISE) !== 0n;
  } catch {
    return false;
  }
}

function usual(): number {
  return Math.max(WORKER, ownPriority());
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

function set(tid: number, priority: number): void {
  try {
    setPriority(tid, priority);
  } catch {
    // A sandbox that forbids it, or the thread has ended.
  }
}
