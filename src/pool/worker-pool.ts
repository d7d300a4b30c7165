/**
 * The bounded pool of worker threads. The only file that imports piscina, which runs the threads: one Piscina task is
 * the whole life of a worker, resolves when it has retired and rejects when its thread has died.
 */
import {
  MessageChannel,
  type MessagePort,
  Worker as NodeWorker,
  receiveMessageOnPort,
} from 'node:worker_threads';
import { Piscina } from 'piscina';
import { fromErrorRecord, OffloopError, OffloopTypeError } from '../errors.js';
import { type ResolvedPoolOptions, resolveStopOptions, type StopOptions } from '../options.js';
import { workerEntry } from '../paths.js';
import type { Command, WorkerStart } from '../protocol.js';
import { PoolDispatcher, type Threads } from './dispatcher.js';
import { Worker } from './worker.js';

/** Ms a worker may take to load its modules and run onWorkerStart. */
const START_TIMEOUT = 60_000;
/** Ms a retiring worker may take for onWorkerStop. */
const RETIRE_TIMEOUT = 5_000;
/** Ms that promises pending in a worker have to settle after an uncaught exception in it. */
const POISONED_GRACE = 1_000;
/** Ms before a worker is started again after one that died by itself: doubles with each in a row. */
const BACKOFF_FROM = 100;
const BACKOFF_TO = 10_000;

/** Numbers of one worker. */
export interface WorkerStats {
  name: string;
  /** As in node:worker_threads; 0 until the thread is ready. */
  threadId: number;
  state: 'starting' | 'ready' | 'retiring';
  /** Invocations on its lane, of which at most one runs at any moment. */
  running: number;
  /** Promises of async handlers that have not settled. */
  pending: number;
  /** Answers it has given. */
  served: number;
}

/** Numbers of a pool: plain JSON. Counters count since the pool was made. */
export interface WorkerPoolStats {
  nMin: number;
  nMax: number;
  queueSize: number;
  concurrency: number;
  /** Threads that exist now, in any state. */
  threads: number;
  /** Threads that have something on their lane. */
  busy: number;
  /** Invocations that wait for a thread. */
  queued: number;
  /** Most that ever waited at the same time. */
  queuedMax: number;
  /** Invocations given to threads and not finished; async ones leave this number while their promise is pending. */
  running: number;
  /** Promises of async handlers that have not settled, in all workers. */
  pending: number;
  accepted: number;
  /** Refused because every thread was busy and the queue full. */
  refused: number;
  /** Workers that died: exits, uncaught exceptions, heap limits. */
  crashed: number;
  /** Mean microseconds that recent invocations held their thread. */
  meanMicros: number;
  workers: WorkerStats[];
}

/** Hears what goes wrong in the workers of a pool. Called on the I/O thread. */
export interface PoolListener {
  error(message: string, error: unknown): void;
  warn(message: string, error: unknown): void;
}

interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Module {
  readonly target: number;
  readonly url: string;
  /** Some worker has loaded it: if one cannot now, that is no fault of the module's. */
  proven: boolean;
}

/** What the pool keeps of a worker beyond what the dispatcher sees. */
interface Life {
  readonly worker: Worker;
  readonly kill: AbortController;
  readonly startTimer: NodeJS.Timeout;
  /** Settles when it is ready, or when it is known that it never will be. */
  readonly ready: Deferred;
  /** Resolves when the thread has ended. */
  readonly gone: Deferred;
  /** Modules it was told to load after its start, by target. */
  readonly loads: Map<number, Deferred>;
  /** Whether somebody waits for `ready` and reports a failure. */
  readonly awaited: boolean;
  wasReady: boolean;
  /** An exception nobody caught has happened in it. */
  poisoned: boolean;
  /** Why it could not become ready, or why it must go. */
  failure: unknown;
}

/**
 * A bounded pool of worker threads, made by {@link createWorkerPool} and used by one server or several. Threads start
 * when the first handler module is loaded.
 */
export class WorkerPool implements AsyncDisposable {
  /** @internal */ readonly dispatcher: PoolDispatcher;
  /** @internal */ readonly listeners = new Set<PoolListener>();

