/**
 * What every worker runs, loaded by thread.cjs. One Piscina task is the whole life of the worker: it opens the lane, loads the
 * handler modules, runs batches as they come, and returns when the worker is told to retire.
 */
import { getHeapStatistics } from 'node:v8';
import { type MessagePort, threadId } from 'node:worker_threads';
import { headOf, processClock, splitBatch, targetOf, waitedOf } from '../batch.js';
import { bytesOf, Parcel, textOf, unpacked } from '../bytes.js';
import { OffloopError, toErrorRecord } from '../errors.js';
import { OutboxWriter } from '../outbox.js';
import {
  type Accept,
  type AddressSlot,
  type Answer,
  type BatchBody,
  BOARD_CLAIM,
  BOARD_HEAP,
  BODY_FOLLOWS,
  type BodyOutlet,
  type BodySink,
  type BodySource,
  type ChannelStatus,
  type Command,
  DEFINED,
  EVENT,
  EVENT_TARGET,
  isSent,
  type Notice,
  OP,
  type OpField,
  type PackedBatch,
  STATUS_PENDING,
  STATUS_TAKEN,
  type WorkerStart,
} from '../protocol.js';
import { type HandlerChannel, setWire } from './channel.js';
import { DefinedHandle, openingOf, resumeDefined, type Snapshot } from './define-channel.js';
import { mayBlock } from './file/disk.js';
import { answerTo, invoke } from './invoke.js';
import { type LoadedModule, loadModule } from './module.js';
import type { OpenBody } from './pump.js';
import { clientGone, isThenable, timeIsUp } from './reasons.js';
import { type ChannelOpener, type RequestSource, RingRequest } from './request.js';
import { useAgain } from './spare.js';

/** Ms after which finished answers are not kept for the end of their batch: the I/O thread is told to look. */
const TELL_AFTER = 0.25;
/** Ms between looks at the size of the heap. */
const HEAP_EVERY = 1000;
/** From so many bytes on memory changes hands; less is cheaper to copy. */
const TRANSFER_FROM = 8192;
/** Ms a handler waits for the address of its peer before it goes on without. */
const ADDRESS_TIMEOUT = 1000;

export default function run(start: WorkerStart): Promise<void> {
  return new Promise((resolve, reject) => {
    new WorkerThread(start, resolve, reject);
  });
}

const EVENT_DONE: Answer = { status: 204, head: '', payload: null, flags: 0 };
const PENDING: Answer = { status: STATUS_PENDING, head: '', payload: null, flags: 0 };

const micros = (ms: number): number => Math.min(Math.round(ms * 1000), 2 ** 31 - 1);

/** Where requests in a worker come from: a batch, and the lane for what the batch does not say. */
class LaneSource implements RequestSource {
  readonly body: Uint8Array | null;
  readonly incoming: BodySource | null;
  /** When its handler was called, on the performance.now() clock. */
  startedAt = 0;

  constructor(
    private readonly thread: WorkerThread,
    readonly seq: number,
    private readonly record: string,
    private readonly givenAt: number,
    body: BatchBody,
  ) {
    const follows = typeof body === 'number';
    this.body = follows ? null : body;
    this.incoming = follows ? thread.bodyOf(seq) : null;
  }

  get head(): string {
    return headOf(this.record);
  }
  /** No other method the engine knows begins with HE. */
  get isHead(): boolean {
    return this.record.startsWith('HE', this.record.indexOf('\n') + 1);
  }
  get queueTime(): number {
    const onLane = processClock(this.startedAt) - this.givenAt;
    // The clock of a batch counts whole ms.
    return waitedOf(this.record) + Math.max(0, Math.round(onLane));
  }
  addressOf(): string {
    return this.thread.addressOf(this.seq);
  }
}

/** The way of a body to the I/O thread. */
class LaneOutlet implements BodyOutlet {
  constructor(
    private readonly thread: WorkerThread,
    private readonly id: string,
  ) {}

