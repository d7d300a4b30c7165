/** HEAD through GET, after Ring's wrap-head. */
import type { Middleware } from '../handlers/compose.js';
import { derive } from './request.js';

/**
 * Shows the handler a GET where the client asked with HEAD, so that it need not know HEAD. What it answers loses its body on
 * the way out, like any answer to HEAD.
 */
export function head(): Middleware {
  return (handler) => (req) => handler(req.method === 'HEAD' ? derive(req, { method: 'GET' }) : req);
}