  private readonly options: ResolvedPoolOptions;
  private readonly piscina: Piscina;
  private readonly lives = new Map<Worker, Life>();
  private readonly ready: Worker[] = [];
  private modules: Module[] = [];
  private readonly loading = new Map<string, Promise<number>>();
  private nextTarget = 0;
  private nextName = 1;
  private crashed = 0;
  private failedStarts = 0;
  private notBefore = 0;
  private retryTimer: NodeJS.Timeout | undefined;
  private idleTimer: NodeJS.Timeout | undefined;
  private closing: Promise<void> | undefined;
  /** Threads that have had their one task; Piscina must not give them another. */
  private readonly used = new Set<number>();

  /** @internal */
  constructor(options: ResolvedPoolOptions) {
    this.options = options;
    checkExecArgv(options.execArgv);
    const { used } = this;
    this.piscina = new Piscina({
      filename: workerEntry,
      // We bound and replace threads ourselves: Piscina starts one for each life and removes it when that is over.
      minThreads: 0,
      maxThreads: 4096,
      idleTimeout: 0,
      concurrentTasksPerWorker: 1,
      // A parked event loop would freeze the timers, sockets and promises of handlers.
      atomics: 'disabled',
      recordTiming: false,
      loadBalancer: (_task, workers) => {
        const fresh = workers.find((worker) => !used.has(worker.id));
        if (fresh === undefined) return null;
        used.add(fresh.id);
        return fresh;
      },
      ...(options.resourceLimits !== undefined && { resourceLimits: options.resourceLimits }),
      ...(options.env !== undefined && { env: options.env as Record<string, string> }),
      ...(options.execArgv !== undefined && { execArgv: options.execArgv }),
    });
    this.piscina.on('workerDestroy', (worker: { readonly id: number }) => used.delete(worker.id));
    // A thread that dies before it was given its task has no task to reject.
    this.piscina.on('error', (error: unknown) => this.diedUnborn(error));

    const pool = this;
    const threads: Threads = {
      get ready() {
        return pool.ready;
      },
      get starting() {
        return pool.countStarting();
      },
      grow: () => pool.grow(),
      idle: (worker) => pool.becameIdle(worker),
      overloaded: (message, error) =>
        error === undefined ? pool.warn(message, error) : pool.error(message, error),
    };
    this.dispatcher = new PoolDispatcher(options, threads);
  }

  /** Numbers to watch, fresh at each read. */
  get stats(): WorkerPoolStats {
    const { dispatcher, options } = this;
    const workers = [...this.lives.keys()].map(
      (worker): WorkerStats => ({
        name: worker.name,
        threadId: worker.threadId,
        state: worker.state === 'gone' ? 'retiring' : worker.state,
        running: worker.given,
        pending: worker.pending,
        served: worker.served,
      }),
    );
    return {
      nMin: options.nMin,
      nMax: options.nMax,
      queueSize: options.queueSize,
      concurrency: options.concurrency,
      threads: workers.length,
      busy: workers.filter((worker) => worker.running > 0).length,
      queued: dispatcher.queued,
      queuedMax: dispatcher.queuedMax,
      running: dispatcher.running,
      pending: dispatcher.waiting,
      accepted: dispatcher.accepted,
      refused: dispatcher.refused,
      crashed: this.crashed,
      meanMicros: Math.round(dispatcher.times.mean * 10) / 10,
      workers,
    };
  }

  // ------------------------------------------------------------------------------------------------------- modules

  /**
   * @internal Load a handler module into every worker, and into every one to come. Resolves with its target number;
   * rejects with the module's own error, and then no worker keeps it. Starts the threads if it is the first.
   */
  async load(url: string): Promise<number> {
    if (this.closing !== undefined) throw new OffloopError('OFFLOOP_STOPPED', 'the worker pool is closed');
    let loading = this.loading.get(url);
    if (loading === undefined) {
      loading = this.loadNew(url);
      this.loading.set(url, loading);
      loading.catch(() => this.loading.delete(url));
    }
    return await loading;
  }

  private async loadNew(url: string): Promise<number> {
    const module: Module = { target: this.nextTarget++, url, proven: false };
    const loads = [...this.lives.values()].map((life) => this.loadInto(life, module));
    this.modules.push(module);
    while (this.countLive() < this.options.nMin) loads.push(this.spawn(true));
    try {
      await Promise.all(loads);
    } catch (error) {
      this.drop(module);
      throw error;
    }
    module.proven = true;
    return module.target;
  }

  private drop(module: Module): void {
    this.modules = this.modules.filter((other) => other !== module);
  }

  private loadInto(life: Life, module: Module): Promise<void> {
    const load = deferred();
    life.loads.set(module.target, load);
    life.worker.send({ kind: 'load', target: module.target, url: module.url });
    return load.promise;
  }