  start(status: number, head: string, flags: number, length: number | null): void {
    this.thread.op(OP.startBody, this.id, status + 1024 * flags, head, length);
  }
  send(data: Uint8Array, track: boolean): void {
    this.thread.op(OP.sendBody, this.id, data, track, null);
  }
  end(): void {
    this.thread.bodies.delete(this.id);
    this.thread.op(OP.endBody, this.id, null, null, null);
  }
  fail(error: unknown): void {
    this.thread.failBody(this.id, error);
  }
}

/** A batch that is being run: `at` is the next record, `seq` its number. */
interface Batch {
  readonly records: readonly string[];
  /** On the {@link processClock}. */
  readonly givenAt: number;
  readonly bodies: readonly BatchBody[] | undefined;
  at: number;
  seq: number;
}

class WorkerThread implements ChannelOpener {
  readonly isOneOfMany = true;
  private readonly lane: MessagePort;
  private readonly board: Int32Array;
  private readonly addressSlot: AddressSlot;
  private readonly modules = new Map<number, LoadedModule>();
  private readonly outbox: OutboxWriter;
  /** Requests whose handlers returned a promise that has not settled. */
  private readonly pending = new Map<number, RingRequest>();
  /** The one of them that the I/O thread has not been told about, with its time on the thread so far, in microseconds. */
  private untold: { readonly seq: number; readonly held: number } | undefined;
  /** Bodies of requests that are being read, by the number of their request. */
  private readonly incoming = new Map<number, BodySink>();
  private readonly channels = new Map<string, HandlerChannel>();
  readonly bodies = new Map<string, OpenBody>();
  private readonly channelPrefix: string;
  private nextChannel = 0;
  private nextBody = 0;
  /** What is still to be said of this turn. */
  private lastWords: (() => void)[] = [];
  /** What channels and bodies ask for and has not been sent. */
  private ops: OpField[] = [];
  private batch: Batch | undefined;
  /** Batches that came while one was between two invocations: after an uncaught exception ticks are resumed late. */
  private readonly batches: Batch[] = [];
  /** When the I/O thread was last told to look, on the performance.now() clock. */
  private toldAt = 0;
  /** Something has been put into the outbox since the I/O thread was last told to look. */
  private news = false;
  private tellScheduled = false;
  /** Until when the time of the thread has been charged to somebody. */
  private charged = 0;
  private readonly end: () => void;

  constructor(start: WorkerStart, end: () => void, fail: (error: unknown) => void) {
    this.lane = start.lane as MessagePort;
    this.board = start.board;
    this.addressSlot = start.address;
    this.outbox = new OutboxWriter(start.outbox);
    this.channelPrefix = start.channelPrefix;
    setWire(this);
    mayBlock();
    this.end = end;
    this.lane.on('message', (notice: Notice) => this.receive(notice));
    process.on('uncaughtException', (error) => this.uncaught(error));
    // What callbacks have sent before a later one ends the thread has been sent.
    process.on('exit', () => this.tell());
    process.on('unhandledRejection', (reason) => {
      // Nobody was listening, so nothing was left half done by it: say so and go on.
      this.send({ kind: 'stray-error', message: 'unhandled rejection', error: toErrorRecord(reason) });
    });
    this.boot(start).catch(fail);
  }

  private async boot(start: WorkerStart): Promise<void> {
    for (const { target, url } of start.modules) {
      // One after the other: modules may rely on what an earlier one has set up, as imports do.
      if (!(await this.load(target, url))) {
        this.end();
        return;
      }
    }
    this.watchHeap();
    setInterval(() => this.watchHeap(), HEAP_EVERY).unref();
    this.send({ kind: 'ready', threadId });
  }

  private watchHeap(): void {
    Atomics.store(this.board, BOARD_HEAP, Math.round(getHeapStatistics().used_heap_size / 1024));
  }

  private async load(target: number, url: string): Promise<boolean> {
    try {
      const module = await loadModule(url);
      await module.onWorkerStart?.();
      this.modules.set(target, module);
      return true;
    } catch (error) {
      this.send({ kind: 'load-failed', target, error: toErrorRecord(error) });
      return false;
    }
  }

