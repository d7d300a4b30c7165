import type { MessagePort } from 'node:worker_threads';
import { packFirst, packNext, processClock } from '../batch.js';
import { Parcel } from '../bytes.js';
import { createOutbox, OutboxReader } from '../outbox.js';
import {
  ADDRESS_SLOT_LENGTH,
  type AddressSlot,
  type BatchBody,
  BOARD_CLAIM,
  BOARD_HEAP,
  BOARD_LENGTH,
  BODY_FOLLOWS,
  type BodyLine,
  type ChannelLine,
  type Notice,
} from '../protocol.js';
import { Histogram } from './histogram.js';
import { IncomingBodies } from './incoming.js';
import type { MountQueue } from './mount-queue.js';
import type { Ticket } from './ticket.js';

/**
 * `starting` until its modules are loaded; `standby` until the worker it replaces goes; `ready` takes work; `retiring`
 * takes no more and ends when its work is done; `gone` when the thread has ended.
 */
export type WorkerState = 'starting' | 'standby' | 'ready' | 'retiring' | 'gone';

/**
 * One worker thread seen from the I/O thread: its lane, what it has been given, and what of that it has started.
 * Made by the WorkerPool, filled by the Dispatcher.
 */
export class Worker {
  readonly name: string;
  readonly lane: MessagePort;
  state: WorkerState = 'starting';
  threadId = 0;
  /** Given and not yet reported back as answered or pending. At most one of them runs. */
  given = 0;
  /** Promises of async handlers that have not settled. */
  pending = 0;
  /** Expected microseconds of all that is given. */
  cost = 0;
  /** When it was last heard of, or got its first work after none; on the performance.now() clock. */
  progressAt = 0;
  /** It did not begin with what it was given last: until then it gets more only if there is nobody else. */
  silentUntil = 0;
  /** Since when it has had nothing to do. */
  idleSince = 0;
  /** Channels that live in it. */
  channels = 0;
  readonly lines = new Set<ChannelLine>();
  /** Defined channels whose first callback runs in it. */
  readonly openings = new Set<{ openingLost(worker: Worker): void }>();
  /** Responses whose bodies it is reading, by id. */
  readonly bodies = new Map<string, BodyLine>();
  /** Where the events of its channels wait, by the mount that opened them. */
  readonly events = new Map<MountQueue, MountQueue>();
  served = 0;
  /** How many it may serve until it is replaced. */
  wornAfter = Number.POSITIVE_INFINITY;
  readonly queueWait = new Histogram();
  readonly runTime = new Histogram();

  /** See {@link WorkerStart}. */
  readonly board: Int32Array = new Int32Array(new SharedArrayBuffer(4 * BOARD_LENGTH));
  readonly outboxMemory: SharedArrayBuffer = createOutbox();
  readonly outbox = new OutboxReader(this.outboxMemory);
  readonly address: AddressSlot = new Int32Array(new SharedArrayBuffer(4 * ADDRESS_SLOT_LENGTH));
  /** Number of the next invocation to give. */
  private nextSeq = 0;
  /** Numbers last taken back: from this one up to before that one. */
  private takenFrom = -1;
  private takenTo = -1;
  private readonly inflight = new TicketTable();
  /** Bodies of requests that it reads. */
  readonly incoming = new IncomingBodies(this);

  constructor(name: string, lane: MessagePort) {
    this.name = name;
    this.lane = lane;
  }

  get idle(): boolean {
    return this.given + this.pending + this.channels + this.bodies.size === 0 && !this.hasEvents();
  }

  /** Invocations it has. */
  get load(): number {
    return this.given + this.pending;
  }

  private hasEvents(): boolean {
    for (const line of this.events.values()) if (line.queue.size > 0) return true;
    return false;
  }

  /** Bytes of JavaScript heap in use when it last said so. */
  get heapUsed(): number {
    return Atomics.load(this.board, BOARD_HEAP) * 1024;
  }

  /** Whether it was ever given anything to do. */
  get used(): boolean {
    return this.nextSeq !== 0;
  }

  send(notice: Notice, transfer?: ArrayBuffer[]): void {
    this.lane.postMessage(notice, transfer);
  }

  /** Give a batch: one message. Bodies stay readable here, so that what has not started can be taken back. */
  give(tickets: readonly Ticket[], now: number): void {
    let packed = packFirst(this.nextSeq, processClock(now));
    let bodies: BatchBody[] | undefined;
    let parcel: Parcel | undefined;
    if (this.given === 0) this.progressAt = now;
    for (let i = 0; i < tickets.length; i++) {
      const ticket = tickets[i] as Ticket;
      const { head, body, incoming } = ticket.invocation;
      packed = packNext(packed, ticket.mount.target, Math.max(0, Math.floor(now - ticket.acceptedAt)), head);
      if (body !== null || (incoming !== undefined && incoming !== null)) {
        bodies ??= new Array<BatchBody>(tickets.length).fill(null);
        parcel ??= new Parcel();
        bodies[i] = body === null ? BODY_FOLLOWS : parcel.add(body);
      }
      ticket.state = 'given';
      ticket.worker = this;
      ticket.seq = this.nextSeq;
      this.inflight.set(ticket);
      this.cost += ticket.cost;
      this.nextSeq = (this.nextSeq + 1) | 0;
    }
    this.given += tickets.length;
    this.send(
      bodies === undefined || parcel === undefined
        ? packed
        : { kind: 'batch', packed, bodies, small: parcel.whole },
    );
  }

