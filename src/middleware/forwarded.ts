/** What proxies say of the client they speak for: X-Forwarded-*, or Forwarded (RFC 7239). */
import { BlockList, isIP, isIPv6 } from 'node:net';
import { type Rule, refuse } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { splitHost } from '../handlers/request.js';
import type { HttpRequest } from '../handlers/types.js';
import { peer } from './peers.js';
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

/** More proxies than this in a row are not looked at. */
const MAX_HOPS = 32;

const NAMED: Record<string, readonly string[]> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  linklocal: ['169.254.0.0/16', 'fe80::/10'],
  uniquelocal: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'],
};

const RULES: Record<keyof ForwardedOptions, Rule> = {
  trust: {
    allowed: `a whole number of proxies from 1 to ${MAX_HOPS}, or a non-empty array of addresses, CIDR ranges, ${[...Object.keys(NAMED), 'unix'].map((name) => `'${name}'`).join(', ')}`,
    ok: (v) =>
      (typeof v === 'number' && Number.isInteger(v) && v >= 1 && v <= MAX_HOPS) ||
      (Array.isArray(v) && v.length > 0 && v.every((one) => typeof one === 'string' && isRange(one))),
  },
  header: oneOf('x-forwarded', 'forwarded'),
};

/** Whether who has this address is a proxy to believe. `hop` is 0 for the peer, 1 for the one before it, and so on. */
type Trust = (address: () => string, hop: number) => boolean;

/** What the proxies have said, outermost first. */
interface Said {
  readonly addresses: readonly string[];
  readonly schemes: readonly string[];
  readonly hosts: readonly string[];
  readonly ports: readonly string[];
}

/**
 * Shows the handler the request as the client sent it to the outermost proxy that is believed: `remoteAddr`, `scheme`,
 * `serverName`, `serverPort`, and the Host header. @throws OFFLOOP_BAD_OPTION, OFFLOOP_MISSING_PACKAGE.
 */
export function forwarded(options: ForwardedOptions): Middleware {
  checkOptions('forwarded', options, RULES);
  const { trust, header = 'x-forwarded' } = options;
  if (trust === undefined) refuse('forwarded', 'trust', trust, RULES.trust.allowed);
  const trusts = trustOf(trust);
  const read = header === 'forwarded' ? forwardedReader() : readXForwarded;
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

const HOST = /^(?:[\w.-]{1,255}|\[[\da-f:.]{2,64}\])(?::\d{1,5})?$/i;

/** The client, as far as the proxies that are believed know it. */
class Client {
  readonly address: string | undefined;
  readonly scheme: 'http' | 'https' | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly host: { readonly name: string; readonly port: number };

  constructor(req: HttpRequest, said: Said, trusts: Trust) {
    const hops = this.walk(req, said, trusts);
    this.address = hops.address;
    const scheme = nth(said.schemes, hops.count)?.toLowerCase();
    this.scheme = scheme === 'http' || scheme === 'https' ? scheme : undefined;
    const host = nth(said.hosts, hops.count);
    const known = host !== undefined && HOST.test(host);
    this.headers = known ? withHost(req.headers, host) : req.headers;
    const { name, port } = splitHost(this.headers['host'] ?? '', this.scheme ?? req.scheme);
    const given = Number(nth(said.ports, hops.count) ?? Number.NaN);
    this.host = { name, port: Number.isInteger(given) && given > 0 && given < 65536 ? given : port };
  }

  /** From the peer outwards, as long as the one who speaks is believed: who is behind them, and how many they are. */
  private walk(
    req: HttpRequest,
    { addresses }: Said,
    trusts: Trust,
  ): { readonly address: string | undefined; readonly count: number } {
    if (!trusts(() => req.remoteAddr, 0)) return { address: undefined, count: 0 };
    let address: string | undefined;
    let count = 0;
    while (count < addresses.length && count < MAX_HOPS) {
      if (count > 0 && !trusts(() => address as string, count)) break;
      const next = addressOf(addresses[addresses.length - 1 - count] as string);
      count++;
      // 'unknown', '_hidden' or nonsense: nobody further out can be known either.
      if (next === undefined) break;
      address = next;
    }
    return { address, count: Math.max(count, 1) };
  }
}

/** The element that the outermost of `count` proxies has added. One that overwrites instead of adding leaves fewer. */
function nth(values: readonly string[], count: number): string | undefined {
  return count === 0 ? undefined : values[Math.max(0, values.length - count)];
}

function withHost(headers: HttpRequest['headers'], host: string): Record<string, string> {
  const changed = Object.assign(Object.create(null), headers) as Record<string, string>;
  changed['host'] = host;
  return changed;
}

/** An IP address without port and brackets; undefined for anything else. */
function addressOf(text: string): string | undefined {
  const bare =
    /^\[([^\]]*)\](?::\d+)?$/.exec(text)?.[1] ??
    (/^[\d.]+:\d+$/.test(text) ? text.slice(0, text.indexOf(':')) : text);
  return isIP(bare) === 0 ? undefined : bare;
}

const list = (value: string | undefined): string[] =>
  value === undefined ? [] : value.split(',').map((one) => one.trim());

function readXForwarded({ headers }: HttpRequest): Said {
  return {
    addresses: list(headers['x-forwarded-for']),
    schemes: list(headers['x-forwarded-proto']),
    hosts: list(headers['x-forwarded-host']),
    ports: list(headers['x-forwarded-port']),
  };
}

const NOTHING: Said = { addresses: [], schemes: [], hosts: [], ports: [] };

function forwardedReader(): (req: HttpRequest) => Said {
  const parse = peer<(header: string) => Record<string, string>[]>(
    'forwarded-parse',
    "forwarded({ header: 'forwarded' })",
  );
  return ({ headers }) => {
    const header = headers['forwarded'];
    if (header === undefined) return NOTHING;
    let elements: Record<string, string>[];
    try {
      elements = parse(header);
    } catch {
      // Not even the proxy can be understood: nothing is known.
      return NOTHING;
    }
    // One for each element, so that they stay in step.
    const all = (name: string): string[] =>
      elements.map((element) => (Object.hasOwn(element, name) ? String(element[name]) : ''));
    return { addresses: all('for'), schemes: all('proto'), hosts: all('host'), ports: [] };
  };
}

/** Address and length of the prefix; a whole address without one. */
function parseRange(text: string): readonly [address: string, bits: number] | undefined {
  const [address = '', length, ...more] = text.split('/');
  const family = isIP(address);
  const most = family === 6 ? 128 : 32;
  const bits = length === undefined ? most : Number(length);
  const good =
    family !== 0 && more.length === 0 && (length === undefined || /^\d{1,3}$/.test(length)) && bits <= most;
  return good ? [address, bits] : undefined;
}

function isRange(text: string): boolean {
  return text === 'unix' || Object.hasOwn(NAMED, text) || parseRange(text) !== undefined;
}

function trustOf(trust: number | readonly string[]): Trust {
  if (typeof trust === 'number') return (_, hop) => hop < trust;
  const known = new BlockList();
  for (const range of trust.flatMap((one) => NAMED[one] ?? one)) {
    const parsed = parseRange(range);
    if (parsed !== undefined) known.addSubnet(...parsed, isIPv6(parsed[0]) ? 'ipv6' : 'ipv4');
  }
  const unix = trust.includes('unix');
  return (address) => {
    const text = address();
    // A peer without an address has come over a Unix domain socket.
    return text === '' ? unix : known.check(text, isIPv6(text) ? 'ipv6' : 'ipv4');
  };
}
