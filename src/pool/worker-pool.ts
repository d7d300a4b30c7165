/**
 * The bounded pool of worker threads. The only file that imports piscina, which runs the threads: one Piscina task is
 * the whole life of a worker, resolves when it has retired and rejects when its thread has died.
 */
import { createRequire } from 'node:module';
import {
  MessageChannel,
  type MessagePort,
  Worker as NodeWorker,
  receiveMessageOnPort,
} from 'node:worker_threads';
import type { Piscina } from 'piscina';
import { requestLine } from '../batch.js';
import { channels } from '../channel-registry.js';
import { envWithoutClinic } from '../clinic.js';
import { fromErrorRecord, OffloopError, OffloopTypeError } from '../errors.js';
import { type ResolvedPoolOptions, resolveStopOptions, type StopOptions } from '../options.js';
import { workerEntry } from '../paths.js';
import { type Command, EVENT_TARGET, type TimeLimits, type WorkerStart } from '../protocol.js';
import { carryOut, sentWhole } from './channels.js';
import { PoolDispatcher, type Threads } from './dispatcher.js';
import { type Distribution, Histogram } from './histogram.js';
import { type Deferred, deferred, type Life, within } from './life.js';
import type { MountQueue } from './mount-queue.js';
import { startThread, stepAside, type Tid } from './priority.js';
import { lost, type ProfileTask, profileThread } from './profile.js';
import { captureStack } from './stack.js';
import type { Ticket } from './ticket.js';
import { Worker, type WorkerState } from './worker.js';

// Not imported: a server whose handlers all run inline needs none, and to require a CommonJS package takes Node less time.
const load = createRequire(import.meta.url);

/** Ms a worker may take to load its modules and run onWorkerStart. */
const START_TIMEOUT = 60_000;
/** Ms a retiring worker may take for onWorkerStop. */
const RETIRE_TIMEOUT = 5_000;
/** Ms that promises pending in a worker have to settle after an uncaught exception in it, and those nobody waits for in one that drains. */
const POISONED_GRACE = 1_000;
/** Ms before a worker is started again after one that died by itself: doubles with each in a row. */
const BACKOFF_FROM = 100;
const BACKOFF_TO = 10_000;
/** Starts that failed in a row, with no worker left, after which nobody is kept waiting for one. */
const GIVE_UP_AFTER = 3;
/** Ms that may pass until the stack of a stuck thread is there. It has the lowest priority, and needs some time of its own for that. */
const STACK_TIMEOUT = 2000;
/** Ms after which a thread that was told to end and has not is written off. */
const LOST_AFTER = 5_000;
/** Ms until it is tried again to recycle a worker whose replacement could not start. */
const RECYCLE_AGAIN = 1_000;
/** Ms that channels may stay open in a worker that drains; then WebSockets are closed with 1012. */
const CHANNELS_GO_AFTER = 30_000;
/** Ms that a body may stand still in a worker that drains: nothing read, nothing taken by its client. */
const BODIES_MOVE_WITHIN = 30_000;
/** Ms between looks at the age and the heap of workers. */
const WEAR_EVERY = 1_000;
/** By how much the limits of `recycleAfter` differ from worker to worker, up and down. */
const JITTER = 0.1;