  // ------------------------------------------------------------------------------------------------------- threads

  private countStarting(): number {
    let starting = 0;
    for (const worker of this.lives.keys()) if (worker.state === 'starting') starting++;
    return starting;
  }

  private countLive(): number {
    let live = 0;
    for (const worker of this.lives.keys())
      if (worker.state === 'starting' || worker.state === 'ready') live++;
    return live;
  }

  private grow(): void {
    if (this.closing !== undefined || this.countLive() >= this.options.nMax) return;
    if (performance.now() < this.notBefore) this.retryLater();
    else void this.spawn(false);
  }

  private ensureMin(): void {
    if (this.closing !== undefined || this.modules.length === 0) return;
    while (this.countLive() < this.options.nMin) {
      if (performance.now() < this.notBefore) {
        this.retryLater();
        return;
      }
      void this.spawn(false);
    }
  }

  private retryLater(): void {
    this.retryTimer ??= setTimeout(() => {
      this.retryTimer = undefined;
      this.ensureMin();
      this.dispatcher.pump();
    }, this.notBefore - performance.now());
  }

  /** Start a worker with every module. Resolves when it is ready, rejects with what kept it from becoming so. */
  private spawn(awaited: boolean): Promise<void> {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(`${this.options.prefix}${this.nextName++}`, port1);
    const life: Life = {
      worker,
      kill: new AbortController(),
      ready: deferred(),
      gone: deferred(),
      loads: new Map(),
      awaited,
      wasReady: false,
      poisoned: false,
      failure: undefined,
      startTimer: setTimeout(() => {
        const message = `${worker.name} was not ready after ${START_TIMEOUT} ms: a handler module or its onWorkerStart never finished`;
        this.killWith(life, new OffloopError('OFFLOOP_START_TIMEOUT', message));
      }, START_TIMEOUT).unref(),
    };
    this.lives.set(worker, life);
    port1.on('message', (command: Command) => this.receive(life, command));
    port1.unref();
    const start: WorkerStart = {
      lane: port2,
      claim: worker.claim,
      address: worker.address,
      outbox: worker.outboxMemory,
      name: worker.name,
      modules: this.modules.map(({ target, url }) => ({ target, url })),
    };
    this.runLife(start, port2, life.kill.signal).then(
      () => this.over(life, undefined),
      (error: unknown) => this.over(life, error),
    );
    return life.ready.promise;
  }

  /** The whole life of one worker. Async, so that what Piscina throws at once (bad execArgv) is a rejection too. */
  private async runLife(start: WorkerStart, port: MessagePort, signal: AbortSignal): Promise<void> {
    await this.piscina.run(start, { transferList: [port], signal });
  }

  private receive(life: Life, command: Command): void {
    const { worker } = life;
    if (command === 'look') {
      this.dispatcher.collect(worker);
      return;
    }
    switch (command.kind) {
      case 'answer': {
        const { seq, status, head, payload, flags, micros } = command;
        this.dispatcher.answered(worker, seq, status, head, payload, flags, micros);
        return;
      }
      case 'failed':
        this.dispatcher.failed(worker, command.seq, fromErrorRecord(command.error), command.micros);
        return;
      case 'address':
        worker.tellAddress(worker.find(command.seq)?.invocation.addressOf() ?? '');
        return;
      case 'ready':
        this.becameReady(life, command.threadId);
        return;
      case 'loaded':
        life.loads.get(command.target)?.resolve();
        life.loads.delete(command.target);
        return;
      case 'load-failed':
        this.loadFailed(life, command.target, fromErrorRecord(command.error));
        return;
      case 'stray-error':
        this.error(`${worker.name}: ${command.message}`, fromErrorRecord(command.error));
        return;
      case 'poisoned':
        this.poisoned(life, fromErrorRecord(command.error));
        return;
      default:
        throw new Error(`unknown command ${JSON.stringify(command satisfies never)}`);
    }
  }

  private becameReady(life: Life, threadId: number): void {
    const { worker } = life;
    clearTimeout(life.startTimer);
    worker.threadId = threadId;
    if (worker.state !== 'starting') return;
    worker.state = 'ready';
    life.wasReady = true;
    worker.idleSince = performance.now();
    this.ready.push(worker);
    life.ready.resolve();
    this.dispatcher.pump();
    if (worker.idle) this.becameIdle(worker);
  }

