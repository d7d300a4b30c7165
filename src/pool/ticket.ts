import type { Due, Excusable } from '../deadlines.js';
import type { Accepted, Invocation } from '../protocol.js';
import type { MountQueue } from './mount-queue.js';
import type { Worker } from './worker.js';

/** Where a ticket is: waiting, on a worker's lane, with a promise pending in a worker, or over. */
export type TicketState = 'queued' | 'given' | 'pending' | 'done';

/**
 * What its deadline means. `time`: its turn or its answer is due. `suspect`, `kill`: it has been answered 504, and its
 * worker has not shown since that it is alive: have a replacement ready, then end it.
 */
export type Stage = 'time' | 'suspect' | 'kill';

/** An accepted invocation on its way through the dispatcher. Lives on the I/O thread, dead once `done`. */
export class Ticket implements Accepted, Excusable {
  state: TicketState = 'queued';
  /** Its client is gone or has its answer: whatever comes back is dropped, and it is not given away again. */
  cancelled = false;
  stage: Stage = 'time';
  /** Set while `given` or `pending`: who has it, and under which number. */
  worker: Worker | undefined;
  seq = 0;
  /** Microseconds it is expected to take, as booked on the worker it was given to. */
  cost = 0;
  /** Ms that its deadline has been put off, since it waited for its client. */
  excused = 0;
  /** When it was given away, on the performance.now() clock. */
  givenAt = 0;
  /** Links of the {@link TicketQueue}. */
  prev: Ticket | undefined = undefined;
  next: Ticket | undefined = undefined;
  dueAt = 0;
  dueLine: Due['dueLine'] = undefined;
  duePrev: Due['duePrev'] = undefined;
  dueNext: Due['dueNext'] = undefined;

  constructor(
    readonly mount: MountQueue,
    readonly invocation: Invocation,
    /** When it was admitted, on the performance.now() clock. */
    readonly acceptedAt: number,
  ) {
    this.worker = undefined;
  }

  cancel(): void {
    if (this.cancelled || this.state === 'done') return;
    this.cancelled = true;
    this.mount.dispatcher.cancel(this);
  }
}

/**
 * First in, first out, with removal from the middle in constant time: a client that goes away frees its place at once,
 * and clients that come and go leave nothing behind.
 */
export class TicketQueue {
  first: Ticket | undefined;
  last: Ticket | undefined;
  size = 0;

  push(ticket: Ticket): void {
    ticket.prev = this.last;
    if (this.last === undefined) this.first = ticket;
    else this.last.next = ticket;
    this.last = ticket;
    this.size++;
  }

  unshift(ticket: Ticket): void {
    ticket.next = this.first;
    if (this.first === undefined) this.last = ticket;
    else this.first.prev = ticket;
    this.first = ticket;
    this.size++;
  }

  remove(ticket: Ticket): void {
    if (ticket.prev === undefined) this.first = ticket.next;
    else ticket.prev.next = ticket.next;
    if (ticket.next === undefined) this.last = ticket.prev;
    else ticket.next.prev = ticket.prev;
    ticket.prev = undefined;
    ticket.next = undefined;
    this.size--;
  }
}
