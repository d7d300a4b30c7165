/** A pool without threads: workers whose other end the test holds, and invocations that note what becomes of them. */
import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { onTestFinished } from 'vitest';
import { headOf, splitBatch, targetOf } from '../../src/batch.js';
import { fromErrorRecord } from '../../src/errors.js';
import { OutboxWriter } from '../../src/outbox.js';
import { type DispatcherLimits, PoolDispatcher, type Threads } from '../../src/pool/dispatcher.js';
import type { MountQueue } from '../../src/pool/mount-queue.js';
import type { Ticket } from '../../src/pool/ticket.js';
import { Worker } from '../../src/pool/worker.js';
import {
  BOARD_CLAIM,
  type ErrorRecord,
  type Invocation,
  type Notice,
  type Payload,
  type RefusalDetail,
  type RefusalReason,
  STATUS_PENDING,
  type TimeLimits,
} from '../../src/protocol.js';

/** One request as the dispatcher sees it. */
export class FakeInvocation implements Invocation {
  readonly isHead = false;
  readonly body = null;
  readonly answers: { status: number; head: string; payload: Payload; flags: number }[] = [];
  readonly failures: unknown[] = [];
  readonly refusals: ({ reason: RefusalReason } & RefusalDetail)[] = [];

  constructor(readonly head: string) {}

  addressOf(): string {
    return '';
  }
  answer(status: number, head: string, payload: Payload, flags: number): void {
    this.answers.push({ status, head, payload, flags });
  }
  fail(error: unknown): void {
    this.failures.push(error);
  }
  openChannel(): null {
    return null;
  }
  openBody(): null {
    return null;
  }
  refuse(reason: RefusalReason, detail: RefusalDetail): void {
    this.refusals.push({ reason, ...detail });
  }
  /** How often it was answered, failed or refused; must never pass 1. */
  get settled(): number {
    return this.answers.length + this.failures.length + this.refusals.length;
  }
}

/** What the other end of a lane got: the number and the name of an invocation. */
export interface Given {
  readonly seq: number;
  readonly target: number;
  readonly name: string;
}

/** The thread's side of a worker, played by the test. */
export class FakeWorker {
  readonly worker: Worker;
  private readonly port: MessagePort;
  private readonly outbox: OutboxWriter;
  readonly cancels: number[] = [];
  readonly timeouts: number[] = [];

  constructor(
    name: string,
    private readonly dispatcher: () => PoolDispatcher,
  ) {
    const { port1, port2 } = new MessageChannel();
    this.port = port2;
    this.worker = new Worker(name, port1);
    this.worker.state = 'ready';
    this.outbox = new OutboxWriter(this.worker.outboxMemory);
    onTestFinished(() => port1.close());
  }

  /** The batches that have come since the last call. */
  batches(): Given[][] {
    const batches: Given[][] = [];
    for (
      let got = receiveMessageOnPort(this.port);
      got !== undefined;
      got = receiveMessageOnPort(this.port)
    ) {
      const notice = got.message as Notice;
      if (typeof notice !== 'string' && notice.kind === 'cancel') this.cancels.push(notice.seq);
      if (typeof notice !== 'string' && notice.kind === 'timeout') this.timeouts.push(notice.seq);
      const packed =
        typeof notice === 'string' ? notice : notice.kind === 'batch' ? notice.packed : undefined;
      if (packed === undefined) continue;
      const { first, records } = splitBatch(packed);
      const batch = records.map((record, i): Given => {
        return { seq: (first + i) | 0, target: targetOf(record), name: headOf(record) };
      });
      batches.push(batch);
    }
    return batches;
  }

  /** The names of what has come since the last call. */
  names(): string[] {
    return this.batches().flatMap((batch) => batch.map((given) => given.name));
  }

  /** Claim an invocation as a thread does. Whether it was still to be had. */
  start({ seq }: Given): boolean {
    return Atomics.compareExchange(this.worker.board, BOARD_CLAIM, seq, (seq + 1) | 0) === seq;
  }

  answer(given: Given, micros = 10): void {
    this.write(given, micros);
    this.dispatcher().collect(this.worker);
  }
  pending(given: Given, micros = 10): void {
    this.put(given.seq, STATUS_PENDING, null, micros);
    this.dispatcher().collect(this.worker);
  }
  fail(given: Given, error: ErrorRecord, micros = 10): void {
    this.dispatcher().failed(this.worker, given.seq, fromErrorRecord(error), micros);
  }
  /** Leave an answer in the outbox and tell nobody: the thread has gone on to its next handler. */
  write(given: Given, micros = 10): void {
    this.put(given.seq, 200, given.name, micros);
  }
  /** An answer that does not fit the outbox. */
  answerOverLane(given: Given, payload: Payload, micros = 10): void {
    this.dispatcher().answered(this.worker, given.seq, 200, '', payload, 0, micros);
  }
  pendingOverLane(given: Given, micros = 10): void {
    this.dispatcher().answered(this.worker, given.seq, STATUS_PENDING, '', null, 0, micros);
  }
  private put(seq: number, status: number, payload: Payload, micros: number): void {
    if (!this.outbox.write(seq, status, '', payload, 0, micros)) throw new Error('the outbox is full');
  }