  private receive(notice: Notice): void {
    if (typeof notice === 'string') {
      this.runBatch(notice, undefined);
      return;
    }
    switch (notice.kind) {
      case 'batch':
        this.runBatch(notice.packed, bodiesOf(notice.bodies, notice.small));
        return;
      case 'body': {
        const body = this.incoming.get(notice.seq);
        if (notice.last) this.incoming.delete(notice.seq);
        body?.data(notice.chunks, notice.last);
        return;
      }
      case 'body-broken': {
        const body = this.incoming.get(notice.seq);
        this.incoming.delete(notice.seq);
        body?.broken(notice.problem);
        return;
      }
      case 'cancel':
        this.pending.get(notice.seq)?._abort(clientGone());
        return;
      case 'flowed':
        this.channels.get(notice.id)?._flowed(notice.total);
        if (notice.spare !== undefined) useAgain(notice.spare);
        this.bodies.get(notice.id)?.flowed(notice.total);
        return;
      case 'unwanted': {
        const body = this.bodies.get(notice.id);
        this.bodies.delete(notice.id);
        body?.unwanted();
        return;
      }
      case 'timeout':
        this.pending.get(notice.seq)?._abort(timeIsUp(notice.ms));
        this.send({ kind: 'alive', seq: notice.seq });
        return;
      case 'load':
        void this.load(notice.target, notice.url).then((ok) => {
          if (ok) this.send({ kind: 'loaded', target: notice.target });
        });
        return;
      case 'retire':
        void this.retire();
        return;
      default:
        throw new Error(`unknown notice ${JSON.stringify(notice satisfies never)}`);
    }
  }

  // ------------------------------------------------------------------------------------------------------- batches

  private runBatch(packed: PackedBatch, bodies: Batch['bodies']): void {
    const { first, givenAt, records } = splitBatch(packed);
    const batch: Batch = { records, givenAt, bodies, at: 0, seq: first };
    if (this.batch !== undefined) {
      this.batches.push(batch);
      return;
    }
    this.batch = batch;
    this.toldAt = performance.now();
    this.goOn(this.toldAt);
  }

  /** Run what is left of the batch. `before`: until when the time of the thread has been charged to somebody. */
  private goOn(before: number): void {
    const batch = this.batch as Batch;
    const { records, bodies } = batch;
    let now = before;
    while (batch.at < records.length) {
      const { at, seq } = batch;
      const next = (seq + 1) | 0;
      const record = records[at] as string;
      const target = targetOf(record);
      const body = bodies?.[at] ?? null;
      // Made before the claim: a thread that is ended in between has not started.
      const req =
        target === EVENT_TARGET
          ? undefined
          : new RingRequest(new LaneSource(this, seq, record, batch.givenAt, body), this);
      // Not ours any more: it was taken back, and all behind it were with it. From silence: say that it is over.
      if (Atomics.compareExchange(this.board, BOARD_CLAIM, seq, next) !== seq) {
        this.news = true;
        break;
      }
      batch.at = at + 1;
      batch.seq = next;
      if (req === undefined)
        now = this.event(seq, headOf(record), typeof body === 'number' ? null : body, now);
      else now = this.start(seq, target, req, now);
      if (this.untold !== undefined) {
        // First everything that the promise does without waiting: it may be all there is to it (`async` out of habit),
        // and what comes next may never end. A tick asked for in a microtask comes when no microtask is left.
        this.charged = now;
        queueMicrotask(this.hop);
        return;
      }
      this.tellIfLate(now);
    }
    this.charged = now;
    this.tell();
    this.batch = this.batches.shift();
    if (this.batch !== undefined) this.goOn(performance.now());
  }

  private readonly hop = (): void => process.nextTick(this.resume);

  private readonly resume = (): void => {
    const now = performance.now();
    const { untold } = this;
    if (untold !== undefined) {
      this.untold = undefined;
      this.put(untold.seq, PENDING, untold.held + micros(now - this.charged));
    }
    this.tellIfLate(now);
    this.goOn(now);
  };

