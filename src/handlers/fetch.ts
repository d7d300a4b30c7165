/** Fetch-style handlers: an object with `fetch(request)`, as Hono, h3 and itty-router are. */
import type { FetchHandler, Handler, HttpRequest } from './types.js';

export function fetchHandler(app: FetchHandler): Handler {
  return (req) => app.fetch(toWebRequest(req));
}

function toWebRequest(req: HttpRequest): Request {
  const authority = req.headers['host'] ?? 'localhost';
  const url = `${req.scheme}://${authority}${req.path}${req.query === null ? '' : `?${req.query}`}`;
  const init: RequestInit & { duplex?: 'half' } = {
    method: req.method,
    headers: req.headers,
    signal: req.signal,
  };
  if (req.body !== null && req.method !== 'GET' && req.method !== 'HEAD') {
    init.body = req.body as NonNullable<RequestInit['body']>;
    init.duplex = 'half';
  }
  return new Request(url, init);
}
