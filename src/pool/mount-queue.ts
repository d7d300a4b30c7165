import {
  type Accepted,
  type Dispatcher,
  EVENT_TARGET,
  type Invocation,
  type TimeLimits,
} from '../protocol.js';
import type { PoolDispatcher } from './dispatcher.js';
import { type Distribution, Histogram } from './histogram.js';
import { ServiceTimes } from './service-times.js';
import { TicketQueue } from './ticket.js';
import type { Worker } from './worker.js';

/** Numbers of one mount. Counters count since it was mounted. */
export interface MountStats {
  accepted: number;
  /** Invocations that wait for a thread. */
  queued: number;
  refused: number;
  timedOut: { queue: number; handler: number };
  /** Microseconds from admission to being given to a thread, over the last one to two minutes. */
  queueWaitMicros: Distribution;
  /** Microseconds the handler took, waiting for its promises included. */
  runTimeMicros: Distribution;
}

/**
 * The waiting line of one mount, with what the dispatcher knows of its handler. Each mount has its own, so that the
 * slow ones can neither fill the queue nor keep the threads to themselves. Lives on the I/O thread.
 */
export class MountQueue implements Dispatcher {
  readonly crossesThreads = true;
  readonly queue = new TicketQueue();
  readonly times = new ServiceTimes();
  readonly queueWait = new Histogram();
  readonly runTime = new Histogram();
  /** Microseconds of thread this mount has had, as the dispatcher keeps books to be fair: see `PoolDispatcher.next`. */
  virtual = 0;
  /** The round of giving in which its worker could not take any more. */
  blockedIn = -1;
  accepted = 0;
  refused = 0;
  timedOutInQueue = 0;
  timedOut = 0;
  /** Where the events of its defined channels wait, by the name of their definition. */
  readonly definedEvents = new Map<string, MountQueue>();
  /** Defined channels that will want its module. */
  private held = 0;
  private closed = false;

  constructor(
    readonly dispatcher: PoolDispatcher,
    /** Names the handler module within the pool. */
    readonly target: number,
    readonly limits: TimeLimits,
    private readonly onClose: () => void,
    /** The only worker that can run what waits here: events of its channels. */
    readonly pinned?: Worker,
  ) {}

  get stats(): MountStats {
    return {
      accepted: this.accepted,
      queued: this.queue.size,
      refused: this.refused,
      timedOut: { queue: this.timedOutInQueue, handler: this.timedOut },
      queueWaitMicros: Histogram.merge([this.queueWait]),
      runTimeMicros: Histogram.merge([this.runTime]),
    };
  }

  dispatch(invocation: Invocation): Accepted | null {
    return this.dispatcher.admit(this, invocation);
  }

  /** Whether what waits here are events of channels. */
  get isEvents(): boolean {
    return this.target === EVENT_TARGET;
  }

  /** No request will come any more. What is queued is still served, and channels live on. */
  close(): void {
    if (!this.dispatcher.mounts.delete(this)) return;
    this.closed = true;
    if (this.held === 0) this.onClose();
  }

  /** A defined channel has been opened. */
  hold(): void {
    this.held++;
  }
  /** One is over. */
  release(): void {
    this.held--;
    if (this.held === 0 && this.closed) this.onClose();
  }
}
