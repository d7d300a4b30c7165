/**
 * Decides what runs where and when. Admits invocations up to an exact bound, gives them to workers in batches at the
 * end of a loop turn, takes back what has not started when a worker turns out to be stuck, and delivers the answers.
 */
import { OffloopError } from '../errors.js';
import type { OnAnswer } from '../outbox.js';
import { type Accepted, type Dispatcher, type Invocation, STATUS_PENDING } from '../protocol.js';
import { BATCH_BUDGET, ServiceTimes } from './service-times.js';
import { Ticket, TicketQueue } from './ticket.js';
import type { Worker } from './worker.js';

/** Ms between looks at workers in which promises are pending and nothing runs. */
const LOOK_AT_PENDING = 20;
/** Ms without a sign of life after which what a worker has not started is given to a free one. */
const STALLED_AFTER = 2;
/** A refusal this many ms after the last one begins a new overload, which is logged again. */
const OVERLOAD_GAP = 1000;

/** What the dispatcher may ask of whoever keeps the threads. */
export interface Threads {
  /** Workers that take work, the longest-serving first. */
  readonly ready: readonly Worker[];
  /** Workers on their way to being ready. */
  readonly starting: number;
  /** Start one more worker if the bound allows it. */
  grow(): void;
  /** A worker has nothing to do any more. */
  idle(worker: Worker): void;
  overloaded(message: string, error: unknown): void;
}

export interface DispatcherLimits {
  readonly nMax: number;
  readonly queueSize: number;
  readonly concurrency: number;
}

export class PoolDispatcher implements Dispatcher {
  readonly times = new ServiceTimes();
  closed = false;
  queuedMax = 0;
  refused = 0;
  accepted = 0;

  private readonly queue = new TicketQueue();
  /** Invocations given to workers and not reported back as answered or pending. */
  private given = 0;
  /** Pending promises in all workers. */
  private pending = 0;
  private pumpScheduled = false;
  /** Whose answers are being delivered. */
  private collecting: Worker | undefined;
  private sweepTimer: NodeJS.Timeout | undefined;
  private refusedAt = Number.NEGATIVE_INFINITY;
  private refusedInARow = 0;
  private readonly drained: (() => void)[] = [];

  constructor(
    private readonly limits: DispatcherLimits,
    private readonly threads: Threads,
  ) {}

  get queued(): number {
    return this.queue.size;
  }
  get running(): number {
    return this.given;
  }
  get waiting(): number {
    return this.pending;
  }

  // ----------------------------------------------------------------------------------------------------- admission

  /** Accept an invocation, or null when nMax are running and queueSize are waiting. */
  dispatch(target: number, invocation: Invocation): Accepted | null {
    if (this.closed || this.queue.size + this.given >= this.capacity()) {
      this.noteRefusal();
      return null;
    }
    const ticket = new Ticket(target, invocation, this.cancel);
    this.accepted++;
    this.queue.push(ticket);
    if (this.queue.size > this.queuedMax) this.queuedMax = this.queue.size;
    this.schedulePump();
    return ticket;
  }

  /** One invocation can run on each thread that may exist and is not full of pending promises; queueSize may wait. */
  private capacity(): number {
    let capacity = this.limits.nMax + this.limits.queueSize;
    if (this.pending >= this.limits.concurrency) {
      for (const worker of this.threads.ready) if (worker.pending >= this.limits.concurrency) capacity--;
    }
    return capacity;
  }

  retryAfter(): number {
    const backlogMs = ((this.queue.size + this.given) * this.times.mean) / 1000 / this.limits.nMax;
    return Math.max(1, Math.ceil(backlogMs / 1000));
  }

  /** One line when an overload begins and one when it is over, never one per request: logging would be the next overload. */
  private noteRefusal(): void {
    this.refused++;
    if (this.closed) return;
    const now = performance.now();
    if (now - this.refusedAt > OVERLOAD_GAP) {
      const { nMax, queueSize } = this.limits;
      const message = `all ${nMax} threads are busy and the queue of ${queueSize} is full`;
      const error = new OffloopError('OFFLOOP_OVERLOADED', message);
      // Where we noticed is of no interest.
      error.stack = `${error.name}: ${message}`;
      this.threads.overloaded('failed to submit task to executor service', error);
      this.refusedInARow = 0;
      this.watchOverload();
    }
    this.refusedInARow++;
    this.refusedAt = now;
  }

