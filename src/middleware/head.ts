/** HEAD through GET, after Ring's wrap-head. */
import type { Middleware } from '../handlers/compose.js';
import { lazily } from './request.js';

/**
 * Shows the handler a GET where the client asked with HEAD, so that it need not know HEAD. What it answers loses its body on
 * the way out, like any answer to HEAD.
 */
export function head(): Middleware {
  const asGet = lazily<undefined, { readonly method: string }>({ method: () => 'GET' });
  return (handler) => (req) => handler(req.method === 'HEAD' ? asGet(req, undefined) : req);
}