  private tellIfLate(now: number): void {
    if (now - this.toldAt <= TELL_AFTER) return;
    this.tell();
    this.toldAt = now;
  }

  /** Start one invocation, which has held the thread since `before`. Returns until when it did. */
  private start(seq: number, target: number, req: RingRequest, before: number): number {
    (req._source as LaneSource).startedAt = before;
    let answer: Answer | PromiseLike<Answer>;
    try {
      const module = this.modules.get(target);
      if (module === undefined) throw new Error(`worker has no handler number ${target}`);
      answer = invoke(module.handler, req);
    } catch (error) {
      const now = performance.now();
      this.fail(seq, req, error, micros(now - before));
      return now;
    }
    const now = performance.now();
    if (isThenable<Answer>(answer)) this.await(seq, req, answer, micros(now - before));
    else this.put(seq, answer, micros(now - before));
    return now;
  }

  /** Hand an event to its channel. */
  private event(seq: number, record: string, body: Uint8Array | null, before: number): number {
    const cut = record.indexOf('\n');
    const id = record.slice(0, cut);
    if (record[cut + 1] === EVENT.defined)
      return this.definedEvent(seq, id, record.slice(cut + 2), body, before);
    const channel = this.channels.get(id);
    const handled =
      channel === undefined
        ? undefined
        : tell(channel, record[cut + 1] as string, record.slice(cut + 2), body);
    const now = performance.now();
    if (handled === undefined) {
      this.put(seq, EVENT_DONE, micros(now - before));
    } else {
      this.untold = { seq, held: micros(now - before) };
      void handled.then(() => this.put(seq, EVENT_DONE, this.settle(seq)));
    }
    return now;
  }

  /** Make the channel of an event that any worker could have got, and hand it the event. */
  private definedEvent(
    seq: number,
    id: string,
    record: string,
    body: Uint8Array | null,
    before: number,
  ): number {
    const [head, rest] = splitLines(record, 5);
    const [kindAndName, flags, sent, waiting, state] = head as [string, string, string, string, string];
    const kind = kindAndName[0] as string;
    const bits = Number(flags);
    const snapshot = {
      isWebSocket: (bits & DEFINED.webSocket) !== 0,
      isHead: (bits & DEFINED.head) !== 0,
      started: (bits & DEFINED.started) !== 0,
      sent: Number(sent),
      waiting: Number(waiting),
      state,
    };
    const channel = this.handleOf(id, kindAndName.slice(1), snapshot, kind);
    const handled = channel === undefined ? undefined : tell(channel, kind, rest, body);
    const now = performance.now();
    if (handled === undefined) {
      this.op(OP.handled, id, seq, micros(now - before), channel?._suspend() ?? null);
    } else {
      this.untold = { seq, held: micros(now - before) };
      void handled.then(() => this.op(OP.handled, id, seq, this.settle(seq), channel?._suspend() ?? null));
    }
    return now;
  }

  /** A handle that is still waited for goes on; else a new one. */
  private handleOf(id: string, name: string, snapshot: Snapshot, kind: string): DefinedHandle | undefined {
    const known = this.channels.get(id);
    const channel =
      known instanceof DefinedHandle && known.isOpen ? known : resumeDefined(this, id, name, snapshot);
    if (channel === undefined) {
      // The code that is now on disk has no such channel any more.
      const error = new OffloopError(
        'OFFLOOP_BAD_CHANNEL',
        `no channel called '${name}' is defined any more`,
      );
      this.log(`channel ${id}: an event came for it`, error);
      if (kind !== EVENT.close) this.op(OP.close, id, 1012, 'Service restart', null);
      return undefined;
    }
    this.channels.set(id, channel);
    channel._resume(snapshot);
    return channel;
  }

  private await(seq: number, req: RingRequest, answer: PromiseLike<Answer>, held: number): void {
    this.pending.set(seq, req);
    this.untold = { seq, held };
    answer.then(
      (answer) => this.put(seq, answer, this.settle(seq)),
      (error: unknown) => this.fail(seq, req, error, this.settle(seq)),
    );
  }