/** Numbers of one worker. */
export interface WorkerStats {
  name: string;
  /** As in node:worker_threads; 0 until the thread is ready. */
  threadId: number;
  state: Exclude<WorkerState, 'gone'>;
  /** Ms since it was started. */
  age: number;
  /** Invocations on its lane, of which at most one runs at any moment. */
  running: number;
  /** Promises of async handlers that have not settled. */
  pending: number;
  /** Channels that live in it. */
  channels: number;
  /** Responses whose bodies it is reading, bit by bit. */
  bodies: number;
  /** Answers it has given. */
  served: number;
  /** Bytes of JavaScript heap in use, about a second ago. */
  heapUsed: number;
  /** Share of the time since stats were last read in which its event loop was busy, 0 to 1. */
  utilization: number;
  queueWaitMicros: Distribution;
  runTimeMicros: Distribution;
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
  /** Most that waited at the same time since stats were last read. */
  queuedMax: number;
  /** Invocations given to threads and not finished; async ones leave this number while their promise is pending. */
  running: number;
  /** Promises of async handlers that have not settled, in all workers. */
  pending: number;
  accepted: number;
  /** Messages in which invocations were given to threads, each with one or more. What was taken back and given again counts again. */
  batches: number;
  /** Refused because every thread was busy and the queue full, or because no worker could start. */
  refused: number;
  /** Answered because they had waited for `queueTimeout`, or run for `handlerTimeout`. */
  timedOut: { queue: number; handler: number };
  /** Workers that died: exits, uncaught exceptions, heap limits. */
  crashed: number;
  /** Workers that were ended because a handler was stuck in them. */
  killed: number;
  /** Workers that were replaced because of `recycleAfter`. */
  recycled: number;
  /** Threads that were told to end and did not. */
  lost: number;
  /** How often the code has been reloaded. */
  reloads: number;
  /** Why the last worker could not start, and how many in a row; null when the last one could. */
  startFailure: { message: string; inARow: number } | null;
  /** Mean microseconds that recent invocations held their thread. */
  meanMicros: number;
  /** Microseconds from admission to being given to a thread, over the last one to two minutes. */
  queueWaitMicros: Distribution;
  /** Microseconds the handlers took, waiting for their promises included. */
  runTimeMicros: Distribution;
  workers: WorkerStats[];
}

/** Hears what goes wrong in the workers of a pool. Called on the I/O thread. */
export interface PoolListener {
  error(message: string, error: unknown): void;
  warn(message: string, error: unknown): void;
}

interface Module {
  readonly target: number;
  readonly url: string;
  /** Some worker has loaded it: if one cannot now, that is no fault of the module's. */
  proven: boolean;
  /** Mounts that have it, or are about to. With none left no new worker loads it. */
  users: number;
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
  private readonly leaving = new Set<Worker>();
  /** The kernel's numbers of the threads. */
  private readonly tids = new WeakMap<NodeWorker, Tid>();
  private modules: Module[] = [];
  private readonly loading = new Map<string, Promise<number>>();
  private nextTarget = 0;
  private nextName = 1;
  private crashed = 0;
  private killed = 0;
  private recycled = 0;
  private lost = 0;
  private reloads = 0;
  private startFailure: string | undefined;
  private recycling = false;
  private reloading: Promise<void> | undefined;
  private reloadingNext: Promise<void> | undefined;
  private wearTimer: NodeJS.Timeout | undefined;
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
    const env = envWithoutClinic(options.env);
    checkExecArgv(options.execArgv);
    const { used } = this;
    const { Piscina: ThreadPool } = load('piscina') as { Piscina: typeof Piscina };
    this.piscina = new ThreadPool({
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
      ...(env !== undefined && { env: env as Record<string, string> }),
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
      leaving: pool.leaving,
      get all() {
        return pool.lives.keys();
      },
      grow: () => pool.grow(),
      idle: (worker) => pool.withLife(worker, (life) => pool.becameIdle(life)),
      clogged: (worker) =>
        pool.withLife(worker, (life) => {
          if (life.replacement === undefined)
            pool.warn(`${worker.name} is full of promises that never settle and is replaced`, undefined);
          void pool.recycle(life);
        }),
      worn: (worker) => pool.withLife(worker, (life) => void pool.recycle(life)),
      suspect: (worker) => pool.withLife(worker, (life) => pool.prepare(life)),
      cleared: (worker) => pool.withLife(worker, (life) => pool.recovered(life)),
      stuck: (worker, ticket) => pool.withLife(worker, (life) => void pool.endStuck(life, ticket)),
      report: (message, error) =>
        error === undefined ? pool.warn(message, error) : pool.error(message, error),
    };
    this.dispatcher = new PoolDispatcher(options, threads);
    const { ms, heapMb } = options.recycleAfter;
    if (ms !== Number.POSITIVE_INFINITY || heapMb !== Number.POSITIVE_INFINITY) {
      this.wearTimer = setInterval(() => this.lookForWear(), WEAR_EVERY);
      this.wearTimer.unref();
    }
  }

  private withLife(worker: Worker, then: (life: Life) => void): void {
    const life = this.lives.get(worker);
    if (life !== undefined) then(life);
  }

