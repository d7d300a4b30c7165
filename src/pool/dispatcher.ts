/**
 * Decides what runs where and when. Admits invocations up to an exact bound, gives them to workers in batches at the
 * end of a loop turn, takes back what has not started when a worker turns out to be stuck, and delivers the answers.
 */
import { fromErrorRecord, OffloopError } from '../errors.js';
import {
  type Accepted,
  ANSWER_FIELDS,
  type AnswerItem,
  type Dispatcher,
  type ErrorRecord,
  type Invocation,
  type Payload,
  STATUS_FAILED,
  STATUS_PENDING,
} from '../protocol.js';
import { BATCH_BUDGET, ServiceTimes } from './service-times.js';
import { Ticket, TicketQueue } from './ticket.js';
import type { Worker } from './worker.js';

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
      this.threads.overloaded(
        'failed to submit task to executor service',
        new OffloopError(
          'OFFLOOP_OVERLOADED',
          `all ${this.limits.nMax} threads are busy and the queue of ${this.limits.queueSize} is full`,
        ),
      );
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
    this.pump();
  };

  /** Give waiting invocations to workers until one side runs out. */
  pump(): void {
    while (this.queue.first !== undefined) {
      const cost = this.times.expected(this.queue.first.target);
      const worker = this.pick(cost);
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
    if (this.sweepTimer === undefined && this.given > 1) this.sweepSoon();
  }

  /**
   * The worker for the next invocation: the one with the fewest pending promises, since their continuations want its
   * loop too; among equals one that is awake and has room in its budget, before a second one is woken. Work over the
   * budget only goes to a worker with nothing else to do.
   */
  private pick(cost: number): Worker | undefined {
    let best: Worker | undefined;
    let now = -1;
    for (const worker of this.threads.ready) {
      // Any of those given may turn out to be async, so they count in full.
      if (worker.pending + worker.given >= this.limits.concurrency) continue;
      if (worker.given > 0) {
        if (worker.cost + cost > BATCH_BUDGET) continue;
        if (now < 0) now = performance.now();
        if (now - worker.progressAt > STALLED_AFTER) continue;
      }
      if (
        best === undefined ||
        worker.pending < best.pending ||
        (worker.pending === best.pending && best.given === 0 && worker.given > 0)
      ) {
        best = worker;
      }
    }
    return best;
  }

  /** Give `worker` a batch from the head of the queue: one invocation in any case, more while they fit its budget. */
  private fill(worker: Worker): void {
    const batch: Ticket[] = [];
    let cost = worker.cost;
    const room = this.limits.concurrency - worker.pending - worker.given;
    for (let ticket = this.queue.first; ticket !== undefined; ticket = this.queue.first) {
      const expected = this.times.expected(ticket.target);
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
    this.sweepTimer = setTimeout(() => {
      this.sweepTimer = undefined;
      this.sweep();
      if (this.given > 1) this.sweepSoon();
    }, STALLED_AFTER);
    this.sweepTimer.unref();
  }

  /** Free what waits behind a surprise: unstarted invocations of a silent worker go back to the head of the queue. */
  private sweep(): void {
    const now = performance.now();
    let freed = false;
    for (const worker of this.threads.ready) {
      if (worker.given < 2 || now - worker.progressAt <= STALLED_AFTER) continue;
      if (this.requeue(worker)) freed = true;
    }
    if (freed) this.pump();
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
    return tickets.length > 0;
  }

  // ------------------------------------------------------------------------------------------------------- answers

  /** Answers from a worker's lane, flat. */
  answered(worker: Worker, items: readonly AnswerItem[]): void {
    for (let i = 0; i < items.length; i += ANSWER_FIELDS) {
      const ticket = worker.find(items[i] as number);
      if (ticket === undefined) continue; // answered already in its name, when its worker was given up
      const status = items[i + 1] as number;
      if (ticket.state === 'given') {
        this.given--;
        this.times.sample(ticket.target, items[i + 5] as number);
        if (status === STATUS_PENDING) {
          worker.markPending(ticket);
          this.pending++;
          continue;
        }
      } else {
        this.pending--;
      }
      worker.drop(ticket);
      worker.served++;
      ticket.state = 'done';
      if (ticket.cancelled) continue;
      if (status === STATUS_FAILED) ticket.invocation.fail(fromErrorRecord(items[i + 3] as ErrorRecord));
      else
        ticket.invocation.answer(
          status,
          items[i + 2] as string,
          items[i + 3] as Payload,
          items[i + 4] as number,
        );
    }
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
    for (const ticket of worker.outstanding()) this.failTicket(ticket, worker, error);
    this.checkDrained();
  }

  private failTicket(ticket: Ticket, worker: Worker, error: unknown): void {
    if (ticket.state === 'given') this.given--;
    else this.pending--;
    worker.drop(ticket);
    ticket.state = 'done';
    if (!ticket.cancelled) ticket.invocation.fail(error);
  }

  /** The thread is gone: what it had started fails, what it had not runs elsewhere. */
  lost(worker: Worker, error: unknown): void {
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
