import type { Handler, HttpRequest, Returns } from './types.js';

/**
 * A middleware takes a handler and returns a handler. `Adds` is what the inner handler sees on the request beside what it
 * always has, `Accepts` what it may return.
 */
export type Middleware<Adds = unknown, Accepts = Returns> = (
  handler: Handler<HttpRequest & Adds, Accepts>,
) => Handler;

// biome-ignore lint/suspicious/noExplicitAny: what each middleware adds and accepts is inferred, and anything may be
type AnyMiddleware = Middleware<any, any>;

/** What all of them add to the request. */
export type Added<M extends readonly unknown[]> = M extends readonly [
  Middleware<infer A, infer _>,
  ...infer Rest,
]
  ? A & Added<Rest>
  : unknown;

/** What a handler inside of all of them may return. */
export type Accepted<M extends readonly unknown[]> = M extends readonly [
  Middleware<infer _, infer A>,
  ...infer Rest,
]
  ? A | Accepted<Rest>
  : Returns;

/**
 * Fold middleware around a handler: the first is the outermost, the handler comes last.
 *
 * ```js
 * export default compose(logged, authenticated, handler); // = logged(authenticated(handler))
 * ```
 */
export function compose<M extends readonly AnyMiddleware[]>(
  ...parts: readonly [...M, Handler<HttpRequest & Added<M>, Accepted<M>>]
): Handler {
  const handler = parts.at(-1) as unknown as Handler;
  return (parts.slice(0, -1) as unknown as AnyMiddleware[]).reduceRight<Handler>(
    (inner, middleware) => middleware(inner),
    handler,
  );
}