  private loadFailed(life: Life, target: number, error: unknown): void {
    const load = life.loads.get(target);
    life.loads.delete(target);
    if (load === undefined) {
      // One of the modules it was started with: it ends by itself, and `over` tells whoever waits. A module that has
      // never been loaded anywhere must not keep the next worker from its start.
      life.failure = error;
      const module = this.modules.find((other) => other.target === target);
      if (module?.proven === false) this.drop(module);
    } else {
      load.reject(error);
    }
  }

  // ------------------------------------------------------------------------------------------------ ends of a life

  private killWith(life: Life, failure: unknown): void {
    life.failure ??= failure;
    life.kill.abort();
  }

  /** The thread has ended, in whichever way. */
  private over(life: Life, error: unknown): void {
    const { worker } = life;
    clearTimeout(life.startTimer);
    // Answers that were on their way when the thread died count: they were finished.
    for (
      let entry = receiveMessageOnPort(worker.lane);
      entry !== undefined;
      entry = receiveMessageOnPort(worker.lane)
    ) {
      this.receive(life, entry.message as Command);
    }
    const wasRetiring = worker.state === 'retiring';
    worker.state = 'gone';
    worker.lane.close();
    this.lives.delete(worker);
    this.removeReady(worker);
    const cause = life.failure ?? error;
    if (this.closing === undefined) {
      if (life.wasReady && !wasRetiring) {
        this.crashed++;
        this.error(`${worker.name} died and is replaced`, cause);
      }
      this.noteEnd(life, cause);
    }
    const lost = new OffloopError('OFFLOOP_WORKER_LOST', `${worker.name} ended before it answered`, {
      cause,
    });
    life.ready.reject(cause ?? lost);
    life.gone.resolve();
    for (const load of life.loads.values()) this.handOn(load, lost);
    this.ensureMin();
    this.dispatcher.lost(worker, lost);
  }

  /** A worker died before it had loaded what it was told to, for whatever reason: its replacement will show. */
  private handOn(load: Deferred, lost: OffloopError): void {
    if (this.closing !== undefined) {
      load.reject(lost);
      return;
    }
    // A moment later, when a module that failed is out of the way.
    setImmediate(() => {
      if (this.countLive() >= this.options.nMax) load.resolve();
      else this.spawn(true).then(load.resolve, load.reject);
    });
  }

  /**
   * Back off from code that cannot live: a worker that never became ready, or died without having been given anything
   * to do. One that died of its work is replaced at once, and work done is proof that the code lives.
   */
  private noteEnd(life: Life, cause: unknown): void {
    if (life.worker.used || (life.wasReady && cause === undefined)) {
      this.failedStarts = 0;
      this.notBefore = 0;
      return;
    }
    this.failedStarts++;
    const wait = Math.min(BACKOFF_TO, BACKOFF_FROM * 2 ** (this.failedStarts - 1));
    this.notBefore = performance.now() + wait;
    // The first load of a module reports its failure by rejecting; afterwards the log is the only witness.
    if (!life.wasReady && !life.awaited)
      this.error(`${life.worker.name} could not start, next try in ${wait} ms`, cause);
  }

  /** Piscina lost a thread that had no task yet: whichever life still waits for a thread will not get that one. */
  private diedUnborn(error: unknown): void {
    if (this.closing !== undefined) return;
    for (const life of this.lives.values()) {
      if (life.worker.state === 'starting' && life.failure === undefined) {
        this.killWith(life, error);
        return;
      }
    }
    this.warn('a thread that was not in use died', error);
  }

  /** An exception nobody caught: replace the worker, and let what else is pending in it finish if it can. */
  private poisoned(life: Life, error: unknown): void {
    const { worker } = life;
    if (worker.state === 'gone') return;
    this.error(`${worker.name}: uncaught exception; the worker is replaced`, error);
    if (life.poisoned) return;
    life.poisoned = true;
    this.crashed++;
    this.dispatcher.collect(worker);
    const wasStarting = worker.state === 'starting';
    this.setRetiring(worker);
    this.dispatcher.requeue(worker);
    life.failure = error;
    if (wasStarting || worker.idle) life.kill.abort();
    else setTimeout(() => life.kill.abort(), POISONED_GRACE).unref();
    // One that was never given anything is replaced when it has ended, see `noteEnd`.
    if (worker.used) this.ensureMin();
    this.dispatcher.pump();
  }

  private setRetiring(worker: Worker): void {
    worker.state = 'retiring';
    this.removeReady(worker);
  }

