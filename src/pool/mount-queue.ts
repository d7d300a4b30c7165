import type { Accepted, Dispatcher, Invocation, TimeLimits } from '../protocol.js';
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

  /** No request will come any more. What is queued is still served. */
  close(): void {
    if (this.dispatcher.mounts.delete(this)) this.onClose();
  }
}