  /** Returns how long it held the thread, when the I/O thread has not been told yet. */
  private settle(seq: number): number {
    this.pending.delete(seq);
    const { untold } = this;
    if (untold?.seq !== seq) {
      this.scheduleTell();
      return 0;
    }
    this.untold = undefined;
    // `await req.json()` and then work: the work is done in a microtask, between the last charge and now.
    return untold.held + micros(performance.now() - this.charged);
  }

  private fail(seq: number, req: RingRequest, error: unknown, held: number): void {
    const answer = req._channel === undefined ? answerTo(error, req) : null;
    if (answer !== null) {
      this.put(seq, answer, held);
      return;
    }
    this.flush();
    this.send({ kind: 'failed', seq, error: toErrorRecord(error), micros: held });
  }

  // ------------------------------------------------------------------------------------------------------- sending

  /** Let go of an answer. From here on nothing that happens in this thread can keep it from being delivered. */
  private put(seq: number, { status, head, payload, flags, owned }: Answer, held: number): void {
    if (status === STATUS_TAKEN) this.op(OP.done, '', seq, held, null);
    else if (this.outbox.write(seq, status, head, payload, flags, held)) this.news = true;
    else {
      // A text would be copied twice on its way, and made bytes on the I/O thread.
      const isText = typeof payload === 'string';
      const sent = isText ? bytesOf(payload) : payload;
      const isOurs = sent instanceof Uint8Array && (isText || owned === true);
      const transfer = isOurs ? [sent.buffer as ArrayBuffer] : undefined;
      this.send({ kind: 'answer', seq, status, head, payload: sent, flags, micros: held }, transfer);
    }
  }

  private scheduleTell(): void {
    if (this.tellScheduled) return;
    this.tellScheduled = true;
    setImmediate(() => {
      this.tellScheduled = false;
      this.tell();
    });
  }

  private tell(): void {
    this.flush();
    if (!this.news) return;
    this.news = false;
    this.send('look');
  }

  private send(command: Command, transfer?: readonly ArrayBuffer[]): void {
    this.lane.postMessage(command, transfer);
  }

  // ------------------------------------------------------------------------------------------------------ channels

  newId(): string {
    return this.channelPrefix + (this.nextChannel++).toString(36);
  }

  open(channel: HandlerChannel, accept: Accept | null, source: RequestSource): void {
    this.channels.set(channel.id, channel);
    const { seq } = source as LaneSource;
    this.op(OP.open, channel.id, seq, accept === null ? null : accept.head, openingOf(channel, accept));
  }

  /** Everything that is asked for in one turn travels together. */
  op(op: number, id: string, a: OpField, b: OpField, c: OpField): void {
    this.ops.push(op, id, a, b, c);
    // A batch tells at its end, and in time.
    if (this.batch === undefined) this.scheduleTell();
  }

  forget(channel: HandlerChannel): void {
    this.channels.delete(channel.id);
  }

  log(message: string, error: unknown): void {
    this.send({ kind: 'stray-error', message, error: toErrorRecord(error) });
  }

  // -------------------------------------------------------------------------------------------------------- bodies

  openBody(body: OpenBody, { _source }: RingRequest): BodyOutlet {
    // No channel has such an id.
    const id = `=${(this.nextBody++).toString(36)}`;
    this.bodies.set(id, body);
    this.op(OP.openBody, id, (_source as LaneSource).seq, null, null);
    return new LaneOutlet(this, id);
  }

  failBody(id: string, error: unknown): void {
    this.bodies.delete(id);
    this.flush();
    this.send({ kind: 'body-failed', id, error: toErrorRecord(error) });
  }

  beforeSending(work: () => void): void {
    this.lastWords.push(work);
    if (this.batch === undefined) this.scheduleTell();
  }

