/**
 * Channels whose callbacks are known by name (`defineChannel`): any worker that has loaded the definition can run them, so
 * these live on the I/O thread. One callback of a channel runs at a time, wherever; its state travels with each event, and
 * comes back when the callback is through.
 */
import { copyOf } from '../bytes.js';
import type { ChannelRegistry } from '../channel-registry.js';
import {
  type ChannelLine,
  type ChannelOwner,
  type ChannelStatus,
  DEFINED,
  EVENT,
  type Invocation,
} from '../protocol.js';
import type { PoolDispatcher } from './dispatcher.js';
import { endOf, messageOf } from './events.js';
import type { MountQueue } from './mount-queue.js';
import type { Worker } from './worker.js';

/** Every one of the process that is not over, by id. */
export const defined = new Map<string, DefinedOwner>();

export class DefinedOwner implements ChannelOwner {
  private line: ChannelLine | null = null;
  /** What came while a callback was running. */
  private readonly waiting: DefinedEvent[] = [];
  /** The event whose callback runs, or is about to. */
  private current: DefinedEvent | undefined;
  /** Where the first callback runs; undefined when that is through. */
  private opening: Worker | undefined;
  /** Workers in which somebody wants to know how much has left. */
  private readonly askers = new Set<Worker>();
  private readonly events: MountQueue;
  /** Its connection is gone: nothing more will leave. */
  private isOver = false;

  constructor(
    private readonly dispatcher: PoolDispatcher,
    private readonly mount: MountQueue,
    private readonly registry: ChannelRegistry,
    private readonly id: string,
    private readonly name: string,
    private state: string,
    opening: Worker,
  ) {
    this.events = dispatcher.definedEventsOf(mount, name);
    this.opening = opening;
    // Not idle, but bound to nothing: the worker may go when the callback is through.
    opening.channels++;
    opening.openings.add(this);
    mount.hold();
    defined.set(id, this);
  }

  /** Its line, or null when the client has gone meanwhile. */
  opened(line: ChannelLine | null): void {
    this.line = line;
    if (line === null) void this.end('client-close', 0, '');
    else this.registry.add(line);
  }

  // -------------------------------------------------------------------------------------------------- from its line

  message(line: ChannelLine, data: ArrayBuffer, isText: boolean): void {
    const { kind, rest, body } = messageOf(data, isText);
    if (!this.push(new DefinedEvent(this, kind, rest, body), false)) line.overflow();
  }

  ping(line: ChannelLine, data: ArrayBuffer): void {
    const event = new DefinedEvent(this, EVENT.ping, '', copyOf(data));
    if (!this.push(event, false)) line.overflow();
  }

  flowed(_line: ChannelLine, total: number): void {
    this.tellAskers(total);
  }

  closed(line: ChannelLine, status: ChannelStatus, code: number, reason: string): Promise<void> {
    this.registry.delete(line.id);
    this.tellAskers(-1);
    return this.end(status, code, reason);
  }

  private end(status: ChannelStatus, code: number, reason: string): Promise<void> {
    this.isOver = true;
    return new Promise((resolve) => {
      const over = (): void => {
        defined.delete(this.id);
        this.mount.release();
        resolve();
      };
      // The end is never refused.
      this.push(new DefinedEvent(this, EVENT.close, endOf(status, code, reason), null, over), true);
    });
  }

  private push(event: DefinedEvent, force: boolean): boolean {
    if (this.opening === undefined && this.current === undefined) {
      // First: it may be run, and be over, before this returns.
      this.current = event;
      const admitted = this.dispatcher.admitEvent(this.events, event, force);
      if (!admitted) this.current = undefined;
      return admitted;
    }
    if (!this.dispatcher.holdEvent(this.events, force)) return false;
    this.waiting.push(event);
    return true;
  }

  private next(): void {
    this.current = this.waiting.shift();
    if (this.current !== undefined) this.dispatcher.releaseEvent(this.events, this.current);
  }

  // ------------------------------------------------------------------------------------------------ from its workers

  /** The first callback is through. */
  settled(worker: Worker, state: string | null): void {
    if (this.opening !== worker) return;
    this.leaveOpening(worker);
    if (state !== null) this.state = state;
    this.next();
    if (worker.idle) this.dispatcher.becameIdle(worker);
  }

  /** The thread in which the first callback ran is gone, or has to go. How far that came nobody knows. */
  openingLost(worker: Worker): void {
    if (this.opening !== worker) return;
    this.leaveOpening(worker);
    this.line?.abandon();
    this.next();
  }

  private leaveOpening(worker: Worker): void {
    this.opening = undefined;
    worker.channels--;
    worker.openings.delete(this);
  }

  /** A later callback is through. */
  handled(state: string | null): void {
    if (state !== null) this.state = state;
    const event = this.current;
    this.next();
    event?.over?.();
  }

  /** The thread in which a callback ran is gone, or there will be none for it. */
  lost(event: DefinedEvent, error: unknown): void {
    if (event !== this.current) return;
    this.dispatcher.eventLost(`channel ${this.id}: a callback was lost with its worker`, error);
    this.handled(null);
  }

  asked(worker: Worker): void {
    if (this.isOver) worker.send({ kind: 'flowed', id: this.id, total: -1 });
    else this.askers.add(worker);
  }

  private tellAskers(total: number): void {
    for (const worker of this.askers) worker.send({ kind: 'flowed', id: this.id, total });
    this.askers.clear();
  }

  /** The record of an event, as things stand when it is given to a worker. */
  record(kind: string, rest: string): string {
    const { id, name, state, line } = this;
    const { isWebSocket, isHead, started, sent, waiting } = line?.flow ?? NO_FLOW;
    const flags =
      (isWebSocket ? DEFINED.webSocket : 0) + (isHead ? DEFINED.head : 0) + (started ? DEFINED.started : 0);
    return `${id}\n${EVENT.defined}${kind}${name}\n${flags}\n${sent}\n${waiting}\n${state}\n${rest}`;
  }
}

const NO_FLOW = { isWebSocket: false, isHead: false, started: false, sent: 0, waiting: 0 };

/** An event of a defined channel: its record is made when it is given away, since that says how things stand. */
class DefinedEvent implements Invocation {
  readonly isHead = false;

  constructor(
    private readonly owner: DefinedOwner,
    private readonly kind: string,
    private readonly rest: string,
    readonly body: Uint8Array | null,
    readonly over?: () => void,
  ) {}

  get head(): string {
    return this.owner.record(this.kind, this.rest);
  }
  addressOf(): string {
    return '';
  }
  answer(): void {
    // It comes with the operations of its worker, in order with what has been sent: see `handled`.
  }
  fail(error: unknown): void {
    this.owner.lost(this, error);
  }
  refuse(): void {
    // It is late, and has the channel until it is through or its worker is ended.
  }
  openChannel(): null {
    return null;
  }
  openBody(): null {
    return null;
  }
}
