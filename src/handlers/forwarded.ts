/** What proxies say of the client they speak for: X-Forwarded-*, or Forwarded (RFC 7239). */
import { isIP } from 'node:net';
import { MAX_HOPS, within } from '../addresses.js';
import { parseForwarded } from './lazy.js';
import type { HttpRequest } from './types.js';

/** Whether who has this address is a proxy to believe. `hop` is 0 for the peer, 1 for the one before it, and so on. */
export type Trust = (address: () => string, hop: number) => boolean;

/** Everybody, so many in front of this server, or those in these ranges. */
export function trustOf(trust: true | number | readonly string[]): Trust {
  if (trust === true) return () => true;
  if (typeof trust === 'number') return (_, hop) => hop < trust;
  const known = within(trust);
  return (address) => known(address());
}

/** What the proxies have said, outermost first. */
export interface Said {
  readonly addresses: readonly string[];
  readonly schemes: readonly string[];
  readonly hosts: readonly string[];
  readonly ports: readonly string[];
}

/** What is known of a request without asking any proxy. */
type Seen = Pick<HttpRequest, 'headers' | 'remoteAddr' | 'scheme'>;

const HOST = /^(?:[\w.-]{1,255}|\[[\da-f:.]{2,64}\])(?::\d{1,5})?$/i;

/** The client, as far as the proxies that are believed know it. */
export class Client {
  readonly address: string | undefined;
  readonly scheme: 'http' | 'https' | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly host: { readonly name: string; readonly port: number };

  constructor(req: Seen, said: Said, trusts: Trust) {
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
    req: Seen,
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

export function readXForwarded({ headers }: Pick<HttpRequest, 'headers'>): Said {
  return {
    addresses: list(headers['x-forwarded-for']),
    schemes: list(headers['x-forwarded-proto']),
    hosts: list(headers['x-forwarded-host']),
    ports: list(headers['x-forwarded-port']),
  };
}

const NOTHING: Said = { addresses: [], schemes: [], hosts: [], ports: [] };

export function readForwarded({ headers }: Pick<HttpRequest, 'headers'>): Said {
  const header = headers['forwarded'];
  if (header === undefined) return NOTHING;
  let elements: Record<string, string>[];
  try {
    elements = parseForwarded(header);
  } catch {
    // Not even the proxy can be understood: nothing is known.
    return NOTHING;
  }
  // One for each element, so that they stay in step.
  const all = (name: string): string[] =>
    elements.map((element) => (Object.hasOwn(element, name) ? String(element[name]) : ''));
  return { addresses: all('for'), schemes: all('proto'), hosts: all('host'), ports: [] };
}

/** Proxies of today send X-Forwarded-For, and let a Forwarded through that the client has made up. So that comes second. */
export function readEither(req: Pick<HttpRequest, 'headers'>): Said {
  const { headers } = req;
  return headers['x-forwarded-for'] === undefined && headers['forwarded'] !== undefined
    ? readForwarded(req)
    : readXForwarded(req);
}

export function splitHost(host: string, scheme: string): { name: string; port: number } {
  const fallback = scheme === 'https' ? 443 : 80;
  const colon = host.lastIndexOf(':');
  if (colon === -1 || host.endsWith(']')) return { name: host, port: fallback };
  return { name: host.slice(0, colon), port: Number(host.slice(colon + 1)) || fallback };
}
