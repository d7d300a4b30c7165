/** The channels and bodies of one worker, seen from the I/O thread: carries out what they ask for, and tells them what happens. */

import { copyOf, unpacked } from '../bytes.js';
import type { ChannelRegistry } from '../channel-registry.js';
import {
  type BodyLine,
  type BodyOwner,
  type ChannelLine,
  type ChannelOwner,
  type ChannelStatus,
  EVENT,
  isSent,
  OP,
  OP_FIELDS,
  type OpField,
} from '../protocol.js';
import { DefinedOwner, defined } from './defined.js';
import type { PoolDispatcher } from './dispatcher.js';
import { ChannelEvent, endOf, messageOf } from './events.js';
import type { MountQueue } from './mount-queue.js';
import type { Worker } from './worker.js';

/** The ops of a worker as they were before it put small data together. */
export function sentWhole(ops: OpField[], small: Uint8Array | undefined): readonly OpField[] {
  if (small === undefined) return ops;
  const take = unpacked(small);
  for (let i = 0; i < ops.length; i++)
    if (typeof ops[i] === 'number' && isSent(ops, i)) ops[i] = take(ops[i] as number);
  return ops;
}

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
    else if (op === OP.settled) defined.get(id)?.settled(worker, a as string | null);
    else if (op === OP.handled)
      handled(id, a as number, b as number, ops[i + 4] as string | null, worker, dispatcher);
    else if (op === OP.send && ops[i + OP_FIELDS] === OP.send && ops[i + OP_FIELDS + 1] === id)
      i = sendAll(ops, i, id, worker, registry);
    else {
      if (op === OP.send && b === true) asked(id, worker, registry);
      registry.apply(op, id, a, b, ops[i + 4] as OpField);
    }
  }
}

/** Several messages for one channel in a row leave in one packet. Returns where the last of them stands. */
function sendAll(
  ops: readonly OpField[],
  first: number,
  id: string,
  worker: Worker,
  registry: ChannelRegistry,
): number {
  let last = first;
  while (ops[last + OP_FIELDS] === OP.send && ops[last + OP_FIELDS + 1] === id) last += OP_FIELDS;
  for (let i = first; i <= last; i += OP_FIELDS) if (ops[i + 3] === true) asked(id, worker, registry);
  const line = registry.find(id);
  line?.together(() => {
    for (let i = first; i <= last; i += OP_FIELDS)
      line.send(ops[i + 2] as string | Uint8Array, ops[i + 3] as boolean);
  });
  return last;
}

/** Somebody wants to know when what has been sent has left. Where the channel is over by now nobody would tell. */
function asked(id: string, worker: Worker, registry: ChannelRegistry): void {
  const owner = defined.get(id);
  if (owner !== undefined) owner.asked(worker);
  else if (registry.find(id) === undefined) worker.send({ kind: 'flowed', id, total: -1 });
}

function handled(
  id: string,
  seq: number,
  micros: number,
  state: string | null,
  worker: Worker,
  dispatcher: PoolDispatcher,
): void {
  // Given up, with its worker: its channel has gone on without it.
  const isOut = worker.find(seq) !== undefined;
  dispatcher.taken(worker, seq, micros);
  if (isOut) defined.get(id)?.handled(state);
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
  const [subprotocol, name, state] = protocol.split('\n') as [string, string?, string?];
  const accept = head === null ? null : { head, protocol: subprotocol };
  if (name !== undefined && state !== undefined) {
    const owner = new DefinedOwner(dispatcher, ticket.mount, registry, id, name, state, worker);
    owner.opened(ticket.invocation.openChannel(id, owner, accept));
    return;
  }
  const owner = new LaneOwner(dispatcher, worker, dispatcher.eventsOf(ticket.mount, worker), registry);
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
    const { kind, rest, body } = messageOf(data, isText);
    this.give(line, `${line.id}\n${kind}${rest}`, body);
  }

  ping(line: ChannelLine, data: ArrayBuffer): void {
    this.give(line, `${line.id}\n${EVENT.ping}`, copyOf(data));
  }

  flowed({ id }: ChannelLine, total: number): void {
    this.worker.send({ kind: 'flowed', id, total });
  }

  closed(line: ChannelLine, status: ChannelStatus, code: number, reason: string): Promise<void> | undefined {
    const { worker } = this;
    worker.channels--;
    worker.lines.delete(line);
    this.registry.delete(line.id);
    const told = this.end(line.id, status, code, reason);
    if (worker.idle) this.dispatcher.becameIdle(worker);
    return told;
  }

  /** A channel that never came to life. */
  nobody(id: string): void {
    void this.end(id, 'client-close', 0, '');
  }

  private end(id: string, status: ChannelStatus, code: number, reason: string): Promise<void> | undefined {
    if (this.worker.state === 'gone') return undefined;
    return new Promise((resolve) => {
      const record = `${id}\n${EVENT.close}${endOf(status, code, reason)}`;
      // The end is never refused.
      this.dispatcher.admitEvent(this.events, new ChannelEvent(record, null, resolve), true);
    });
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

  flowed(total: number, spare: ArrayBuffer[]): void {
    const { id, worker } = this;
    if (spare.length === 0) worker.send({ kind: 'flowed', id, total });
    else worker.send({ kind: 'flowed', id, total, spare }, spare);
  }

  closed(_line: BodyLine, whole: boolean): void {
    this.worker.bodies.delete(this.id);
    if (!whole && this.worker.state !== 'gone') this.worker.send({ kind: 'unwanted', id: this.id });
    this.dispatcher.bodyClosed(this.worker);
  }
}