  /** Numbers to watch, fresh at each read. */
  get stats(): WorkerPoolStats {
    const { dispatcher, options } = this;
    dispatcher.rotate();
    const workers = [...this.lives.values()].map((life) => this.workerStats(life));
    return {
      nMin: options.nMin,
      nMax: options.nMax,
      queueSize: options.queueSize,
      concurrency: options.concurrency,
      threads: workers.length,
      busy: workers.filter((worker) => worker.running > 0).length,
      queued: dispatcher.queued,
      queuedMax: dispatcher.takeQueuedMost(),
      running: dispatcher.running,
      pending: dispatcher.waiting,
      accepted: dispatcher.accepted,
      batches: dispatcher.batches,
      refused: dispatcher.refused,
      timedOut: { ...dispatcher.timedOut },
      crashed: this.crashed,
      killed: this.killed,
      recycled: this.recycled,
      lost: this.lost,
      reloads: this.reloads,
      startFailure:
        this.startFailure === undefined ? null : { message: this.startFailure, inARow: this.failedStarts },
      meanMicros: Math.round(dispatcher.mean * 10) / 10,
      queueWaitMicros: dispatcher.queueWait(),
      runTimeMicros: dispatcher.runTime(),
      workers,
    };
  }

  private workerStats(life: Life): WorkerStats {
    const { worker, thread } = life;
    let utilization = 0;
    if (thread !== undefined && worker.state !== 'gone') {
      const now = thread.performance.eventLoopUtilization();
      const before = life.lastUtilization ?? { idle: 0, active: 0, utilization: 0 };
      utilization = thread.performance.eventLoopUtilization(now, before).utilization;
      life.lastUtilization = now;
    }
    return {
      name: worker.name,
      threadId: worker.threadId,
      state: worker.state === 'gone' ? 'retiring' : worker.state,
      age: Math.round(performance.now() - life.bornAt),
      running: worker.given,
      pending: worker.pending,
      channels: worker.channels,
      bodies: worker.bodies.size,
      served: worker.served,
      heapUsed: worker.heapUsed,
      // Reading twice within no time divides nothing by nothing.
      utilization: Math.round(Math.min(1, Math.max(0, utilization || 0)) * 1000) / 1000,
      queueWaitMicros: Histogram.merge([worker.queueWait]),
      runTimeMicros: Histogram.merge([worker.runTime]),
    };
  }

  // ------------------------------------------------------------------------------------------------------- modules

  /**
   * @internal Load a handler module into every worker, and into every one to come. Resolves with its target number;
   * rejects with the module's own error, and then no worker keeps it. Starts the threads if it is the first.
   */
  async load(url: string): Promise<number> {
    if (this.closing !== undefined) throw closed();
    let loading = this.loading.get(url);
    if (loading === undefined) {
      loading = this.loadNew(url);
      this.loading.set(url, loading);
      loading.catch(() => this.loading.delete(url));
    }
    const target = await loading;
    const module = this.modules.find((other) => other.target === target);
    if (module !== undefined) module.users++;
    return target;
  }

  private async loadNew(url: string): Promise<number> {
    const module: Module = { target: this.nextTarget++, url, proven: false, users: 0 };
    const lives = [...this.lives.values()].filter(({ worker }) => worker.state !== 'retiring');
    const loads = lives.map((life) => this.loadInto(life, module));
    this.modules.push(module);
    while (this.countLive() < this.options.nMin) loads.push(this.spawn(true).ready.promise);
    try {
      await Promise.all(loads);
    } catch (error) {
      this.drop(module);
      throw error;
    }
    module.proven = true;
    return module.target;
  }

  /** @internal The line of a mount whose handler is module `target`. */
  mount(target: number, limits: TimeLimits): MountQueue {
    return this.dispatcher.mount(target, limits, () => {
      const module = this.modules.find((other) => other.target === target);
      if (module !== undefined) module.users--;
    });
  }

  /** Modules a new worker has to load. */
  private wanted(): Module[] {
    for (const module of this.modules) {
      if (module.users > 0 || !module.proven || this.dispatcher.isWaitedFor(module.target)) continue;
      this.drop(module);
      this.loading.delete(module.url);
    }
    return this.modules;
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
    for (const { worker, standby } of this.lives.values())
      if (worker.state === 'starting' && !standby) starting++;
    return starting;
  }