  private watchOverload(): void {
    setTimeout(() => {
      if (performance.now() - this.refusedAt < OVERLOAD_GAP) this.watchOverload();
      else
        this.threads.overloaded(
          `overload is over, ${this.refusedInARow} refused; increase queueSize if this happens often`,
          undefined,
        );
    }, OVERLOAD_GAP).unref();
  }

  // -------------------------------------------------------------------------------------------------------- giving

  /** The check phase comes right behind the sockets of this turn: all they brought travels together. */
  private schedulePump(): void {
    if (this.pumpScheduled) return;
    this.pumpScheduled = true;
    setImmediate(this.endOfTurn);
  }

  private readonly endOfTurn = (): void => {
    this.pumpScheduled = false;
    // What is finished by now need not wait for its hint.
    if (this.given > 0) for (const worker of this.threads.ready) if (worker.given > 0) this.collect(worker);
    this.pump();
  };

  /** Give waiting invocations to workers until one side runs out. */
  pump(): void {
    while (this.queue.first !== undefined) {
      const worker = this.pick(this.queue.first.target);
      if (worker === undefined) {
        // Threads first: grow while work waits that no thread on its way up will take.
        for (let n = this.threads.starting; n < this.queue.size; n++) {
          const before = this.threads.starting;
          this.threads.grow();
          if (this.threads.starting === before) break;
        }
        break;
      }
      this.fill(worker);
    }
    if (this.given > 0) this.sweepSoon();
  }

  /**
   * The worker for the next invocation: the one with the fewest pending promises, since their continuations want its
   * loop too; what is given counts with them for a target that is async. Among equals one that is awake and has room in
   * its budget, before a second one is woken. Work over the budget only goes to a worker with nothing else to do.
   */
  private pick(target: number): Worker | undefined {
    const cost = this.times.expected(target);
    const spread = this.times.isAsync(target);
    let best: Worker | undefined;
    let bestLoad = 0;
    let now = -1;
    for (const worker of this.threads.ready) {
      // Any of those given may turn out to be async, so they count in full.
      if (worker.pending + worker.given >= this.limits.concurrency) continue;
      if (worker.given > 0) {
        if (worker.cost + cost > BATCH_BUDGET) continue;
        if (now < 0) now = performance.now();
        if (now - worker.progressAt > STALLED_AFTER) continue;
      }
      const load = spread ? worker.pending + worker.given : worker.pending;
      if (
        best === undefined ||
        load < bestLoad ||
        (load === bestLoad && best.given === 0 && worker.given > 0)
      ) {
        best = worker;
        bestLoad = load;
      }
    }
    return best;
  }

  /**
   * Give `worker` a batch from the head of the queue: one invocation in any case, more while they fit its budget; of a
   * target that is async, its share.
   */
  private fill(worker: Worker): void {
    const batch: Ticket[] = [];
    let cost = worker.cost;
    let room = this.limits.concurrency - worker.pending - worker.given;
    const share = Math.ceil(this.queue.size / this.threads.ready.length);
    for (let ticket = this.queue.first; ticket !== undefined; ticket = this.queue.first) {
      const expected = this.times.expected(ticket.target);
      if (share < room && this.times.isAsync(ticket.target)) room = share;
      if (batch.length > 0 && (cost + expected > BATCH_BUDGET || batch.length >= room)) break;
      cost += expected;
      ticket.cost = expected;
      this.queue.remove(ticket);
      batch.push(ticket);
    }
    this.given += batch.length;
    worker.give(batch);
  }

  // --------------------------------------------------------------------------------------------------- taking back

  private sweepSoon(): void {
    if (this.sweepTimer !== undefined) return;
    this.sweepTimer = setTimeout(
      () => {
        this.sweepTimer = undefined;
        this.sweep();
        if (this.given + this.pending > 0) this.sweepSoon();
      },
      this.given > 0 ? STALLED_AFTER : LOOK_AT_PENDING,
    );
    this.sweepTimer.unref();
  }

  /**
   * Free what is stuck behind a surprise: of a worker that has been silent for too long, what it has finished is
   * delivered, and what it has not started goes back to the head of the queue.
   */
  private sweep(): void {
    const now = performance.now();
    for (const worker of [...this.threads.ready]) {
      if (worker.idle || now - worker.progressAt <= STALLED_AFTER) continue;
      this.collect(worker);
      if (worker.given > 1) this.requeue(worker);
    }
    if (this.queue.size > 0) this.pump();
  }