  private removeReady(worker: Worker): void {
    const at = this.ready.indexOf(worker);
    if (at !== -1) this.ready.splice(at, 1);
  }

  /** The orderly end: no new work, onWorkerStop, exit. Only for workers with nothing outstanding. */
  private retire(life: Life): void {
    this.setRetiring(life.worker);
    life.worker.send({ kind: 'retire' });
    setTimeout(() => life.kill.abort(), RETIRE_TIMEOUT).unref();
  }

  // ---------------------------------------------------------------------------------------------------------- idle

  private becameIdle(worker: Worker): void {
    const life = this.lives.get(worker);
    if (life === undefined) return;
    if (worker.state === 'retiring') {
      // Poisoned, and now done with what was pending.
      life.kill.abort();
      return;
    }
    worker.idleSince = performance.now();
    if (this.ready.length > this.options.nMin && this.idleTimer === undefined)
      this.watchIdle(this.options.threadIdleTimeout);
  }

  /** One timer for all: threads above nMin that have idled long enough retire, the longest idle first. */
  private watchIdle(delay: number): void {
    this.idleTimer = setTimeout(() => {
      this.idleTimer = undefined;
      const now = performance.now();
      const idle = this.ready.filter((worker) => worker.idle).sort((a, b) => a.idleSince - b.idleSince);
      let wait = Number.POSITIVE_INFINITY;
      for (const worker of idle) {
        if (this.countLive() <= this.options.nMin) return;
        const left = worker.idleSince + this.options.threadIdleTimeout - now;
        const life = this.lives.get(worker);
        if (left <= 0 && life !== undefined) this.retire(life);
        else wait = Math.min(wait, left);
      }
      if (wait !== Number.POSITIVE_INFINITY) this.watchIdle(Math.ceil(wait));
    }, delay);
    this.idleTimer.unref();
  }

  // --------------------------------------------------------------------------------------------------------- close

  /**
   * Take no more work, finish what is running and queued for at most `timeout` ms (default 10000), fail the rest, run
   * onWorkerStop and end the threads. Safe to call again: every call resolves when the pool is closed.
   */
  close(options?: StopOptions): Promise<void> {
    const { timeout } = resolveStopOptions(options, 'WorkerPool.close');
    this.closing ??= this.closeNow(timeout);
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async closeNow(timeout: number): Promise<void> {
    // A turn later, so that `closing` is set before anything below asks for it.
    await Promise.resolve();
    this.dispatcher.closed = true;
    clearTimeout(this.retryTimer);
    clearTimeout(this.idleTimer);
    const inTime = await within(this.dispatcher.whenDrained(), timeout);
    if (!inTime) {
      const late = new OffloopError(
        'OFFLOOP_STOPPED',
        'the worker pool was closed before the handler was done',
      );
      this.dispatcher.failQueued(late);
      for (const worker of this.lives.keys()) this.dispatcher.failStarted(worker, late);
    }
    const lives = [...this.lives.values()];
    for (const life of lives) {
      // A thread that runs late or is still on its way up would not hear us.
      if (inTime && life.worker.state === 'ready') this.retire(life);
      else life.kill.abort();
    }
    await Promise.all(lives.map((life) => life.gone.promise));
    await this.piscina.destroy();
    this.listeners.clear();
  }

  // ------------------------------------------------------------------------------------------------------- logging

  private error(message: string, error: unknown): void {
    if (this.listeners.size === 0) console.error(`[offloop] ${message}`, error);
    for (const listener of this.listeners) listener.error(message, error);
  }

  private warn(message: string, error: unknown): void {
    for (const listener of this.listeners) listener.warn(message, error);
  }
}

/**
 * Node refuses some flags for workers by throwing when one is made. Piscina would be left with a task it never gave a
 * promise for, so a thread with nothing to do is made first.
 */
function checkExecArgv(execArgv: string[] | undefined): void {
  if (execArgv === undefined) return;
  try {
    const trial = new NodeWorker('', { eval: true, execArgv });
    trial.on('error', () => undefined);
    trial.unref();
    void trial.terminate();
  } catch (cause) {
    const message = `option execArgv is ${JSON.stringify(execArgv)}; allowed: Node flags that workers take (${(cause as Error).message})`;
    throw new OffloopTypeError('OFFLOOP_BAD_OPTION', message, { cause });
  }
}

/** A promise with its two ends. Its rejection may go unheard: what several wait for, only one reports. */
function deferred(): Deferred {
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
