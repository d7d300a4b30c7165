/** Handlers that run on the I/O thread, `dispatch: false`: a dispatcher that dispatches nothing. */

import { copyOf, textOf } from './bytes.js';
import { channels } from './channel-registry.js';
import { Deadlines, type Due, type Excusable, excuse } from './deadlines.js';
import { type HandlerChannel, setWire } from './handlers/channel.js';
import { answerTo, invoke } from './handlers/invoke.js';
import type { OpenBody } from './handlers/pump.js';
import { clientGone, isThenable, timeIsUp } from './handlers/reasons.js';
import { type ChannelOpener, type RequestSource, RingRequest } from './handlers/request.js';
import { useAgain } from './handlers/spare.js';
import type { Handler } from './handlers/types.js';
import {
  type Accept,
  type Accepted,
  type Answer,
  type BodyLine,
  type BodyOutlet,
  type BodyOwner,
  type ChannelLine,
  type ChannelOwner,
  type ChannelStatus,
  type Dispatcher,
  type Invocation,
  type OpField,
  STATUS_TAKEN,
  type TimeLimits,
} from './protocol.js';

const prefix = channels.newPrefix();
let nextChannel = 0;

export class InlineDispatcher implements Dispatcher, ChannelOpener {
  private readonly deadlines: Deadlines<Running>;
  private readonly handlerTimeout: number;
  readonly isOneOfMany = false;
  readonly crossesThreads = false;

  constructor(
    private readonly handler: Handler,
    { handlerTimeout }: TimeLimits,
    readonly log: (message: string, error: unknown) => void,
  ) {
    setWire(this);
    this.handlerTimeout = handlerTimeout;
    this.deadlines = new Deadlines<Running>((running) => {
      if (!excuse(this.deadlines, running, handlerTimeout)) running.late(handlerTimeout);
    });
  }

  /** Calls the handler before it returns. Never refuses: there is no queue. */
  dispatch(invocation: Invocation): Accepted | null {
    const req = new RingRequest(invocation, this);
    let answer: Answer | PromiseLike<Answer>;
    try {
      answer = invoke(this.handler, req);
    } catch (error) {
      fail(invocation, req, error);
      return NOTHING_LEFT;
    }
    if (!isThenable<Answer>(answer)) {
      if (answer.status !== STATUS_TAKEN)
        invocation.answer(answer.status, answer.head, answer.payload, answer.flags);
      return NOTHING_LEFT;
    }
    const running = new Running(invocation, req, this.deadlines);
    // While a handler computes nothing can interrupt it here; it can only be told while it waits.
    if (this.handlerTimeout > 0) this.deadlines.set(running, this.handlerTimeout, performance.now());
    answer.then(
      ({ status, head, payload, flags }) => {
        this.deadlines.clear(running);
        if (status !== STATUS_TAKEN) invocation.answer(status, head, payload, flags);
      },
      (error: unknown) => {
        this.deadlines.clear(running);
        // Its 504 has gone out: what it makes of its signal is nobody's business.
        if (!running.overdue) fail(invocation, req, error);
      },
    );
    return running;
  }

  // ------------------------------------------------------------------------------------------------------ channels

  newId(): string {
    return prefix + (nextChannel++).toString(36);
  }

  open(channel: HandlerChannel, accept: Accept | null, source: RequestSource): void {
    // What a request is made of here is the invocation itself.
    const line = (source as Invocation).openChannel(channel.id, new InlineOwner(channel), accept);
    // Nobody is there any more. Told later, as in a worker: the end comes behind onOpen.
    if (line === null) setImmediate(() => void channel._closed('client-close', 0, ''));
    else channels.add(line);
  }

  op(op: number, id: string, a: OpField, b: OpField, c: OpField): void {
    channels.apply(op, id, a, b, c);
  }

  forget(channel: HandlerChannel): void {
    channels.delete(channel.id);
  }

  openBody(body: OpenBody, { _source }: RingRequest): BodyOutlet | null {
    return (_source as Invocation).openBody(new InlineBodyOwner(body));
  }

  beforeSending(work: () => void): void {
    setImmediate(work);
  }

  close(): void {
    // Deadlines of what still runs hold; their timer keeps nothing alive.
  }
}

/** Hands events of a channel to its callbacks, on this thread. */
class InlineOwner implements ChannelOwner {
  constructor(private readonly channel: HandlerChannel) {}

  message(line: ChannelLine, data: ArrayBuffer, isText: boolean): void {
    // The engine takes its memory back when this returns.
    const own = isText ? textOf(data) : copyOf(data);
    if (line.defers === true) setImmediate(() => void this.channel._message(own));
    else void this.channel._message(own);
  }
  ping(line: ChannelLine, data: ArrayBuffer): void {
    const own = copyOf(data);
    if (line.defers === true) setImmediate(() => void this.channel._ping(own));
    else void this.channel._ping(own);
  }
  flowed(_line: ChannelLine, total: number): void {
    this.channel._flowed(total);
  }
  closed(line: ChannelLine, status: ChannelStatus, code: number, reason: string): Promise<void> | undefined {
    channels.delete(line.id);
    if (line.defers !== true) return this.channel._closed(status, code, reason);
    return new Promise((resolve) => {
      setImmediate(() => resolve(this.channel._closed(status, code, reason)));
    });
  }
}

/** Tells a body what becomes of it, on this thread. */
class InlineBodyOwner implements BodyOwner {
  constructor(private readonly body: OpenBody) {}

  flowed(total: number, spare: ArrayBuffer[]): void {
    useAgain(spare);
    this.body.flowed(total);
  }
  closed(_line: BodyLine, whole: boolean): void {
    if (!whole) this.body.unwanted();
  }
}

/** A handler that has returned a promise. */
class Running implements Accepted, Excusable {
  dueAt = 0;
  dueLine: Due['dueLine'] = undefined;
  duePrev: Due['duePrev'] = undefined;
  dueNext: Due['dueNext'] = undefined;
  overdue = false;
  excused = 0;

  constructor(
    readonly invocation: Invocation,
    private readonly req: RingRequest,
    private readonly deadlines: Deadlines<Running>,
  ) {}

  cancel(): void {
    this.deadlines.clear(this);
    this.req._abort(clientGone());
  }

  late(ms: number): void {
    this.overdue = true;
    // First, so that whoever reads the body learns why it breaks.
    this.req._abort(timeIsUp(ms));
    this.invocation.refuse('handlerTimeout', { retryAfter: 0 });
  }
}

const NOTHING_LEFT: Accepted = { cancel: () => undefined };

function fail(invocation: Invocation, req: RingRequest, error: unknown): void {
  const answer = req._channel === undefined ? answerTo(error, req) : null;
  if (answer === null) invocation.fail(error);
  else invocation.answer(answer.status, answer.head, answer.payload, answer.flags);
}
