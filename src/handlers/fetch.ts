/** Fetch-style handlers: an object with `fetch(request)`, as Hono, h3 and itty-router are. */
import { prepareGlobals, toWebRequest } from './fetch/request.js';
import type { FetchHandler, Handler } from './types.js';

export function fetchHandler(app: FetchHandler): Handler {
  prepareGlobals();
  return (req) => app.fetch(toWebRequest(req));
}