  /** Workers that take work or will; not those that wait for another to go. */
  private countLive(): number {
    return this.countStarting() + this.ready.length;
  }

  private grow(): void {
    if (this.closing !== undefined || this.countLive() >= this.options.nMax) return;
    if (performance.now() < this.notBefore) this.retryLater();
    else this.spawn(false);
  }

  private ensureMin(): void {
    if (this.closing !== undefined || this.modules.length === 0) return;
    while (this.countLive() < this.options.nMin) {
      if (performance.now() < this.notBefore) {
        this.retryLater();
        return;
      }
      this.spawn(false);
    }
  }

  private retryLater(): void {
    this.retryTimer ??= setTimeout(() => {
      this.retryTimer = undefined;
      this.ensureMin();
      this.dispatcher.pump();
    }, this.notBefore - performance.now());
  }

  /**
   * Start a worker with every module; its `ready` resolves when it could take work, and rejects with what kept it from
   * that. One that stands by takes none before it is promoted.
   */
  private spawn(awaited: boolean, standby = false): Life {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(`${this.options.prefix}${this.nextName++}`, port1);
    const life: Life = {
      worker,
      kill: new AbortController(),
      ready: deferred(),
      gone: deferred(),
      loads: new Map(),
      awaited,
      standby,
      bornAt: performance.now(),
      replacement: undefined,
      thread: undefined,
      tid: undefined,
      lastUtilization: undefined,
      lifetime: undefined,
      failedBefore: 0,
      replaceableAt: 0,
      drainTimer: undefined,
      wasReady: false,
      poisoned: false,
      worn: false,
      draining: false,
      leaving: false,
      dismissed: false,
      failure: undefined,
      startTimer: setTimeout(() => {
        const message = `${worker.name} was not ready after ${START_TIMEOUT} ms: a handler module or its onWorkerStart never finished`;
        this.endWith(life, new OffloopError('OFFLOOP_START_TIMEOUT', message));
      }, START_TIMEOUT).unref(),
    };
    this.lives.set(worker, life);
    port1.on('message', (command: Command) => this.receive(life, command));
    port1.unref();
    const start: WorkerStart = {
      lane: port2,
      board: worker.board,
      address: worker.address,
      outbox: worker.outboxMemory,
      name: worker.name,
      channelPrefix: channels.newPrefix(),
      modules: this.wanted().map(({ target, url }) => ({ target, url })),
    };
    this.runLife(life, start, port2).then(
      () => this.over(life, undefined),
      (error: unknown) => this.over(life, error),
    );
    return life;
  }

  /** The whole life of one worker. Async, so that what Piscina throws at once (bad execArgv) is a rejection too. */
  private async runLife(life: Life, start: WorkerStart, port: MessagePort): Promise<void> {
    const { signal } = life.kill;
    const before = new Set(this.piscina.threads);
    const { result, tid } = startThread(this.options.niceIncrement, () =>
      this.piscina.run(start, { transferList: [port], signal }),
    );
    // Not necessarily the one that will take the task: one that was made for a life since withdrawn may be quicker.
    const made = this.piscina.threads.find((thread) => !before.has(thread));
    if (made !== undefined) {
      this.tids.set(made, tid);
      // Of a thread that ends before it has taken its task, Piscina says nothing.
      made.once('exit', () => setImmediate(() => this.diedUnborn(undefined)));
    }
    await result;
  }