  /** Say that the loop turns, as after a `timeout`. */
  alive(given: Given): void {
    this.dispatcher().alive(this.worker, given.seq);
  }

  /** Start and answer everything given. */
  finish(micros = 10): string[] {
    const names: string[] = [];
    for (const given of this.batches().flat()) {
      if (!this.start(given)) continue;
      names.push(given.name);
      this.answer(given, micros);
    }
    return names;
  }
}

export class FakePool implements Threads {
  readonly dispatcher: PoolDispatcher;
  readonly workers: FakeWorker[] = [];
  readonly ready: Worker[] = [];
  starting = 0;
  grown = 0;
  /** Whether `grow` starts threads, up to nMax. */
  canGrow = false;
  readonly idled: Worker[] = [];
  readonly leaving = new Set<Worker>();
  readonly wornOut: Worker[] = [];
  readonly cloggedUp: Worker[] = [];
  readonly suspects: Worker[] = [];
  readonly clearedOf: Worker[] = [];
  readonly stuckIn: { worker: Worker; name: string }[] = [];
  readonly logged: { message: string; error: unknown }[] = [];
  private nextName = 1;

  readonly limits: DispatcherLimits;
  private readonly mounts = new Map<number, MountQueue>();

  constructor(
    workers: number,
    limits: Partial<DispatcherLimits> = {},
    /** Of every mount. */
    private readonly times: Partial<TimeLimits> = {},
  ) {
    this.limits = { nMax: 4, queueSize: 1000, concurrency: 64, batchMicros: 1000, ...limits };
    this.dispatcher = new PoolDispatcher(this.limits, this);
    for (let i = 0; i < workers; i++) this.addWorker();
  }

  addWorker(): FakeWorker {
    const fake = new FakeWorker(`fake-${this.workers.length + 1}`, () => this.dispatcher);
    this.workers.push(fake);
    this.ready.push(fake.worker);
    return fake;
  }

  /** Let the dispatcher see a target return a promise that has to wait. */
  learnAsync(target: number): void {
    this.send(target, 'learning');
    const taker = this.workers.find((fake) => fake.worker.given > 0);
    const given = taker?.batches()[0]?.[0];
    if (taker === undefined || given === undefined) throw new Error('nobody is free');
    taker.start(given);
    taker.pending(given);
    taker.answer(given);
  }

  /** The worker at this index; the test made it. */
  at(index: number): FakeWorker {
    return this.workers[index] as FakeWorker;
  }

  grow(): void {
    if (!this.canGrow || this.ready.length + this.starting >= this.limits.nMax) return;
    this.grown++;
    this.starting++;
  }
  clogged(worker: Worker): void {
    this.cloggedUp.push(worker);
  }
  idle(worker: Worker): void {
    this.idled.push(worker);
  }
  worn(worker: Worker): void {
    this.wornOut.push(worker);
  }
  suspect(worker: Worker): void {
    this.suspects.push(worker);
  }
  cleared(worker: Worker): void {
    this.clearedOf.push(worker);
  }
  stuck(worker: Worker, ticket: Ticket): void {
    this.stuckIn.push({ worker, name: ticket.invocation.head });
  }
  get all(): Worker[] {
    return this.workers.map((fake) => fake.worker);
  }
  report(message: string, error: unknown): void {
    this.logged.push({ message, error });
  }

  /** The mount that stands for this target. */
  mount(target: number, times: Partial<TimeLimits> = this.times): MountQueue {
    let mount = this.mounts.get(target);
    if (mount === undefined) {
      const none: TimeLimits = { queueTimeout: 0, handlerTimeout: 0, killAfter: 1000 };
      mount = this.dispatcher.mount(target, { ...none, ...times });
      this.mounts.set(target, mount);
    }
    return mount;
  }

  /** Dispatch one invocation, and give it away if there is somebody to take it. */
  send(target: number, name = `r${this.nextName++}`): Sent {
    const sent = this.put(target, name);
    this.dispatcher.pump();
    return sent;
  }

  /** Dispatch one invocation and leave it in the queue until the turn ends. */
  put(target: number, name = `r${this.nextName++}`): Sent {
    const invocation = new FakeInvocation(name);
    const accepted = this.mount(target).dispatch(invocation);
    return { name, invocation, refused: accepted === null, cancel: () => accepted?.cancel() };
  }

  /** Dispatch several in one turn. */
  burst(target: number, names: readonly string[]): Sent[] {
    const sent = names.map((name) => this.put(target, name));
    this.dispatcher.pump();
    return sent;
  }

  /** Let the dispatcher know what a target costs. Done through the first worker, which is free afterwards. */
  learn(target: number, micros: number): void {
    this.send(target, 'learning');
    const taker = this.workers.find((fake) => fake.worker.given > 0);
    taker?.finish(micros);
    for (const fake of this.workers) fake.batches();
  }
}

export interface Sent {
  readonly name: string;
  readonly invocation: FakeInvocation;
  readonly refused: boolean;
  cancel(): void;
}
