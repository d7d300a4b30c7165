/** Headers that make browsers more careful. */
import type { Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import type { Returns } from '../handlers/types.js';
import { after, type HeaderBag, withHeaders } from './response.js';
import { checkOptions } from './rules.js';

// The values helmet 8 has proved; helmet itself works on a response of node:http. Its X-Download-Options is for a browser
// that is gone, and its upgrade-insecure-requests is sent over https only, since it makes a page on http unusable.
const HEADERS = {
  contentSecurityPolicy: [
    'Content-Security-Policy',
    "default-src 'self';base-uri 'self';font-src 'self' https: data:;form-action 'self';frame-ancestors 'self';" +
      "img-src 'self' data:;object-src 'none';script-src 'self';script-src-attr 'none';style-src 'self' https: 'unsafe-inline'",
  ],
  crossOriginOpenerPolicy: ['Cross-Origin-Opener-Policy', 'same-origin'],
  crossOriginResourcePolicy: ['Cross-Origin-Resource-Policy', 'same-origin'],
  originAgentCluster: ['Origin-Agent-Cluster', '?1'],
  referrerPolicy: ['Referrer-Policy', 'no-referrer'],
  strictTransportSecurity: ['Strict-Transport-Security', 'max-age=31536000; includeSubDomains'],
  xContentTypeOptions: ['X-Content-Type-Options', 'nosniff'],
  xDnsPrefetchControl: ['X-DNS-Prefetch-Control', 'off'],
  xFrameOptions: ['X-Frame-Options', 'SAMEORIGIN'],
  xPermittedCrossDomainPolicies: ['X-Permitted-Cross-Domain-Policies', 'none'],
  xXssProtection: ['X-XSS-Protection', '0'],
  crossOriginEmbedderPolicy: ['Cross-Origin-Embedder-Policy', undefined],
  permissionsPolicy: ['Permissions-Policy', undefined],
} as const;

type Name = keyof typeof HEADERS;

/** Another value for a header, or false for none. */
export type SecurityHeadersOptions = { [header in Name]?: string | false };

const value: Rule = {
  allowed: 'a header value, or false for none',
  ok: (v) => v === false || (typeof v === 'string' && /^[\x20-\x7e]+$/.test(v)),
};
const RULES = Object.fromEntries(Object.keys(HEADERS).map((name) => [name, value])) as Record<Name, Rule>;

/**
 * Gives answers the headers that have no one set; those a handler sets stay. Strict-Transport-Security is sent over https
 * only (RFC 6797, 7.2). @throws OFFLOOP_BAD_OPTION.
 */
export function securityHeaders(options: SecurityHeadersOptions = {}): Middleware {
  checkOptions('securityHeaders', options, RULES);
  const http: [string, string][] = [];
  const https: [string, string][] = [];
  for (const [key, [name, usual]] of Object.entries(HEADERS)) {
    const set = options[key as Name] ?? usual;
    if (set === undefined || set === false) continue;
    if (key !== 'strictTransportSecurity') http.push([name, set]);
    const upgraded = key === 'contentSecurityPolicy' && set === usual;
    https.push([name, upgraded ? `${set};upgrade-insecure-requests` : set]);
  }
  return (handler) => (req) =>
    after(handler(req) as Returns | Promise<Returns>, (result) =>
      withHeaders(result, (headers) => addMissing(headers, req.scheme === 'https' ? https : http)),
    );
}

function addMissing(headers: HeaderBag, lines: readonly (readonly [string, string])[]): void {
  for (const [name, value] of lines) if (!headers.has(name.toLowerCase())) headers.append(name, value);
}
