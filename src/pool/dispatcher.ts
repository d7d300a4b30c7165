/**
 * Decides what runs where and when. Admits invocations up to an exact bound, gives them to workers in batches at the
 * end of a loop turn, takes back what has not started when a worker turns out to be stuck, answers for what takes too
 * long, and delivers the answers.
 */
import { Deadlines, excuse } from '../deadlines.js';
import { OffloopError } from '../errors.js';
import type { OnAnswer } from '../outbox.js';
import {
  type Accepted,
  EVENT_TARGET,
  type Invocation,
  STATUS_PENDING,
  type TimeLimits,
} from '../protocol.js';
import { type Distribution, Histogram, WINDOW } from './histogram.js';
import { MountQueue } from './mount-queue.js';
import { Ticket } from './ticket.js';
import type { Worker } from './worker.js';

/** Ms between looks at workers in which promises are pending and nothing runs. */
const LOOK_AT_PENDING = 20;
/** Ms without a sign of life after which what a worker has not started is given to a free one. */
const STALLED_AFTER = 2;
/** The same for a worker that has not begun with anything. */
const ASLEEP_AFTER = 10;
/** Microseconds on average up to which invocations are given ahead. A worker is not silent for longer, or they would be taken back as a rule. */
const AHEAD = STALLED_AFTER * 1000;
/** Ms for which a worker that did not begin with what it was given is passed over. */
const SILENT_FOR = 50;
/** A refusal this many ms after the last one begins a new overload, which is logged again. */
const OVERLOAD_GAP = 1000;
/** Microseconds that a mount never seen is expected to take. */
const UNKNOWN = 1000;
/** Microseconds from which on an invocation is slow: some threads are kept clear of those, see `spare`. */
const SLOW = 10_000;
/** Ms without cheap work after which no thread is kept for it. */
const CHEAP_MEMORY = 1000;
/** Ms that a loop which turns may take to say so: sooner no worker is suspected of being stuck. */
const PROBE = 100;
/** Ms before a stuck worker is ended at which its replacement is started, so that it is there in time. */
const PREPARE = 250;

/** What the dispatcher may ask of whoever keeps the threads. */
export interface Threads {
  /** Workers that take work, the longest-serving first. */
  readonly ready: readonly Worker[];
  /** Workers that finish what they have and take no more. */
  readonly leaving: ReadonlySet<Worker>;
  /** All that may still have something to say. */
  readonly all: Iterable<Worker>;
  /** Workers on their way to being ready. */
  readonly starting: number;
  /** Start one more worker if the bound allows it. */
  grow(): void;
  /** A worker has nothing to do any more. */
  idle(worker: Worker): void;
  /** A worker has served as many invocations as it should. */
  worn(worker: Worker): void;
  /** A worker may have to be ended soon: have another one ready. */
  suspect(worker: Worker): void;
  /** It does not have to be ended. */
  cleared(worker: Worker): void;
  /** A worker is full of promises that nobody waits for any more: replace it. */
  clogged(worker: Worker): void;
  /** The loop of a worker is stuck, with this invocation overdue: end it. */
  stuck(worker: Worker, ticket: Ticket): void;
  /** For the log: an error, or a warning when `error` is undefined. */
  report(message: string, error: unknown): void;
}

export interface DispatcherLimits {
  readonly nMax: number;
  readonly queueSize: number;
  readonly concurrency: number;
  readonly batchMicros: number;
}

export class PoolDispatcher {
  closed = false;
  private ended: unknown;
  /** Why no worker can start, and when the next one is tried; undefined while there is hope. */
  outage: { readonly cause: unknown; readonly retryAt: number } | undefined;
  refused = 0;
  accepted = 0;
  /** Messages in which invocations were given to workers. */
  batches = 0;
  readonly timedOut = { queue: 0, handler: 0 };
  /** Every mount that may still send something. */
  readonly mounts = new Set<MountQueue>();

