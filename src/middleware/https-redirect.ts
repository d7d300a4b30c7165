/** From http to https, after ring-ssl. */
import { integer } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { plain } from './response.js';
import { checkOptions } from './rules.js';

export interface HttpsRedirectOptions {
  /** Port of https. Default 443. */
  port?: number;
}

/** A host name or address as it may stand in a URL. */
const HOST = /^(?:[\w.-]+|\[[\da-f:.]+\])$/i;

/**
 * Redirects what came by http to https: 301 for GET and HEAD, 308 for the rest, which keeps method and body. Behind a proxy
 * that speaks https it needs {@link forwarded} around it, or it redirects for ever. @throws OFFLOOP_BAD_OPTION.
 */
export function httpsRedirect(options: HttpsRedirectOptions = {}): Middleware {
  checkOptions('httpsRedirect', options, { port: integer(1, 65535, 'a whole number from 1 to 65535') });
  const { port = 443 } = options;
  return (handler) => (req) => {
    if (req.scheme === 'https') return handler(req);
    if (!HOST.test(req.serverName)) return plain(400, 'Bad Host header');
    const authority = port === 443 ? req.serverName : `${req.serverName}:${port}`;
    const location = `https://${authority}${req.path}${req.query === null ? '' : `?${req.query}`}`;
    const status = req.method === 'GET' || req.method === 'HEAD' ? 301 : 308;
    return { status, headers: { location }, body: null };
  };
}