  /** The ticket with this number, if it is still out. */
  find(seq: number): Ticket | undefined {
    return this.inflight.get(seq);
  }

  /** The ticket given last, if it is still out. */
  get newest(): Ticket | undefined {
    return this.find((this.nextSeq - 1) | 0);
  }

  /** Whether its thread has begun with this ticket. */
  hasStarted(ticket: Ticket): boolean {
    return ((Atomics.load(this.board, BOARD_CLAIM) - ticket.seq) | 0) > 0;
  }

  /** Whether its thread has begun with anything that is given and not reported back. */
  get begun(): boolean {
    return this.running() !== undefined;
  }

  /** The ticket its thread is in the middle of: the last one claimed, if nothing has been heard of it. */
  running(): Ticket | undefined {
    const next = Atomics.load(this.board, BOARD_CLAIM);
    const ticket = this.find(((next === this.takenTo ? this.takenFrom : next) - 1) | 0);
    return ticket?.state === 'given' ? ticket : undefined;
  }

  /** Answer an `address` command: the handler is waiting for it. */
  tellAddress(address: string): void {
    const length = Math.min(address.length, ADDRESS_SLOT_LENGTH - 1);
    for (let i = 0; i < length; i++) this.address[i + 1] = address.charCodeAt(i);
    Atomics.store(this.address, 0, length);
    Atomics.notify(this.address, 0);
  }

  /** A given ticket's handler has returned a promise. */
  markPending(ticket: Ticket): void {
    ticket.state = 'pending';
    this.given--;
    this.cost -= ticket.cost;
    this.pending++;
  }

  /** A ticket is out of the worker's hands: answered, taken back or lost. */
  drop(ticket: Ticket): void {
    this.inflight.delete(ticket);
    if (ticket.state === 'given') {
      this.given--;
      this.cost -= ticket.cost;
    } else if (ticket.state === 'pending') {
      this.pending--;
    }
    ticket.worker = undefined;
  }

  /**
   * Take back everything given that has not started, in order. The compare-and-swap decides against a worker that is
   * about to start the same invocation; see {@link WorkerStart}.
   */
  takeBack(): Ticket[] {
    for (;;) {
      const next = Atomics.load(this.board, BOARD_CLAIM);
      if (next === this.nextSeq) return [];
      if (Atomics.compareExchange(this.board, BOARD_CLAIM, next, this.nextSeq) !== next) continue;
      // What it is in the middle of lies before all that has been taken back since it began.
      if (next !== this.takenTo) this.takenFrom = next;
      this.takenTo = this.nextSeq;
      const tickets: Ticket[] = [];
      for (let seq = next; seq !== this.nextSeq; seq = (seq + 1) | 0) {
        const ticket = this.inflight.get(seq);
        if (ticket === undefined) continue;
        this.drop(ticket);
        tickets.push(ticket);
      }
      return tickets;
    }
  }

  /** Whether it has been given anything that another worker could run as well. */
  get hasMovable(): boolean {
    return (
      this.given > 0 &&
      this.outstanding().some(({ state, mount }) => state === 'given' && mount.pinned === undefined)
    );
  }

  /** Whether all it has left is promises that nobody waits for any more. */
  get abandoned(): boolean {
    return (
      this.given + this.channels + this.bodies.size === 0 &&
      this.outstanding().every((ticket) => ticket.cancelled)
    );
  }

  /** Close the channels that live in it, and those about to. `isGone`: nobody is left to hear of it. */
  abandonChannels(isGone: boolean): void {
    for (const line of [...this.lines]) {
      if (isGone) line.lose();
      else line.abandon();
    }
    for (const opening of [...this.openings]) opening.openingLost(this);
  }

  /** Everything still out, in the order it was given. */
  outstanding(): Ticket[] {
    return this.inflight.inOrder(this.nextSeq);
  }
}

const SLOTS = 1024;

/**
 * Tickets by number. Numbers are handed out one after the other and most live about as long, so an array indexed by their
 * low bits serves as a map without hashing. A new number that finds an old one still in its place goes to a real map.
 */
class TicketTable {
  private readonly slots: (Ticket | undefined)[] = new Array<Ticket | undefined>(SLOTS).fill(undefined);
  private readonly others = new Map<number, Ticket>();

  get(seq: number): Ticket | undefined {
    const ticket = this.slots[seq & (SLOTS - 1)];
    return ticket !== undefined && ticket.seq === seq ? ticket : this.others.get(seq);
  }

  set(ticket: Ticket): void {
    const at = ticket.seq & (SLOTS - 1);
    if (this.slots[at] === undefined) this.slots[at] = ticket;
    else this.others.set(ticket.seq, ticket);
  }

  delete(ticket: Ticket): void {
    const at = ticket.seq & (SLOTS - 1);
    if (this.slots[at] === ticket) this.slots[at] = undefined;
    else this.others.delete(ticket.seq);
  }

  /** In the order they were given, `before` being the number after the last one. Numbers wrap, so order is by distance. */
  inOrder(before: number): Ticket[] {
    const tickets = [...this.slots.filter((ticket) => ticket !== undefined), ...this.others.values()];
    return tickets.sort((a, b) => ((before - b.seq) | 0) - ((before - a.seq) | 0));
  }
}
