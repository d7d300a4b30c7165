/** Handlers that run on the I/O thread, `dispatch: false`: a dispatcher that dispatches nothing. */
import { Deadlines, type Due } from './deadlines.js';
import { answerTo, clientGone, invoke, isThenable, timeIsUp } from './handlers/invoke.js';
import { RingRequest } from './handlers/request.js';
import type { Handler } from './handlers/types.js';
import type { Accepted, Answer, Dispatcher, Invocation, TimeLimits } from './protocol.js';

export class InlineDispatcher implements Dispatcher {
  private readonly deadlines: Deadlines<Running>;
  private readonly handlerTimeout: number;

  constructor(
    private readonly handler: Handler,
    { handlerTimeout }: TimeLimits,
  ) {
    this.handlerTimeout = handlerTimeout;
    this.deadlines = new Deadlines<Running>((running) => running.late(handlerTimeout));
  }

  /** Calls the handler before it returns. Never refuses: there is no queue. */
  dispatch(invocation: Invocation): Accepted | null {
    const req = new RingRequest(invocation);
    let answer: Answer | PromiseLike<Answer>;
    try {
      answer = invoke(this.handler, req);
    } catch (error) {
      fail(invocation, req, error);
      return NOTHING_LEFT;
    }
    if (!isThenable<Answer>(answer)) {
      invocation.answer(answer.status, answer.head, answer.payload, answer.flags);
      return NOTHING_LEFT;
    }
    const running = new Running(invocation, req, this.deadlines);
    // While a handler computes nothing can interrupt it here; it can only be told while it waits.
    if (this.handlerTimeout > 0) this.deadlines.set(running, this.handlerTimeout, performance.now());
    answer.then(
      ({ status, head, payload, flags }) => {
        this.deadlines.clear(running);
        invocation.answer(status, head, payload, flags);
      },
      (error: unknown) => {
        this.deadlines.clear(running);
        // Its 504 has gone out: what it makes of its signal is nobody's business.
        if (!running.overdue) fail(invocation, req, error);
      },
    );
    return running;
  }

  close(): void {
    // Deadlines of what still runs hold; their timer keeps nothing alive.
  }
}

/** A handler that has returned a promise. */
class Running implements Accepted, Due {
  dueAt = 0;
  dueLine: Due['dueLine'] = undefined;
  duePrev: Due['duePrev'] = undefined;
  dueNext: Due['dueNext'] = undefined;
  overdue = false;

  constructor(
    private readonly invocation: Invocation,
    private readonly req: RingRequest,
    private readonly deadlines: Deadlines<Running>,
  ) {}

  cancel(): void {
    this.deadlines.clear(this);
    this.req._abort(clientGone());
  }

  late(ms: number): void {
    this.overdue = true;
    this.invocation.refuse('handlerTimeout', { retryAfter: 0 });
    this.req._abort(timeIsUp(ms));
  }
}

const NOTHING_LEFT: Accepted = { cancel: () => undefined };

function fail(invocation: Invocation, req: RingRequest, error: unknown): void {
  const answer = answerTo(error, req);
  if (answer === null) invocation.fail(error);
  else invocation.answer(answer.status, answer.head, answer.payload, answer.flags);
}
