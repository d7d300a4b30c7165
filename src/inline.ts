/** Handlers that run on the I/O thread, `dispatch: false`: a dispatcher that dispatches nothing. */
import { answerTo, clientGone, invoke, isThenable } from './handlers/invoke.js';
import { RingRequest } from './handlers/request.js';
import type { Handler } from './handlers/types.js';
import type { Accepted, Answer, Dispatcher, Invocation } from './protocol.js';

export class InlineDispatcher implements Dispatcher {
  constructor(private readonly handler: Handler) {}

  /** Calls the handler before it returns. Never refuses: there is no queue. */
  dispatch(_target: number, invocation: Invocation): Accepted | null {
    const req = new RingRequest(invocation);
    try {
      const answer = invoke(this.handler, req);
      if (!isThenable<Answer>(answer)) {
        invocation.answer(answer.status, answer.head, answer.payload, answer.flags);
        return NOTHING_LEFT;
      }
      answer.then(
        ({ status, head, payload, flags }) => invocation.answer(status, head, payload, flags),
        (error: unknown) => fail(invocation, req, error),
      );
    } catch (error) {
      fail(invocation, req, error);
      return NOTHING_LEFT;
    }
    return { cancel: () => req._abort(clientGone()) };
  }

  retryAfter(): number {
    return 1;
  }
}

const NOTHING_LEFT: Accepted = { cancel: () => undefined };

function fail(invocation: Invocation, req: RingRequest, error: unknown): void {
  const answer = answerTo(error, req);
  if (answer === null) invocation.fail(error);
  else invocation.answer(answer.status, answer.head, answer.payload, answer.flags);
}
