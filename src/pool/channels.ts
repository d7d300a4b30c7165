/** The channels and bodies of one worker, seen from the I/O thread: carries out what they ask for, and tells them what happens. */
import type { ChannelRegistry } from '../channel-registry.js';
import {
  type BodyLine,
  type BodyOwner,
  type ChannelLine,
  type ChannelOwner,
  type ChannelStatus,
  EVENT,
  type Invocation,
  OP,
  OP_FIELDS,
  type OpField,
} from '../protocol.js';
import type { PoolDispatcher } from './dispatcher.js';
import type { MountQueue } from './mount-queue.js';
import type { Worker } from './worker.js';

/** Texts of at most so many bytes travel in the record of their event; longer ones are cheaper as bytes. */
const SHORT = 4096;

/** Carry out what the channels and bodies of a worker ask for, in order. */
export function carryOut(
  ops: readonly OpField[],
  worker: Worker,
  dispatcher: PoolDispatcher,
  registry: ChannelRegistry,
): void {
  for (let i = 0; i < ops.length; i += OP_FIELDS) {
    const op = ops[i] as number;
    const id = ops[i + 1] as string;
    const a = ops[i + 2] as OpField;
    const b = ops[i + 3] as OpField;
    if (op === OP.sendBody) worker.bodies.get(id)?.send(a as Uint8Array, b as boolean);
    else if (op === OP.endBody) worker.bodies.get(id)?.end();
    else if (op === OP.openBody) openBody(id, a as number, worker, dispatcher);
    else if (op === OP.startBody)
      worker.bodies
        .get(id)
        ?.start(
          (a as number) % 1024,
          b as string,
          Math.floor((a as number) / 1024),
          ops[i + 4] as number | null,
        );
    else if (op === OP.open)
      open(id, a as number, b as string | null, ops[i + 4] as string, worker, dispatcher, registry);
    else if (op === OP.done) dispatcher.taken(worker, a as number, b as number);
    else registry.apply(op, id, a, b, ops[i + 4] as OpField);
  }
}

function open(
  id: string,
  seq: number,
  head: string | null,
  protocol: string,
  worker: Worker,
  dispatcher: PoolDispatcher,
  registry: ChannelRegistry,
): void {
  const ticket = worker.find(seq);
  if (ticket === undefined) return; // its worker was given up, and its client has been told
  const owner = new LaneOwner(dispatcher, worker, dispatcher.eventsOf(ticket.mount, worker), registry);
  const accept = head === null ? null : { head, protocol };
  const line = ticket.invocation.openChannel(id, owner, accept);
  if (line === null) {
    // Nobody is there any more; the channel in the worker waits for its end.
    owner.nobody(id);
    return;
  }
  worker.channels++;
  worker.lines.add(line);
  registry.add(line);
}

/** Owner of the channels that a mount has opened in a worker. Their events wait in a line of their own for that worker. */
class LaneOwner implements ChannelOwner {
  constructor(
    private readonly dispatcher: PoolDispatcher,
    private readonly worker: Worker,
    private readonly events: MountQueue,
    private readonly registry: ChannelRegistry,
  ) {}

  message(line: ChannelLine, data: ArrayBuffer, isText: boolean): void {
    if (isText && data.byteLength <= SHORT) {
      const text = Buffer.from(data).toString();
      // What separates records must not be in one.
      if (!text.includes('\0')) {
        this.give(line, `${line.id}\n${EVENT.text}${text}`, null);
        return;
      }
    }
    // The engine takes its memory back when this returns.
    this.give(line, `${line.id}\n${isText ? EVENT.longText : EVENT.binary}`, new Uint8Array(data.slice(0)));
  }

  ping(line: ChannelLine, data: ArrayBuffer): void {
    this.give(line, `${line.id}\n${EVENT.ping}`, new Uint8Array(data.slice(0)));
  }

  flowed({ id }: ChannelLine, total: number): void {
    this.worker.send({ kind: 'flowed', id, total });
  }

  closed(line: ChannelLine, status: ChannelStatus, code: number, reason: string): void {
    const { worker } = this;
    worker.channels--;
    worker.lines.delete(line);
    this.registry.delete(line.id);
    this.end(line.id, status, code, reason);
    if (worker.idle) this.dispatcher.becameIdle(worker);
  }

  /** A channel that never came to life. */
  nobody(id: string): void {
    this.end(id, 'client-close', 0, '');
  }

  private end(id: string, status: ChannelStatus, code: number, reason: string): void {
    if (this.worker.state === 'gone') return;
    const text = reason.replaceAll('\0', '');
    // The end is never refused.
    this.dispatcher.admitEvent(
      this.events,
      new ChannelEvent(`${id}\n${EVENT.close}${status}\n${code}\n${text}`, null),
      true,
    );
  }

  private give(line: ChannelLine, record: string, body: Uint8Array | null): void {
    if (!this.dispatcher.admitEvent(this.events, new ChannelEvent(record, body), false)) line.overflow();
  }
}

function openBody(id: string, seq: number, worker: Worker, dispatcher: PoolDispatcher): void {
  const owner = new LaneBodyOwner(id, worker, dispatcher);
  const line = worker.find(seq)?.invocation.openBody(owner) ?? null;
  if (line === null) worker.send({ kind: 'unwanted', id });
  else worker.bodies.set(id, line);
}

/** Tells the worker that reads a body what becomes of it. */
class LaneBodyOwner implements BodyOwner {
  constructor(
    private readonly id: string,
    private readonly worker: Worker,
    private readonly dispatcher: PoolDispatcher,
  ) {}

  flowed(total: number): void {
    this.worker.send({ kind: 'flowed', id: this.id, total });
  }

  closed(_line: BodyLine, whole: boolean): void {
    this.worker.bodies.delete(this.id);
    if (!whole && this.worker.state !== 'gone') this.worker.send({ kind: 'unwanted', id: this.id });
    this.dispatcher.bodyClosed(this.worker);
  }
}

/** An event on its way to a worker. Nobody waits for an answer. */
class ChannelEvent implements Invocation {
  readonly isHead = false;

  constructor(
    readonly head: string,
    readonly body: Uint8Array | null,
  ) {}

  addressOf(): string {
    return '';
  }
  answer(): void {}
  fail(): void {
    // The worker is gone, and the channel is closed for that reason.
  }
  refuse(): void {}
  openChannel(): null {
    return null;
  }
  openBody(): null {
    return null;
  }
}
