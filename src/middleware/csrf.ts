/** Requests that other sites make in the name of a visitor, with the visitor's cookies. */
import type { Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import type { HttpRequest } from '../handlers/types.js';
import { plain } from './response.js';
import { checkOptions } from './rules.js';

export interface CsrfOptions {
  /** Origins, as browsers write them ('https://admin.example.org'), that may do what this one may. Default none. */
  trustedOrigins?: readonly string[];
}

const RULES: Record<keyof CsrfOptions, Rule> = {
  trustedOrigins: {
    allowed: "an array of origins such as 'https://example.org', without a slash behind them",
    ok: (v) => Array.isArray(v) && v.every((one) => typeof one === 'string' && originOf(one) === one),
  },
};

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

/**
 * Refuses with a 403 what a page of another site has a browser send: requests with a method that may change something, and
 * WebSockets. It goes by Sec-Fetch-Site, which no page can set, or by Origin where a browser does not send that, and needs
 * neither tokens nor cookies. GET must not change anything. @throws OFFLOOP_BAD_OPTION.
 */
export function csrf(options: CsrfOptions = {}): Middleware {
  checkOptions('csrf', options, RULES);
  const trusted = new Set(options.trustedOrigins);
  return (handler) => (req) =>
    isSameSite(req, trusted) ? handler(req) : plain(403, 'Cross-origin request refused');
}

function isSameSite(req: HttpRequest, trusted: ReadonlySet<string>): boolean {
  // A WebSocket is opened by a GET, without a preflight and with cookies.
  if (SAFE.has(req.method) && !req.isWebSocket) return true;
  const { origin, host, 'sec-fetch-site': site } = req.headers;
  if (origin !== undefined && trusted.has(origin)) return true;
  if (site !== undefined) return site === 'same-origin' || site === 'none';
  // Neither: no browser, and so nobody's cookies but the client's own.
  if (origin === undefined) return true;
  return isSameHost(origin, host ?? '');
}

/** The scheme is not compared: behind a proxy that speaks https it is not known here. */
function isSameHost(origin: string, host: string): boolean {
  try {
    const { protocol, host: asked } = new URL(origin);
    return asked !== '' && asked === new URL(`${protocol}//${host}`).host;
  } catch {
    return false;
  }
}

function originOf(text: string): string | undefined {
  try {
    const { origin } = new URL(text);
    return origin === 'null' ? undefined : origin;
  } catch {
    return undefined;
  }
}
