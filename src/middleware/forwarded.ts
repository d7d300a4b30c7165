/** A request as the client has sent it, as far as proxies that are believed know it. */
import { isRanges, MAX_HOPS, RANGES } from '../addresses.js';
import { type Rule, refuse } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { Client, readForwarded, readXForwarded, trustOf } from '../handlers/forwarded.js';
import type { HttpRequest } from '../handlers/types.js';
import { lazily } from './request.js';
import { checkOptions, oneOf } from './rules.js';

export interface ForwardedOptions {
  /**
   * Which proxies are believed: how many there are before this server, or their addresses, as IP addresses, CIDR ranges, or
   * 'loopback', 'linklocal', 'uniquelocal', 'unix' (who comes over a Unix domain socket).
   */
  trust: number | readonly string[];
  /** What they send. The other one is not looked at, since they may let a client's through. Default 'x-forwarded'. */
  header?: 'x-forwarded' | 'forwarded';
}

const RULES: Record<keyof ForwardedOptions, Rule> = {
  trust: {
    allowed: `a whole number of proxies from 1 to ${MAX_HOPS}, or ${RANGES}`,
    ok: (v) => (typeof v === 'number' && Number.isInteger(v) && v >= 1 && v <= MAX_HOPS) || isRanges(v),
  },
  header: oneOf('x-forwarded', 'forwarded'),
};

/**
 * Shows the handler the request as the client sent it to the outermost proxy that is believed: `remoteAddr`, `scheme`,
 * `serverName`, `serverPort`, and the Host header. @throws OFFLOOP_BAD_OPTION.
 */
export function forwarded(options: ForwardedOptions): Middleware {
  checkOptions('forwarded', options, RULES);
  const { trust, header = 'x-forwarded' } = options;
  if (trust === undefined) refuse('forwarded', 'trust', trust, RULES.trust.allowed);
  const trusts = trustOf(trust);
  const read = header === 'forwarded' ? readForwarded : readXForwarded;
  // Worked out by who looks: to ask for the address of the peer has its price.
  const seen = lazily<{ readonly req: HttpRequest; client: Client | undefined }, Seen>({
    remoteAddr: (state) => clientOf(state).address ?? state.req.remoteAddr,
    scheme: (state) => clientOf(state).scheme ?? state.req.scheme,
    headers: (state) => clientOf(state).headers,
    serverName: (state) => clientOf(state).host.name,
    serverPort: (state) => clientOf(state).host.port,
  });
  const clientOf = (state: { readonly req: HttpRequest; client: Client | undefined }): Client => {
    state.client ??= new Client(state.req, read(state.req), trusts);
    return state.client;
  };
  return (handler) => (req) => handler(seen(req, { req, client: undefined }));
}

type Seen = Pick<HttpRequest, 'remoteAddr' | 'scheme' | 'headers' | 'serverName' | 'serverPort'>;
