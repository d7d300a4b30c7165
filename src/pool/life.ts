/** What the pool keeps of a worker beyond what the dispatcher sees, and small tools for waiting. */
import type { EventLoopUtilization } from 'node:perf_hooks';
import type { Worker as Thread } from 'node:worker_threads';
import type { Tid } from './priority.js';
import type { Worker } from './worker.js';

export interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** One worker from its start to its end. */
export interface Life {
  readonly worker: Worker;
  readonly kill: AbortController;
  readonly startTimer: NodeJS.Timeout;
  readonly bornAt: number;
  /** Settles when it could take work, or when it is known that it never will. */
  readonly ready: Deferred;
  /** Resolves when the thread has ended. */
  readonly gone: Deferred;
  /** Modules it was told to load after its start, by target. */
  readonly loads: Map<number, Deferred>;
  /** Whether somebody waits for `ready` and reports a failure. */
  awaited: boolean;
  /** It takes no work until it is promoted: it stands by for another that is about to go. */
  standby: boolean;
  /** The one that stands by for it. */
  replacement: Life | undefined;
  /** Known when it is ready. */
  thread: Thread | undefined;
  tid: Tid;
  lastUtilization: EventLoopUtilization | undefined;
  /** Ms it may live. */
  lifetime: number | undefined;
  /** Starts in a row that had failed when it could take work. */
  failedBefore: number;
  /** When it may next be tried to replace it. */
  replaceableAt: number;
  /** Looks whether anybody still waits for what it has. */
  drainTimer: NodeJS.Timeout | undefined;
  wasReady: boolean;
  /** An exception nobody caught has happened in it. */
  poisoned: boolean;
  /** It is being replaced while it still serves. */
  worn: boolean;
  /** It is to finish what it has and go. */
  draining: boolean;
  /** It was not needed after all. */
  dismissed: boolean;
  /** It has been told to go, or is being ended. */
  leaving: boolean;
  /** Why it could not become ready, or why it must go. */
  failure: unknown;
}

/** A promise with its two ends. Its rejection may go unheard: what several wait for, only one reports. */
export function deferred(): Deferred {
  let resolve!: () => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<void>((res, rej) => {
    resolve = res;
    reject = rej;
  });
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}

/** Whether `work` is done within `ms`. The timer never outlives the answer. */
export async function within(work: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([work.then(() => true as const), late]);
  } finally {
    clearTimeout(timer);
  }
}
