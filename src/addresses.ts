/** Sets of IP addresses, as the options name them: proxies and balancers that are believed. */
import { BlockList, isIP, isIPv6 } from 'node:net';

/** Proxies in front of each other; more are not looked at. */
export const MAX_HOPS = 32;

const NAMED: Record<string, readonly string[]> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  linklocal: ['169.254.0.0/16', 'fe80::/10'],
  uniquelocal: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'],
};

/** For messages: what {@link isRanges} lets through. */
export const RANGES = `a non-empty array of addresses, CIDR ranges, ${[...Object.keys(NAMED), 'unix'].map((name) => `'${name}'`).join(', ')}`;

export const isRanges = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === 'string' && isRange(one));

function isRange(text: string): boolean {
  return text === 'unix' || Object.hasOwn(NAMED, text) || parseRange(text) !== undefined;
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

/** Whether an address is one of them. '' is that of a peer on a Unix domain socket. */
export function within(ranges: readonly string[]): (address: string) => boolean {
  const known = new BlockList();
  for (const range of ranges.flatMap((one) => NAMED[one] ?? one)) {
    const parsed = parseRange(range);
    if (parsed !== undefined) known.addSubnet(...parsed, isIPv6(parsed[0]) ? 'ipv6' : 'ipv4');
  }
  const unix = ranges.includes('unix');
  return (address) =>
    address === '' ? unix : isIP(address) !== 0 && known.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}