  /** Mounts of which something waits. */
  private readonly active: MountQueue[] = [];
  /** Virtual time of the mount served last: where one that wakes up joins. */
  private virtual = 0;
  private waitingNow = 0;
  /** Events that wait for a callback of their own channel, in none of the lines. */
  private held = 0;
  private waitingMost = 0;
  /** Invocations given to workers and not reported back as answered or pending. */
  private given = 0;
  /** Those of them that are expected to be slow. */
  private slowGiven = 0;
  private cheapAt = Number.NEGATIVE_INFINITY;
  /** Pending promises in all workers. */
  private pending = 0;
  private round = 0;
  private pumpScheduled = false;
  /** When this turn's first invocation came. */
  private turnAt = 0;
  /** Whose answers are being delivered. */
  private collecting: Worker | undefined;
  private sweepTimer: NodeJS.Timeout | undefined;
  private refusedAt = Number.NEGATIVE_INFINITY;
  private refusedInARow = 0;
  private rotatedAt = performance.now();
  private readonly drained: (() => void)[] = [];
  private readonly deadlines = new Deadlines<Ticket>((ticket) => this.expired(ticket));
  /** Threads that slow work may not take while there is cheap work about. */
  private readonly spare: number;

  constructor(
    private readonly limits: DispatcherLimits,
    private readonly threads: Threads,
  ) {
    this.spare = Math.floor(limits.nMax / 4);
  }

  get queued(): number {
    return this.waitingNow + this.held;
  }
  get running(): number {
    return this.given;
  }
  get waiting(): number {
    return this.pending;
  }

  mount(target: number, limits: TimeLimits, onClose: () => void = () => undefined): MountQueue {
    const mount = new MountQueue(this, target, limits, onClose);
    this.mounts.add(mount);
    return mount;
  }

  // ----------------------------------------------------------------------------------------------------- admission

  /** Accept an invocation, or refuse it when nMax are running and queueSize are waiting. */
  admit(mount: MountQueue, invocation: Invocation): Accepted | null {
    if (this.closed || this.outage !== undefined || !this.hasRoom(mount)) {
      this.turnAway(mount, invocation);
      return null;
    }
    return this.accept(mount, invocation);
  }

  private accept(mount: MountQueue, invocation: Invocation): Ticket {
    // The check phase comes right behind the sockets of this turn: all they brought travels together.
    this.schedulePump();
    const ticket = new Ticket(mount, invocation, this.turnAt);
    this.accepted++;
    mount.accepted++;
    this.enqueue(ticket, false);
    return ticket;
  }

  /** Where events of the channels wait that `mount` has opened in `worker`. */
  eventsOf(mount: MountQueue, worker: Worker): MountQueue {
    let line = worker.events.get(mount);
    if (line === undefined) {
      // None is ever dropped for having waited: a message would be missing, or the end of a channel never told.
      const limits = { ...mount.limits, queueTimeout: 0 };
      line = new MountQueue(this, EVENT_TARGET, limits, () => undefined, worker);
      worker.events.set(mount, line);
    }
    return line;
  }

  /**
   * Where events of the channels of one definition of `mount` wait: any worker can run them. Each definition has its own, since
   * its callbacks may take far longer than those of others.
   */
  definedEventsOf(mount: MountQueue, definition: string): MountQueue {
    let line = mount.definedEvents.get(definition);
    if (line === undefined) {
      line = new MountQueue(this, EVENT_TARGET, { ...mount.limits, queueTimeout: 0 }, () => undefined);
      mount.definedEvents.set(definition, line);
    }
    return line;
  }

  /** Accept an event of a channel. They count like requests; only the end of a channel is accepted in any case (`force`). */
  admitEvent(events: MountQueue, event: Invocation, force: boolean): boolean {
    if (!this.hasRoomForEvent(events, force)) return false;
    this.acceptEvent(events, event);
    return true;
  }

  /** The same for one that has to wait for others of its channel first: it counts from now on. */
  holdEvent(events: MountQueue, force: boolean): boolean {
    if (!this.hasRoomForEvent(events, force)) return false;
    this.held++;
    return true;
  }