  private flush(): void {
    if (this.lastWords.length > 0) for (const work of this.lastWords.splice(0)) work();
    if (this.ops.length === 0) return;
    const { ops } = this;
    this.ops = [];
    const transfer: ArrayBuffer[] = [];
    let parcel: Parcel | undefined;
    for (let i = 0; i < ops.length; i++) {
      const field = ops[i];
      if (!(field instanceof Uint8Array)) continue;
      if (field.byteLength >= TRANSFER_FROM) transfer.push(field.buffer as ArrayBuffer);
      else if (isSent(ops, i)) {
        parcel ??= new Parcel();
        ops[i] = parcel.add(field);
      }
    }
    this.send({ kind: 'channels', ops, small: parcel?.whole }, transfer);
  }

  /** A body that has not come with its request. */
  bodyOf(seq: number): BodySource {
    return {
      pull: (sink, bytes, waiting) => {
        this.incoming.set(seq, sink);
        this.send({ kind: 'read', seq, bytes, waiting });
      },
      cancel: () => {
        this.incoming.delete(seq);
        this.send({ kind: 'unread', seq });
      },
    };
  }

  /** Ask the I/O thread and wait: a handful of times in the life of a mount, whose later heads carry the address. */
  addressOf(seq: number): string {
    const slot = this.addressSlot;
    Atomics.store(slot, 0, -1);
    this.send({ kind: 'address', seq });
    Atomics.wait(slot, 0, -1, ADDRESS_TIMEOUT);
    const length = Math.max(0, Atomics.load(slot, 0));
    return String.fromCharCode(...slot.subarray(1, 1 + length));
  }

  // ------------------------------------------------------------------------------------------------------- the end

  /**
   * An exception outside any handler's stack, from a timer or an emitter: some invocation may be left half done, but
   * which one cannot be known. The I/O thread gives us no more work, lets the others finish and replaces us. A module
   * that listens for uncaughtException itself has decided otherwise.
   */
  private uncaught(error: unknown): void {
    const kind = process.listenerCount('uncaughtException') > 1 ? 'stray-error' : 'poisoned';
    const record = toErrorRecord(error);
    if (kind === 'poisoned') this.send({ kind, error: record });
    else this.send({ kind, message: 'uncaught exception', error: record });
  }

  private async retire(): Promise<void> {
    for (const module of this.modules.values()) {
      try {
        await module.onWorkerStop?.();
      } catch (error) {
        this.send({ kind: 'stray-error', message: 'onWorkerStop failed', error: toErrorRecord(error) });
      }
    }
    this.tell();
    this.lane.close();
    this.end();
  }
}

/** The bodies of a batch as they were before the small ones were put together. */
function bodiesOf(bodies: readonly BatchBody[], small: Uint8Array): BatchBody[] {
  const take = unpacked(small);
  return bodies.map((body) => (typeof body === 'number' && body !== BODY_FOLLOWS ? take(body) : body));
}

/** Give a channel its event. Returns a promise when that takes longer. */
function tell(
  channel: HandlerChannel,
  kind: string,
  rest: string,
  body: Uint8Array | null,
): Promise<void> | undefined {
  switch (kind) {
    case EVENT.text:
      return channel._message(rest);
    case EVENT.longText:
      return channel._message(textOf(body as Uint8Array));
    case EVENT.binary:
      return channel._message(body as Uint8Array);
    case EVENT.ping:
      return channel._ping(body as Uint8Array);
    case EVENT.close: {
      const [[status, code], reason] = splitLines(rest, 2);
      if (channel instanceof DefinedHandle)
        return channel._ended(status as ChannelStatus, Number(code), reason);
      return channel._closed(status as ChannelStatus, Number(code), reason);
    }
    default:
      throw new Error(`unknown event ${kind}`);
  }
}

/** The first `count` lines of a text, and the rest, which may have more. */
function splitLines(text: string, count: number): [lines: string[], rest: string] {
  const lines: string[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    const end = text.indexOf('\n', at);
    lines.push(text.slice(at, end));
    at = end + 1;
  }
  return [lines, text.slice(at)];
}
