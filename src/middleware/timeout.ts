/** A time limit for what is inside. */
import { integer, type Rule, refuse } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { isThenable } from '../handlers/reasons.js';
import type { HttpRequest, Returns } from '../handlers/types.js';
import { hasChannel, lazily } from './request.js';
import { Draft, discard, plain, type Result } from './response.js';
import { checkOptions, MAX_MS, oneOf } from './rules.js';

export interface TimeoutOptions {
  /** Ms that the handler may take. */
  ms: number;
  /** Status of the answer when they are over: 503 or 504. Default 504. */
  status?: 503 | 504;
}

const RULES: Record<keyof TimeoutOptions, Rule> = {
  ms: integer(1, MAX_MS, 'whole milliseconds from 1 to 2^31 - 1'),
  status: oneOf(503, 504),
};

/**
 * Answers for a handler that takes too long, and aborts its `req.signal` with a TimeoutError; what it returns later is
 * dropped. A handler that computes is not interrupted: that is what `handlerTimeout` is for. A channel has no limit.
 * @throws OFFLOOP_BAD_OPTION.
 */
export function timeout(options: TimeoutOptions): Middleware {
  checkOptions('timeout', options, RULES);
  const { ms, status = 504 } = options;
  if (ms === undefined) refuse('timeout', 'ms', ms, RULES.ms.allowed);
  const withSignal = lazily<Limit, { readonly signal: AbortSignal }>({ signal: (limit) => limit.signal });
  return (handler) => (req) => {
    const limit = new Limit(req, ms);
    const answer = handler(withSignal(req, limit)) as Returns | Promise<Returns>;
    if (!isThenable<Returns>(answer)) return answer;
    return new Promise<Result>((resolve, reject) => {
      const timer = setTimeout(() => {
        if (hasChannel(req)) return;
        limit.pass();
        resolve(plain(status, 'The request took too long'));
      }, ms);
      answer.then(
        (result) => {
          clearTimeout(timer);
          if (limit.isOver) void discard(Draft.of(result)?.body);
          resolve(result);
        },
        (error: unknown) => {
          clearTimeout(timer);
          reject(error);
        },
      );
    });
  };
}

/** The time of one request. Its signal is made for handlers that ask. */
class Limit {
  isOver = false;
  private controller: AbortController | undefined;
  private made: AbortSignal | undefined;

  constructor(
    private readonly req: HttpRequest,
    private readonly ms: number,
  ) {}

  get signal(): AbortSignal {
    if (this.made === undefined) {
      this.controller = new AbortController();
      if (this.isOver) this.abort();
      this.made = AbortSignal.any([this.req.signal, this.controller.signal]);
    }
    return this.made;
  }

  pass(): void {
    this.isOver = true;
    this.abort();
  }

  private abort(): void {
    this.controller?.abort(new DOMException(`the handler has taken ${this.ms} ms`, 'TimeoutError'));
  }
}