  /** Its turn has come. */
  releaseEvent(events: MountQueue, event: Invocation): void {
    this.held--;
    this.acceptEvent(events, event);
  }

  private acceptEvent(events: MountQueue, event: Invocation): void {
    if (this.ended === undefined) this.accept(events, event);
    else event.fail(this.ended);
  }

  /** A callback will not be run to its end. */
  eventLost(message: string, error: unknown): void {
    if (this.ended === undefined) this.threads.report(message, error);
  }

  private hasRoomForEvent(events: MountQueue, force: boolean): boolean {
    if (force || this.used < this.capacity()) return true;
    this.refused++;
    events.refused++;
    this.noteOverload();
    return false;
  }

  /** Places taken. */
  private get used(): number {
    return this.waitingNow + this.held + this.given;
  }

  /** Whether one more fits. When the queue is full a mount that has less than the others in it gets a place of theirs. */
  private hasRoom(mount: MountQueue): boolean {
    if (this.used < this.capacity()) return true;
    if (this.active.length < 2 && this.active[0] === mount) return false;
    let longest = mount;
    // Events keep their places: nobody could be told that one is gone.
    for (const other of this.active)
      if (!other.isEvents && other.queue.size > longest.queue.size) longest = other;
    const last = longest.queue.last;
    if (last === undefined || longest.queue.size <= mount.queue.size + 1) return false;
    this.dequeue(last);
    this.over(last);
    // As if it had been refused when it came.
    this.accepted--;
    longest.accepted--;
    // Not here, where the engine is in the middle of another request.
    setImmediate(() => this.turnAway(longest, last.invocation));
    return true;
  }

  /** One invocation can run on each thread that may exist and is not full of pending promises; queueSize may wait. */
  private capacity(): number {
    let capacity = this.limits.nMax + this.limits.queueSize;
    // Those on their way out run beside the nMax, and take no place from what comes.
    for (const worker of this.threads.leaving) capacity += worker.given;
    if (this.pending >= this.limits.concurrency) {
      for (const worker of this.threads.ready) if (worker.pending >= this.limits.concurrency) capacity--;
    }
    return capacity;
  }

  private turnAway(mount: MountQueue, invocation: Invocation): void {
    this.refused++;
    mount.refused++;
    if (this.closed) {
      invocation.refuse('stopping', { retryAfter: 0 });
    } else if (this.outage !== undefined) {
      const retryAfter = Math.max(1, Math.ceil((this.outage.retryAt - performance.now()) / 1000));
      invocation.refuse('noWorker', { retryAfter, cause: this.outage.cause });
    } else {
      this.noteOverload();
      invocation.refuse('overloaded', { retryAfter: this.retryAfter() });
    }
  }

  /** Whole seconds until what waits will have been served, by what it has cost lately; at least 1. */
  retryAfter(): number {
    let micros = this.given * this.mean;
    for (const mount of this.active) micros += mount.queue.size * mount.times.mean;
    return Math.max(1, Math.ceil(micros / this.limits.nMax / 1e6));
  }

