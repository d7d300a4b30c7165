import type { Handler } from './types.js';

/** A middleware takes a handler and returns a handler. */
export type Middleware = (handler: Handler) => Handler;

/**
 * Fold middleware around a handler: the first is the outermost, the handler comes last.
 *
 * ```js
 * export default compose(logged, authenticated, handler); // = logged(authenticated(handler))
 * ```
 */
export function compose(...parts: readonly [...Middleware[], Handler]): Handler {
  const handler = parts.at(-1) as Handler;
  return (parts.slice(0, -1) as Middleware[]).reduceRight((inner, middleware) => middleware(inner), handler);
}