  private receive(life: Life, command: Command): void {
    const { worker } = life;
    if (command === 'look') {
      worker.silentUntil = 0;
      this.dispatcher.collect(worker);
      return;
    }
    switch (command.kind) {
      case 'channels':
        carryOut(sentWhole(command.ops, command.small), worker, this.dispatcher, channels);
        return;
      case 'body-failed':
        worker.bodies.get(command.id)?.fail(fromErrorRecord(command.error));
        return;
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
      case 'read':
        worker.incoming.read(command.seq, command.bytes, command.waiting);
        return;
      case 'unread':
        worker.incoming.unread(command.seq);
        return;
      case 'ready':
        this.becameReady(life, command.threadId);
        return;
      case 'alive':
        this.dispatcher.alive(worker, command.seq);
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
    life.thread = this.piscina.threads.find((thread) => thread.threadId === threadId);
    if (life.thread !== undefined) life.tid = this.tids.get(life.thread);
    if (worker.state !== 'starting' || life.leaving) return;
    life.wasReady = true;
    worker.state = 'standby';
    if (!life.standby) this.enter(life);
    life.ready.resolve();
  }

  /** From now on it takes work. */
  private enter(life: Life): void {
    const { worker } = life;
    worker.state = 'ready';
    worker.idleSince = performance.now();
    worker.wornAfter = Math.max(1, Math.round(jittered(this.options.recycleAfter.requests)));
    this.startFailure = undefined;
    // One that dies before it has done anything has not ended the row.
    life.failedBefore = this.failedStarts;
    this.failedStarts = 0;
    this.notBefore = 0;
    this.dispatcher.outage = undefined;
    this.ready.push(worker);
    this.dispatcher.pump();
    if (worker.idle) this.becameIdle(life);
  }

  /** It need not stand by any longer. */
  private promote(life: Life): void {
    life.standby = false;
    // From here on nobody but the log hears of it if it cannot start.
    if (life.worker.state === 'starting') life.awaited = false;
    if (life.worker.state === 'standby') this.enter(life);
  }

  /** It goes: whoever stands by for it takes its place now, or when it is ready. */
  private callIn(life: Life): void {
    if (life.replacement !== undefined) this.promote(life.replacement);
    life.replacement = undefined;
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

  private endWith(life: Life, failure: unknown): void {
    life.failure ??= failure;
    this.end(life);
  }

  /** End the thread now, whatever it does. */
  private end(life: Life): void {
    const { thread, worker } = life;
    life.leaving = true;
    if (worker.state === 'gone' || life.kill.signal.aborted) return;
    life.kill.abort();
    if (thread === undefined) return;
    setTimeout(() => {
      // What Node says of threads that have ended.
      if (thread.threadId === -1) return;
      this.lost++;
      const message = `${worker.name} was told to end ${LOST_AFTER} ms ago and has not: it hangs in native code and is left to itself`;
      this.error(`${worker.name} is lost`, new OffloopError('OFFLOOP_THREAD_LOST', message));
      // It must not keep the process from wanting to end; only the system can end it, or what it waits for.
      thread.unref();
    }, LOST_AFTER).unref();
  }

  /** The thread has ended, in whichever way. */
  private over(life: Life, error: unknown): void {
    const { worker } = life;
    clearTimeout(life.startTimer);
    clearInterval(life.drainTimer);
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
    this.leaving.delete(worker);
    worker.lane.close();
    this.lives.delete(worker);
    this.removeReady(worker);
    this.callIn(life);
    const cause = life.failure ?? error;
    if (this.closing === undefined) {
      if (life.wasReady && !wasRetiring && !life.dismissed) {
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
      else this.spawn(true).ready.promise.then(load.resolve, load.reject);
    });
  }

  /**
   * Back off from code that cannot live: a worker that never became ready, or died without having been given anything
   * to do. One that died of its work is replaced at once, and work done is proof that the code lives.
   */
  private noteEnd(life: Life, cause: unknown): void {
    // Whoever keeps it standing by hears of it, and whoever sent it away knows.
    if (life.standby || life.dismissed) return;
    if (life.worker.used || (life.wasReady && cause === undefined)) {
      this.failedStarts = 0;
      this.notBefore = 0;
      return;
    }
    this.failedStarts = Math.max(this.failedStarts, life.failedBefore) + 1;
    const wait = Math.min(BACKOFF_TO, BACKOFF_FROM * 2 ** (this.failedStarts - 1));
    this.notBefore = performance.now() + wait;
    // The first load of a module reports its failure by rejecting; afterwards the log is the only witness.
    if (!life.wasReady && !life.awaited)
      this.error(`${life.worker.name} could not start, next try in ${wait} ms`, cause);
    this.startFailure = messageOf(cause);
    if (this.failedStarts >= GIVE_UP_AFTER && this.ready.length === 0)
      this.dispatcher.giveUp(cause, this.notBefore);
  }

  /**
   * A thread has ended that may have had no task yet. If there are now fewer threads than lives that wait for one, one of
   * those waits in vain.
   */
  private diedUnborn(error: unknown): void {
    if (this.closing !== undefined) return;
    const taken = new Set([...this.lives.values()].map((life) => life.thread));
    const free = this.piscina.threads.filter((thread) => thread.threadId !== -1 && !taken.has(thread)).length;
    const waiting = [...this.lives.values()].filter(
      ({ worker, leaving }) => worker.state === 'starting' && !leaving,
    );
    const first = waiting[0];
    if (first !== undefined && waiting.length > free) this.endWith(first, error);
    else if (error !== undefined) this.warn('a thread that was not in use died', error);
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
    this.callIn(life);
    this.dispatcher.requeue(worker);
    life.failure = error;
    if (wasStarting || worker.idle) this.end(life);
    else setTimeout(() => this.end(life), POISONED_GRACE).unref();
    // One that was never given anything is replaced when it has ended, see `noteEnd`.
    if (worker.used) this.ensureMin();
    this.dispatcher.pump();
  }

  private setRetiring(worker: Worker): void {
    worker.state = 'retiring';
    this.leaving.add(worker);
    this.removeReady(worker);
  }

  private removeReady(worker: Worker): void {
    const at = this.ready.indexOf(worker);
    if (at !== -1) this.ready.splice(at, 1);
  }

  /** The orderly end: no new work, onWorkerStop, exit. Only for workers with nothing outstanding. */
  private retire(life: Life): void {
    if (life.leaving) return;
    clearInterval(life.drainTimer);
    life.leaving = true;
    this.setRetiring(life.worker);
    life.worker.send({ kind: 'retire' });
    setTimeout(() => this.end(life), RETIRE_TIMEOUT).unref();
  }

  /** One that stood by is not needed after all. */
  private dismiss(life: Life): void {
    life.dismissed = true;
    if (life.worker.state === 'standby') this.retire(life);
    else this.end(life);
  }

  /** No new work; what has started is finished, what has not runs elsewhere; then the orderly end. */
  private drain(life: Life): void {
    const { worker } = life;
    this.setRetiring(worker);
    life.draining = true;
    this.dispatcher.requeue(worker);
    if (worker.idle) {
      this.retire(life);
      return;
    }
    // What nobody waits for any more, because it had its 504 or its client is gone, may take this long and no longer.
    const since = performance.now();
    life.drainTimer = setInterval(() => {
      const now = performance.now();
      if (worker.abandoned) this.retire(life);
      else if (now - since > CHANNELS_GO_AFTER) worker.abandonChannels(false);
      // A download takes as long as it takes. One that stands still would keep the thread for ever.
      for (const body of [...worker.bodies.values()])
        if (now - Math.max(since, body.movedAt) > BODIES_MOVE_WITHIN) body.fail(stoodStill(worker));
    }, POISONED_GRACE);
    life.drainTimer.unref();
  }

  // --------------------------------------------------------------------------------------------------------- stuck

  /** It may have to be ended soon: start its replacement, which takes no work before that. */
  private prepare(life: Life): void {
    if (this.closing !== undefined || life.replacement !== undefined || life.worker.state !== 'ready') return;
    life.replacement = this.spawn(true, true);
    stepAside(life.tid);
  }

  /** Its loop turns again. With its low priority it is not what it was, so its replacement takes its place all the same. */
  private recovered(life: Life): void {
    const { replacement } = life;
    if (replacement === undefined || life.worn) return;
    life.worn = true;
    replacement.ready.promise.then(
      () => this.takeOver(life, replacement),
      (error: unknown) => {
        life.worn = false;
        if (life.worker.state !== 'ready') return;
        life.replacement = undefined;
        if (this.closing === undefined)
          this.error(
            `${life.worker.name} should be replaced, but ${replacement.worker.name} could not start`,
            error,
          );
      },
    );
  }

  /** The replacement of a worker is ready: change places. */
  private takeOver(life: Life, replacement: Life): void {
    life.replacement = undefined;
    if (life.worker.state !== 'ready') {
      // It ended meanwhile, and its replacement has been promoted; or it is being replaced by somebody else.
      if (replacement.standby) this.dismiss(replacement);
      return;
    }
    this.promote(replacement);
    this.drain(life);
  }

  /** Its event loop is stuck in a handler that has had its time: find out where, and end it. */
  private async endStuck(life: Life, ticket: Ticket): Promise<void> {
    const { worker } = life;
    if (life.leaving) return;
    life.leaving = true;
    const elapsed = Math.round(performance.now() - ticket.givenAt);
    const { head } = ticket.invocation;
    // What a message says is nobody's business.
    const isEvent = ticket.mount.target === EVENT_TARGET;
    const request = isEvent ? `a callback of channel ${head.split('\n', 1)[0]}` : requestLine(head);
    this.killed++;
    this.setRetiring(worker);
    this.dispatcher.requeue(worker);
    this.callIn(life);
    this.ensureMin();
    this.dispatcher.pump();
    const stack = await captureStack(worker.threadId, STACK_TIMEOUT);
    const message = `${request} has run for ${elapsed} ms and its event loop does not turn`;
    const error = new OffloopError('OFFLOOP_HANDLER_STUCK', message);
    // Where we noticed is of no interest; where the handler is, all the more.
    error.stack = `${error.name}: ${message}\n${stack ?? '    (no JavaScript stack: the thread is in native code, or gets no time)'}`;
    this.error(`${worker.name} is ended and replaced: ${message}`, error);
    this.endWith(life, error);
  }

  // ------------------------------------------------------------------------------------------------------- profile

  /** @internal Its worker with this `threadId`; without one, the one that has the most to do. */
  find(threadId?: number): Worker | undefined {
    const workers = [...this.lives.keys()].filter((worker) => worker.threadId > 0 && worker.state !== 'gone');
    if (threadId !== undefined) return workers.find((worker) => worker.threadId === threadId);
    return workers.sort((a, b) => b.load - a.load || b.served - a.served)[0];
  }

  /** @internal Profile one of its workers. */
  profile(worker: Worker, { kind, duration, signal }: ProfileTask): Promise<unknown> {
    const end = new AbortController();
    this.withLife(worker, (life) => {
      void life.gone.promise.then(() => end.abort(lost(worker.name, life.failure)));
    });
    return profileThread(worker.threadId, worker.name, {
      kind,
      duration,
      signal: AbortSignal.any([signal, end.signal]),
    });
  }

  // ------------------------------------------------------------------------------------------------------- recycle

  private lookForWear(): void {
    const { ms, heapMb } = this.options.recycleAfter;
    const now = performance.now();
    for (const life of this.lives.values()) {
      if (life.worker.state !== 'ready' || now < life.replaceableAt) continue;
      life.lifetime ??= jittered(ms);
      if (now - life.bornAt > life.lifetime || life.worker.heapUsed > heapMb * 1024 * 1024) {
        void this.recycle(life);
        return;
      }
    }
  }

  /** Replace a worker that has served its time; its replacement is ready before it stops. One at a time. */
  private async recycle(life: Life): Promise<void> {
    const { worker } = life;
    // By the next sample the others are still due.
    if (
      this.recycling ||
      life.replacement !== undefined ||
      worker.state !== 'ready' ||
      performance.now() < life.replaceableAt
    ) {
      worker.wornAfter = worker.served + 1;
      return;
    }
    this.recycling = true;
    life.worn = true;
    const fresh = this.spawn(true, true);
    life.replacement = fresh;
    try {
      await fresh.ready.promise;
    } catch (error) {
      life.worn = false;
      // Replaced by a reload, together with its replacement.
      if (worker.state !== 'ready') return;
      life.replacement = undefined;
      if (this.closing === undefined)
        this.error(`${worker.name} should be recycled, but ${fresh.worker.name} could not start`, error);
      life.replaceableAt = performance.now() + RECYCLE_AGAIN;
      worker.wornAfter = worker.served + 1;
      return;
    } finally {
      this.recycling = false;
    }
    if (worker.state === 'ready') this.recycled++;
    this.takeOver(life, fresh);
  }

  // -------------------------------------------------------------------------------------------------------- reload

  /**
   * Start fresh workers with the code that is now on disk, and let the old ones finish and retire. Resolves when the
   * fresh ones have taken over; no request is lost or waits for it. Rejects with the error of the code when it does not
   * start, and then the old workers go on. For the moment of the change there are up to twice as many threads.
   */
  reload(): Promise<void> {
    if (this.reloading === undefined) {
      this.reloading = this.reloadNow().finally(() => {
        this.reloading = undefined;
      });
      return this.reloading;
    }
    // The one under way may have read the code before it was changed: one more for all who ask meanwhile.
    const again = (): Promise<void> => {
      this.reloadingNext = undefined;
      return this.reload();
    };
    this.reloadingNext ??= this.reloading.then(again, again);
    return this.reloadingNext;
  }

  private async reloadNow(): Promise<void> {
    if (this.closing !== undefined) throw closed();
    if (this.modules.length === 0) return;
    const size = Math.max(this.options.nMin, this.ready.length);
    const fresh = Array.from({ length: size }, () => this.spawn(true, true));
    try {
      await Promise.all(fresh.map((life) => life.ready.promise));
    } catch (cause) {
      for (const life of fresh) this.dismiss(life);
      throw this.closing === undefined ? cause : closed();
    }
    // `close` has seen to them.
    if (this.closing !== undefined) throw closed();
    this.reloads++;
    for (const life of fresh) this.promote(life);
    // All others, those included that were started meanwhile in place of one that died: they may have the old code.
    const kept = new Set(fresh);
    for (const life of [...this.lives.values()]) {
      const { state } = life.worker;
      if (kept.has(life)) continue;
      life.replacement = undefined;
      if (state === 'ready') this.drain(life);
      else if (state === 'starting' || state === 'standby') this.dismiss(life);
    }
    this.ensureMin();
  }

  // ---------------------------------------------------------------------------------------------------------- idle

  private becameIdle(life: Life): void {
    const { worker } = life;
    if (worker.state === 'retiring') {
      // Poisoned, or told to finish, and now done with what was pending.
      if (life.poisoned) this.end(life);
      else if (life.draining) this.retire(life);
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
  close(options?: Pick<StopOptions, 'timeout'>): Promise<void> {
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
    clearInterval(this.wearTimer);
    const inTime = await within(this.dispatcher.whenDrained(), timeout);
    const busy = new Set([...this.lives.keys()].filter((worker) => !worker.idle));
    const late = new OffloopError(
      'OFFLOOP_STOPPED',
      'the worker pool was closed before the handler was done',
    );
    // Also of what comes from now on: the end of a channel may.
    this.dispatcher.failQueued(late);
    if (!inTime) {
      for (const worker of this.lives.keys()) this.dispatcher.failStarted(worker, late);
    }
    const lives = [...this.lives.values()];
    for (const life of lives) {
      // A thread that runs late or is still on its way up would not hear us.
      const { state } = life.worker;
      if (!busy.has(life.worker) && (state === 'ready' || state === 'standby')) this.retire(life);
      else if (!life.leaving || busy.has(life.worker)) this.end(life);
    }
    await Promise.all(lives.map((life) => life.gone.promise));
    await within(this.piscina.destroy(), LOST_AFTER);
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
    const trial = new NodeWorker('', { eval: true, execArgv, env: {} });
    trial.on('error', () => undefined);
    trial.unref();
    void trial.terminate();
  } catch (cause) {
    const message = `option execArgv is ${JSON.stringify(execArgv)}; allowed: Node flags that workers take (${(cause as Error).message})`;
    throw new OffloopTypeError('OFFLOOP_BAD_OPTION', message, { cause });
  }
}

const closed = (): OffloopError => new OffloopError('OFFLOOP_STOPPED', 'the worker pool is closed');

const stoodStill = ({ name }: Worker): OffloopError =>
  new OffloopError(
    'OFFLOOP_WORKER_LOST',
    `${name} is being replaced, and nothing of the response has moved for ${BODIES_MOVE_WITHIN} ms`,
  );

function jittered(limit: number): number {
  return limit * (1 - JITTER + 2 * JITTER * Math.random());
}

/** Never throws: what a module throws may be anything. */
function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? error.message : String(error);
  } catch {
    return 'unprintable error';
  }
}
