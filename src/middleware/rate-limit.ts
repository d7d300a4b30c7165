/** How many requests a client may make in a time. */
import { isIPv4 } from 'node:net';
import { integer, type Rule, refuse } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import type { HeaderValue, HttpRequest, Returns } from '../handlers/types.js';
import { logError, refuseInWorker } from './request.js';
import { after, plain, withHeaders } from './response.js';
import { aFunction, checkOptions, MAX_MS, oneOf } from './rules.js';

/** What is left to a client. */
export interface LimitState {
  readonly remainingPoints: number;
  /** Ms until it has all of them again. */
  readonly msBeforeNext: number;
}

/**
 * Counts requests by key. The limiters of the package rate-limiter-flexible are such. `consume` resolves with what is left,
 * rejects with that when nothing is, and with an Error when it cannot be known.
 */
export interface Limiter {
  /** Requests in a window. */
  readonly points?: number;
  /** Seconds of a window. */
  readonly duration?: number;
  consume(key: string): Promise<LimitState>;
}

export interface RateLimitOptions {
  /** Where it is counted: {@link memoryLimiter} inline, for workers one of rate-limiter-flexible with a store they share. */
  limiter: Limiter;
  /** Who is counted; null = not at all. Default: `remoteAddr`, the first 64 bits of it for IPv6. */
  key?: (req: HttpRequest) => string | null;
  /** What becomes of requests while the limiter fails: served, or answered 503. Default 'serve'. */
  whenDown?: 'serve' | 'refuse';
}

const RULES: Record<keyof RateLimitOptions, Rule> = {
  limiter: {
    allowed: 'an object with consume(key)',
    ok: (v) => typeof v === 'object' && v !== null && typeof (v as Partial<Limiter>).consume === 'function',
  },
  key: aFunction,
  whenDown: oneOf('serve', 'refuse'),
};
/** Ms between lines in the log about a limiter that fails. */
const COMPLAIN_EVERY = 10_000;

/**
 * Answers 429 to who makes too many requests. Says in the answers how many are left. @throws OFFLOOP_BAD_OPTION,
 * OFFLOOP_NOT_SHARED for a limiter in memory in a worker.
 */
export function rateLimit(options: RateLimitOptions): Middleware {
  checkOptions('rateLimit', options, RULES);
  const { limiter, key = addressOf, whenDown = 'serve' } = options;
  if (limiter === undefined) refuse('rateLimit', 'limiter', limiter, RULES.limiter.allowed);
  // Known by its name: the package is not loaded here.
  const { name } = (limiter as Partial<object>).constructor ?? {};
  if (name === 'RateLimiterMemory') refuseInWorker(name, 'counts');
  let complained = Number.NEGATIVE_INFINITY;

  return (handler) => (req) => {
    const who = key(req);
    if (who === null) return handler(req);
    const count = async (): Promise<LimitState> => limiter.consume(who);
    return count().then(
      (state) =>
        after(handler(req) as Returns | Promise<Returns>, (result) =>
          withHeaders(result, (headers) => {
            for (const [name, value] of Object.entries(fields(limiter, state))) headers.set(name, value);
          }),
        ),
      (error: unknown) => {
        if (isState(error)) return plain(429, 'Too Many Requests', fields(limiter, error, true));
        const now = performance.now();
        if (now - complained > COMPLAIN_EVERY) {
          complained = now;
          logError(req, 'rateLimit: the limiter fails', error);
        }
        if (whenDown === 'serve') return handler(req);
        return plain(503, 'Server unavailable, please try again', { 'retry-after': '1' });
      },
    );
  };
}

function isState(value: unknown): value is LimitState {
  return (
    !(value instanceof Error) &&
    typeof value === 'object' &&
    value !== null &&
    typeof (value as Partial<LimitState>).msBeforeNext === 'number'
  );
}

function fields(
  { points, duration }: Limiter,
  { remainingPoints, msBeforeNext }: LimitState,
  refused = false,
): Record<string, HeaderValue> {
  const seconds = Math.max(1, Math.ceil(msBeforeNext / 1000));
  return {
    'RateLimit-Limit': points,
    'RateLimit-Remaining': refused ? 0 : Math.max(0, remainingPoints),
    'RateLimit-Reset': seconds,
    ...(points !== undefined && duration !== undefined && { 'RateLimit-Policy': `${points};w=${duration}` }),
    ...(refused && { 'Retry-After': seconds }),
  };
}

/** The address of the client. Whoever has one address of IPv6 has all that share its first 64 bits. */
function addressOf({ remoteAddr }: HttpRequest): string {
  if (!remoteAddr.includes(':')) return remoteAddr;
  const mapped = remoteAddr.slice(remoteAddr.lastIndexOf(':') + 1);
  if (isIPv4(mapped)) return mapped;
  const [head = '', tail] = remoteAddr.split('::');
  const before = head === '' ? [] : head.split(':');
  const behind = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - before.length - behind.length;
  const groups = [...before, ...Array.from({ length: Math.max(0, zeros) }, () => '0'), ...behind];
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}

export interface MemoryLimiterOptions {
  /** Requests in a window. */
  points: number;
  /** Ms of a window, whole seconds. It begins with the first request. */
  duration: number;
  /** Keys at most; beyond it those whose window began first are forgotten. Default 100000. */
  max?: number;
}

const MEMORY_RULES: Record<keyof MemoryLimiterOptions, Rule> = {
  points: integer(1, 2 ** 31 - 1, 'a whole number from 1 to 2^31 - 1'),
  duration: {
    allowed: 'whole seconds in ms, from 1000 to 2^31 - 1',
    ok: (v) =>
      Number.isInteger(v) && (v as number) >= 1000 && (v as number) <= MAX_MS && (v as number) % 1000 === 0,
  },
  max: integer(1, 2 ** 24, 'a whole number from 1 to 2^24'),
};

/**
 * Counts in the memory of this process, for handlers that run inline. The package's RateLimiterMemory has a timer for each
 * key and no bound. @throws OFFLOOP_NOT_SHARED in a worker, OFFLOOP_BAD_OPTION.
 */
export function memoryLimiter(options: MemoryLimiterOptions): Limiter {
  checkOptions('memoryLimiter', options, MEMORY_RULES);
  const { points, duration, max = 100_000 } = options;
  if (points === undefined) refuse('memoryLimiter', 'points', points, MEMORY_RULES.points.allowed);
  if (duration === undefined) refuse('memoryLimiter', 'duration', duration, MEMORY_RULES.duration.allowed);
  refuseInWorker('memoryLimiter', 'counts');
  // All windows are of one length, so the one that was put in first ends first.
  const windows = new Map<string, { count: number; ends: number }>();

  return {
    points,
    duration: duration / 1000,
    async consume(key) {
      const now = performance.now();
      let window = windows.get(key);
      if (window === undefined || window.ends <= now) {
        windows.delete(key);
        for (const [old, { ends }] of windows) {
          if (ends > now && windows.size < max) break;
          windows.delete(old);
        }
        window = { count: 0, ends: now + duration };
        windows.set(key, window);
      }
      window.count++;
      const state = { remainingPoints: points - window.count, msBeforeNext: window.ends - now };
      if (window.count > points) throw state;
      return state;
    },
  };
}
