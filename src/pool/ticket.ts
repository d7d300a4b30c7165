import type { Accepted, Invocation } from '../protocol.js';
import type { Worker } from './worker.js';

/** Where a ticket is: waiting, on a worker's lane, with a promise pending in a worker, or over. */
export type TicketState = 'queued' | 'given' | 'pending' | 'done';

/** An accepted invocation on its way through the dispatcher. Lives on the I/O thread, dead once `done`. */
export class Ticket implements Accepted {
  readonly target: number;
  readonly invocation: Invocation;
  state: TicketState = 'queued';
  /** Its client is gone; whatever comes back is dropped, and it is not given away again. */
  cancelled = false;
  /** Set while `given` or `pending`: who has it, and under which number. */
  worker: Worker | undefined;
  seq = 0;
  /** Microseconds it is expected to take, as booked on the worker it was given to. */
  cost = 0;
  /** Links of the {@link TicketQueue}. */
  prev: Ticket | undefined;
  next: Ticket | undefined;

  private readonly onCancel: (ticket: Ticket) => void;

  constructor(target: number, invocation: Invocation, onCancel: (ticket: Ticket) => void) {
    this.target = target;
    this.invocation = invocation;
    this.onCancel = onCancel;
  }

  cancel(): void {
    if (this.cancelled || this.state === 'done') return;
    this.cancelled = true;
    this.onCancel(this);
  }
}

/**
 * First in, first out, with removal from the middle in constant time: a client that goes away frees its place at once,
 * and clients that come and go leave nothing behind.
 */
export class TicketQueue {
  first: Ticket | undefined;
  private last: Ticket | undefined;
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