  /** One line when an overload begins and one when it is over, never one per request: logging would be the next overload. */
  private noteOverload(): void {
    const now = performance.now();
    if (now - this.refusedAt > OVERLOAD_GAP) {
      const { nMax, queueSize } = this.limits;
      const message = `all ${nMax} threads are busy and the queue of ${queueSize} is full`;
      const error = new OffloopError('OFFLOOP_OVERLOADED', message);
      // Where we noticed is of no interest.
      error.stack = `${error.name}: ${message}`;
      this.threads.report('failed to submit task to executor service', error);
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
        this.threads.report(
          `overload is over, ${this.refusedInARow} refused; increase queueSize if this happens often`,
          undefined,
        );
    }, OVERLOAD_GAP).unref();
  }

  // --------------------------------------------------------------------------------------------------------- lines

  /** Into the line of its mount: at the end, or at the head when it has been there before. */
  private enqueue(ticket: Ticket, again: boolean): void {
    const { mount } = ticket;
    if (mount.queue.size === 0) {
      // One that had nothing to do for a while has not saved up for it.
      if (!again) mount.virtual = Math.max(mount.virtual, this.virtual);
      this.active.push(mount);
    }
    if (again) mount.queue.unshift(ticket);
    else mount.queue.push(ticket);
    ticket.state = 'queued';
    this.waitingNow++;
    if (this.waitingNow > this.waitingMost) this.waitingMost = this.waitingNow;
    const { queueTimeout } = mount.limits;
    if (queueTimeout > 0) this.deadlines.set(ticket, queueTimeout, ticket.acceptedAt);
  }

  private dequeue(ticket: Ticket): void {
    const { mount } = ticket;
    mount.queue.remove(ticket);
    if (mount.queue.size === 0) this.active.splice(this.active.indexOf(mount), 1);
    this.waitingNow--;
    if (ticket.dueLine !== undefined) this.deadlines.clear(ticket);
  }

  private over(ticket: Ticket): void {
    ticket.state = 'done';
    if (ticket.dueLine !== undefined) this.deadlines.clear(ticket);
  }

  private expected(mount: MountQueue): number {
    return mount.times.expected ?? Math.max(UNKNOWN, this.limits.batchMicros);
  }

  /**
   * Whose turn it is: of the mounts that wait, the one that has had the least of the threads' time since it began to
   * wait (start-time fair queueing). A mount of slow handlers gets as much time as one of cheap handlers, not as many
   * turns. Slow work is passed over while it has all threads it may have.
   */
  private next(only?: Worker): MountQueue | undefined {
    const { active } = this;
    const first = active[0];
    const anything = only === undefined || only.state === 'ready';
    if (active.length === 1 && this.slowGiven === 0 && first?.pinned === undefined && anything) return first;
    let best: MountQueue | undefined;
    for (const mount of active) {
      if (mount.blockedIn === this.round || (best !== undefined && mount.virtual >= best.virtual)) continue;
      // Events wait for one worker and none else; one that is on its way out gets nothing but those.
      if (only !== undefined && mount.pinned !== only && (mount.pinned !== undefined || !anything)) continue;
      if (this.mayRun(mount)) best = mount;
    }
    return best;
  }

  private mayRun(mount: MountQueue): boolean {
    if (this.spare === 0 || this.slowGiven < this.limits.nMax - this.spare || this.expected(mount) < SLOW)
      return true;
    return performance.now() - this.cheapAt > CHEAP_MEMORY;
  }

  // -------------------------------------------------------------------------------------------------------- giving

  private readonly endOfTurn = (): void => {
    this.pumpScheduled = false;
    // What is finished by now need not wait for its hint.
    if (this.given > 0) for (const worker of this.threads.all) if (worker.given > 0) this.collect(worker);
    this.pump();
  };

  private schedulePump(): void {
    if (this.pumpScheduled) return;
    this.pumpScheduled = true;
    this.turnAt = performance.now();
    setImmediate(this.endOfTurn);
  }

  /** Give waiting invocations to workers until one side runs out. */
  pump(): void {
    if (this.waitingNow > 0) {
      const now = performance.now();
      this.round++;
      for (let mount = this.next(); mount !== undefined; mount = this.next()) {
        const { pinned } = mount;
        const worker =
          pinned === undefined
            ? this.pick(mount, now)
            : this.canTake(pinned, mount, now) || this.mayGoAhead(pinned, mount, now)
              ? pinned
              : undefined;
        if (worker === undefined && pinned !== undefined) {
          mount.blockedIn = this.round;
          continue;
        }
        if (worker === undefined) {
          // Threads first: grow while work waits that no thread on its way up will take.
          for (let n = this.threads.starting; n < this.waitingNow; n++) {
            const before = this.threads.starting;
            this.threads.grow();
            if (this.threads.starting === before) break;
          }
          const busy = this.threads.starting < this.waitingNow ? this.pickAhead(mount, now) : undefined;
          if (busy !== undefined) {
            this.fill(busy, now);
            continue;
          }
          // What can run anywhere has to wait; events of a worker with room need not.
          if (this.active.every((other) => other.pinned === undefined)) break;
          for (const other of this.active) if (other.pinned === undefined) other.blockedIn = this.round;
          continue;
        }
        this.fill(worker, now);
      }
    }
    if (this.given > 0) this.sweepSoon();
  }

  /**
   * The worker for the next invocation: the one with the fewest pending promises, since their continuations want its
   * loop too; what is given counts with them for a mount that is async. Among equals one that is awake and has room in
   * its budget, before a second one is woken. Work over the budget only goes to a worker with nothing else to do.
   */
  private pick(mount: MountQueue, now: number): Worker | undefined {
    const spread = mount.times.isAsync;
    let best: Worker | undefined;
    let silent: Worker | undefined;
    let bestLoad = 0;
    for (const worker of this.threads.ready) {
      if (!this.canTake(worker, mount, now)) continue;
      if (worker.silentUntil > now) {
        silent = worker;
        continue;
      }
      const load =
        (spread ? worker.pending + worker.given : worker.pending) + worker.channels + worker.bodies.size;
      if (
        best === undefined ||
        load < bestLoad ||
        (load === bestLoad && best.given === 0 && worker.given > 0)
      ) {
        best = worker;
        bestLoad = load;
      }
    }
    return best ?? silent;
  }

  private canTake(worker: Worker, mount: MountQueue, now: number): boolean {
    // Any of those given may turn out to be async, so they count in full.
    if (worker.pending + worker.given >= this.limits.concurrency) return false;
    if (worker.given === 0) return true;
    return (
      worker.cost + this.expected(mount) <= this.limits.batchMicros &&
      now - worker.progressAt <= STALLED_AFTER
    );
  }

  /**
   * When no worker is free: one that will soon be, so that it need not sit idle until its answer has come here and the
   * next invocation has gone there. Of several the one that has been busy for the longest.
   */
  private pickAhead(mount: MountQueue, now: number): Worker | undefined {
    let best: Worker | undefined;
    for (const worker of this.threads.ready)
      if (this.mayGoAhead(worker, mount, now) && (best === undefined || worker.progressAt < best.progressAt))
        best = worker;
    return best;
  }

  /** Whether `worker` is at something that is soon done, and can have another such thing in its lane. */
  private mayGoAhead(worker: Worker, mount: MountQueue, now: number): boolean {
    return (
      this.limits.batchMicros > 0 &&
      worker.given === 1 &&
      worker.silentUntil <= now &&
      worker.pending + 1 < this.limits.concurrency &&
      now - worker.progressAt <= STALLED_AFTER &&
      mount.times.isBrief(AHEAD) &&
      worker.newest?.mount.times.isBrief(AHEAD) === true
    );
  }

  /**
   * Give `worker` a batch: one invocation in any case, more while they fit its budget; of a mount that is async, its
   * share.
   */
  private fill(worker: Worker, now: number): void {
    const batch: Ticket[] = [];
    // Ahead of time: what the worker is at is not part of the batch.
    let cost = worker.given === 1 && worker.cost > this.limits.batchMicros ? 0 : worker.cost;
    let room = this.limits.concurrency - worker.pending - worker.given;
    const share = Math.ceil(this.waitingNow / this.threads.ready.length);
    for (let mount = this.next(worker); mount !== undefined; mount = this.next(worker)) {
      const expected = this.expected(mount);
      if (share < room && mount.times.isAsync) room = share;
      if (batch.length > 0 && (cost + expected > this.limits.batchMicros || batch.length >= room)) break;
      cost += expected;
      if (expected < SLOW) this.cheapAt = now;
      else this.slowGiven++;
      const ticket = mount.queue.first as Ticket;
      this.dequeue(ticket);
      this.virtual = mount.virtual;
      mount.virtual += expected + 1;
      ticket.cost = expected;
      ticket.givenAt = now;
      if (mount.limits.handlerTimeout > 0) this.deadlines.set(ticket, mount.limits.handlerTimeout, now);
      batch.push(ticket);
    }
    this.given += batch.length;
    this.batches++;
    worker.give(batch, now);
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
    for (const worker of [...this.threads.all]) {
      if (worker.idle || now - worker.progressAt <= STALLED_AFTER) continue;
      this.collect(worker);
      // To wake up may take a thread longer than to run what it was given, when every core is busy.
      const begun = worker.begun;
      if (
        begun
          ? worker.given > 1
          : now - worker.progressAt > ASLEEP_AFTER && worker.hasMovable && this.somebodyFree(worker, now)
      ) {
        if (!begun) worker.silentUntil = now + SILENT_FOR;
        this.requeue(worker);
      }
      if (worker.pending >= this.limits.concurrency && worker.abandoned) this.threads.clogged(worker);
    }
    if (this.waitingNow > 0) this.pump();
    if (now - this.rotatedAt > WINDOW) this.rotate(now);
  }

  /** Whether another worker would begin at once. */
  private somebodyFree(but: Worker, now: number): boolean {
    return this.threads.ready.some(
      (worker) =>
        worker !== but &&
        worker.given === 0 &&
        worker.silentUntil <= now &&
        worker.pending < this.limits.concurrency,
    );
  }

  /** Take back what `worker` has not started. */
  requeue(worker: Worker): void {
    const tickets = worker.takeBack();
    this.given -= tickets.length;
    for (const ticket of tickets.reverse()) {
      if (ticket.cost >= SLOW) this.slowGiven--;
      if (ticket.cancelled) {
        this.over(ticket);
        continue;
      }
      ticket.mount.virtual -= ticket.cost + 1;
      if (ticket.dueLine !== undefined) this.deadlines.clear(ticket);
      this.enqueue(ticket, true);
    }
    this.checkDrained();
  }

  // ------------------------------------------------------------------------------------------------------ deadlines

  private expired(ticket: Ticket): void {
    const { worker, mount } = ticket;
    if (ticket.state === 'queued') {
      this.dequeue(ticket);
      this.over(ticket);
      this.timedOut.queue++;
      mount.timedOutInQueue++;
      ticket.invocation.refuse('queueTimeout', { retryAfter: this.retryAfter() });
      this.checkDrained();
    } else if (worker === undefined) {
      // Over in this very moment.
    } else if (ticket.stage === 'time' && !worker.hasStarted(ticket) && this.canMove(worker)) {
      // Stuck behind another one, which is the late one.
      this.requeue(worker);
      // Or it has begun in this very moment, and has its time before it.
      if (ticket.state === 'given')
        this.deadlines.set(ticket, mount.limits.handlerTimeout, performance.now());
      this.pump();
    } else if (ticket.stage === 'time') {
      if (!excuse(this.deadlines, ticket, mount.limits.handlerTimeout)) this.late(ticket, worker);
    } else if (ticket.stage === 'suspect') {
      ticket.stage = 'kill';
      this.threads.suspect(worker);
      const { killAfter } = mount.limits;
      this.deadlines.set(ticket, Math.max(1, killAfter - suspectAfter(killAfter)), performance.now());
    } else {
      this.end(ticket, worker);
    }
  }

  /**
   * Whether what a worker has not begun with should wait elsewhere. Not if the worker is busy with nothing we know of, a
   * timer for example, and there is no other: then whoever waits for it is as late as if it had begun.
   */
  private canMove(worker: Worker): boolean {
    return worker.begun || this.somebodyFree(worker, performance.now());
  }

  /** The handler has had its time: answer for it, fire its signal, and see whether the worker's loop still turns. */
  private late(ticket: Ticket, worker: Worker): void {
    // It may have answered a moment ago.
    this.collect(worker);
    if (ticket.state === 'done') return;
    const { handlerTimeout, killAfter } = ticket.mount.limits;
    this.timedOut.handler++;
    ticket.mount.timedOut++;
    worker.send({ kind: 'timeout', seq: ticket.seq, ms: handlerTimeout });
    ticket.stage = 'suspect';
    this.deadlines.set(ticket, suspectAfter(killAfter), performance.now());
    if (ticket.cancelled) return;
    ticket.cancelled = true;
    ticket.invocation.refuse('handlerTimeout', { retryAfter: 0 });
  }

  /** The loop of `worker` has turned since this invocation was found late: it is slow, not stuck. */
  alive(worker: Worker, seq: number): void {
    const ticket = worker.find(seq);
    if (ticket !== undefined && ticket.dueLine !== undefined) this.deadlines.clear(ticket);
    this.threads.cleared(worker);
  }

  /** An overdue invocation has shown no life for `killAfter`. */
  private end(ticket: Ticket, worker: Worker): void {
    this.collect(worker);
    if (ticket.state === 'done') {
      this.threads.cleared(worker);
      return;
    }
    // A promise that settles late because another invocation has the thread is not to blame; that one has a deadline of
    // its own, or is allowed to take as long as it likes.
    const running = worker.running();
    if (running !== undefined && running !== ticket) {
      this.deadlines.set(ticket, Math.max(1, ticket.mount.limits.killAfter), performance.now());
      return;
    }
    this.threads.stuck(worker, ticket);
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
      if (ticket.cost >= SLOW) this.slowGiven--;
      this.pending++;
      worker.markPending(ticket);
      ticket.mount.times.sample(micros, true);
      return;
    }
    this.finish(worker, ticket, micros);
    if (!ticket.cancelled) ticket.invocation.answer(status, head, payload, flags);
  };

  /** The handler of an invocation has returned, and answers through a channel. */
  taken(worker: Worker, seq: number, micros: number): void {
    const ticket = worker.find(seq);
    worker.incoming.keep(seq);
    if (ticket !== undefined) this.finish(worker, ticket, micros);
    this.heard(worker);
  }

  becameIdle(worker: Worker): void {
    this.threads.idle(worker);
  }

  /** The body of a response has been sent, or nobody wants it any more. */
  bodyClosed(worker: Worker): void {
    if (worker.state === 'gone') return;
    if (worker.idle) this.threads.idle(worker);
    this.checkDrained();
  }

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
    const { mount } = ticket;
    let took = micros;
    if (ticket.state === 'given') mount.times.sample(micros, false);
    // Waiting included: what the client sees.
    else took = (performance.now() - ticket.givenAt) * 1000;
    const waited = (ticket.givenAt - ticket.acceptedAt) * 1000;
    mount.queueWait.record(waited);
    mount.runTime.record(took);
    worker.queueWait.record(waited);
    worker.runTime.record(took);
    worker.served++;
    if (worker.served === worker.wornAfter) this.threads.worn(worker);
    this.strike(worker, ticket);
  }

  /** Off the books of the worker and ours, however it ended. */
  private strike(worker: Worker, ticket: Ticket): void {
    if (ticket.state === 'given') {
      this.given--;
      if (ticket.cost >= SLOW) this.slowGiven--;
    } else {
      this.pending--;
    }
    worker.drop(ticket);
    this.over(ticket);
  }

  private heard(worker: Worker): void {
    worker.silentUntil = 0;
    worker.progressAt = performance.now();
    if (this.waitingNow > 0) this.schedulePump();
    if (worker.idle) this.threads.idle(worker);
    this.checkDrained();
  }

  /** The client is gone. Waiting: out of the queue at once. Running: its signal fires, its answer is dropped. */
  cancel(ticket: Ticket): void {
    if (ticket.state === 'queued') {
      this.dequeue(ticket);
      this.over(ticket);
      this.checkDrained();
    } else {
      ticket.worker?.send({ kind: 'cancel', seq: ticket.seq });
    }
  }

  /** Fail everything `worker` has started and not answered to the end. */
  failStarted(worker: Worker, error: unknown): void {
    for (const ticket of worker.outstanding()) {
      this.strike(worker, ticket);
      // An event that was late has kept its channel waiting all the same.
      if (!ticket.cancelled || ticket.mount.isEvents) ticket.invocation.fail(error);
    }
    for (const body of [...worker.bodies.values()]) body.fail(error);
    this.checkDrained();
  }

  /** The thread is gone: what it has finished is delivered, what it has not started runs elsewhere, the rest fails. */
  lost(worker: Worker, error: unknown): void {
    this.collect(worker);
    this.requeue(worker);
    this.failStarted(worker, error);
    for (const events of worker.events.values()) {
      for (let ticket = events.queue.first; ticket !== undefined; ticket = events.queue.first) {
        this.dequeue(ticket);
        this.over(ticket);
        ticket.invocation.fail(error);
      }
    }
    worker.abandonChannels(true);
    this.checkDrained();
    this.pump();
  }

  /** No worker can start, so nobody shall wait for one. `retryAt`: when the next one is tried. */
  giveUp(cause: unknown, retryAt: number): void {
    this.outage = { cause, retryAt };
    // Events have a worker, or wait for one: what is missing of a conversation cannot be asked for again.
    this.emptyQueue(
      (ticket) => this.turnAway(ticket.mount, ticket.invocation),
      (mount) => !mount.isEvents,
    );
  }

  // ----------------------------------------------------------------------------------------------------- the end

  /** Resolves when nothing is queued, running or pending, and no body is being sent. */
  whenDrained(): Promise<void> {
    return new Promise((resolve) => {
      this.drained.push(resolve);
      this.checkDrained();
    });
  }

  private checkDrained(): void {
    if (this.drained.length === 0 || this.used + this.pending > 0) return;
    for (const worker of this.threads.all) if (worker.bodies.size > 0) return;
    for (const resolve of this.drained.splice(0)) resolve();
  }

  /** There are no threads any more: fail everything that waits, and that comes. */
  failQueued(error: unknown): void {
    this.ended = error;
    this.emptyQueue(
      (ticket) => ticket.invocation.fail(error),
      () => true,
    );
  }

  private emptyQueue(tell: (ticket: Ticket) => void, which: (mount: MountQueue) => boolean): void {
    for (const mount of this.active.filter(which)) {
      for (let ticket = mount.queue.first; ticket !== undefined; ticket = mount.queue.first) {
        this.dequeue(ticket);
        this.over(ticket);
        tell(ticket);
      }
    }
    this.checkDrained();
  }

  // ------------------------------------------------------------------------------------------------------- figures

  /** Most that waited at the same time since this was last asked. */
  takeQueuedMost(): number {
    const most = this.waitingMost;
    this.waitingMost = this.waitingNow;
    return most;
  }

  queueWait(): Distribution {
    return Histogram.merge([...this.mounts].map((mount) => mount.queueWait));
  }
  runTime(): Distribution {
    return Histogram.merge([...this.mounts].map((mount) => mount.runTime));
  }
  /** Whether anything waits for this module. */
  isWaitedFor(target: number): boolean {
    return this.active.some((mount) => mount.target === target);
  }

  /** Mean microseconds that recent invocations held their thread. */
  get mean(): number {
    let micros = 0;
    let accepted = 0;
    for (const mount of this.mounts) {
      micros += mount.times.mean * mount.accepted;
      accepted += mount.accepted;
    }
    return accepted === 0 ? 0 : micros / accepted;
  }

  /** @internal Called by the sweep; idle pools rotate when they are looked at. */
  rotate(now = performance.now()): void {
    if (now - this.rotatedAt < WINDOW) return;
    // After a long silence both windows are old.
    const times = now - this.rotatedAt < 2 * WINDOW ? 1 : 2;
    this.rotatedAt = now;
    for (const { queueWait, runTime } of [...this.mounts, ...this.threads.all]) {
      for (let i = 0; i < times; i++) {
        queueWait.rotate();
        runTime.rotate();
      }
    }
  }
}

/** Ms after a 504 at which a worker that has not shown that its loop turns gets a replacement, to be there in time. */
function suspectAfter(killAfter: number): number {
  return Math.max(PROBE, killAfter - PREPARE);
}