  /** Take back what `worker` has not started. Returns whether there was anything. */
  requeue(worker: Worker): boolean {
    const tickets = worker.takeBack();
    this.given -= tickets.length;
    for (const ticket of tickets.reverse()) {
      if (ticket.cancelled) {
        ticket.state = 'done';
        continue;
      }
      ticket.state = 'queued';
      this.queue.unshift(ticket);
    }
    this.checkDrained();
    return tickets.length > 0;
  }

  // ------------------------------------------------------------------------------------------------------- answers

  /** Deliver what is in a worker's outbox. */
  collect(worker: Worker): void {
    const before = this.collecting;
    this.collecting = worker;
    try {
      if (worker.outbox.drain(this.deliver)) this.heard(worker);
    } finally {
      this.collecting = before;
    }
  }

  private readonly deliver: OnAnswer = (seq, status, head, payload, flags, micros) => {
    const worker = this.collecting as Worker;
    const ticket = worker.find(seq);
    if (ticket === undefined) return; // answered already in its name, when its worker was given up
    if (status === STATUS_PENDING) {
      this.given--;
      this.pending++;
      worker.markPending(ticket);
      this.times.sample(ticket.target, micros, true);
      return;
    }
    this.finish(worker, ticket, micros);
    if (!ticket.cancelled) ticket.invocation.answer(status, head, payload, flags);
  };

  /** An answer that came over the lane by itself. */
  answered(worker: Worker, ...answer: Parameters<OnAnswer>): void {
    const before = this.collecting;
    this.collecting = worker;
    this.deliver(...answer);
    this.collecting = before;
    this.heard(worker);
  }

  /** The handler of an invocation threw. */
  failed(worker: Worker, seq: number, error: unknown, micros: number): void {
    const ticket = worker.find(seq);
    if (ticket !== undefined) {
      this.finish(worker, ticket, micros);
      if (!ticket.cancelled) ticket.invocation.fail(error);
    }
    this.heard(worker);
  }

  /** Take a ticket that is answered off the books. */
  private finish(worker: Worker, ticket: Ticket, micros: number): void {
    if (ticket.state === 'given') this.times.sample(ticket.target, micros, false);
    worker.served++;
    this.strike(worker, ticket);
  }

  /** Off the books of the worker and ours, however it ended. */
  private strike(worker: Worker, ticket: Ticket): void {
    if (ticket.state === 'given') this.given--;
    else this.pending--;
    worker.drop(ticket);
    ticket.state = 'done';
  }

  private heard(worker: Worker): void {
    worker.progressAt = performance.now();
    if (this.queue.size > 0) this.schedulePump();
    if (worker.idle) this.threads.idle(worker);
    this.checkDrained();
  }

  /** The client is gone. Waiting: out of the queue at once. Running: its signal fires, its answer is dropped. */
  private readonly cancel = (ticket: Ticket): void => {
    if (ticket.state === 'queued') {
      this.queue.remove(ticket);
      ticket.state = 'done';
      this.checkDrained();
    } else {
      ticket.worker?.send({ kind: 'cancel', seq: ticket.seq });
    }
  };

  /** Fail everything `worker` has started and not answered. */
  failStarted(worker: Worker, error: unknown): void {
    for (const ticket of worker.outstanding()) {
      this.strike(worker, ticket);
      if (!ticket.cancelled) ticket.invocation.fail(error);
    }
    this.checkDrained();
  }

  /** The thread is gone: what it has finished is delivered, what it has not started runs elsewhere, the rest fails. */
  lost(worker: Worker, error: unknown): void {
    this.collect(worker);
    this.requeue(worker);
    this.failStarted(worker, error);
    if (this.queue.size > 0) this.pump();
  }

  // ----------------------------------------------------------------------------------------------------- the end

  /** Resolves when nothing is queued, running or pending. */
  whenDrained(): Promise<void> {
    return new Promise((resolve) => {
      this.drained.push(resolve);
      this.checkDrained();
    });
  }

  private checkDrained(): void {
    if (this.drained.length === 0 || this.queue.size + this.given + this.pending > 0) return;
    for (const resolve of this.drained.splice(0)) resolve();
  }

  /** Fail everything that still waits. */
  failQueued(error: unknown): void {
    for (let ticket = this.queue.first; ticket !== undefined; ticket = this.queue.first) {
      this.queue.remove(ticket);
      ticket.state = 'done';
      ticket.invocation.fail(error);
    }
    this.checkDrained();
  }
}
