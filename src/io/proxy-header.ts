/** Reads the header of the PROXY protocol, versions 1 and 2. https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt */
import { isIPv4, isIPv6 } from 'node:net';

/** For whom a connection is made. */
export interface Proxied {
  /** Their address; undefined: the proxy speaks for itself, or does not say. */
  readonly address: string | undefined;
  /** They speak TLS with the proxy. Version 2 only, where the proxy says so. */
  readonly secure: boolean;
}

export type HeaderRead =
  | { readonly kind: 'header'; readonly proxied: Proxied; readonly length: number }
  /** It may still become one. */
  | { readonly kind: 'more' }
  | { readonly kind: 'none' }
  /** It begins like one. */
  | { readonly kind: 'bad' };

const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const V1 = Buffer.from('PROXY ', 'latin1');
/** Section 2.1: with its line end a line is at most 107 characters. */
const V1_AT_MOST = 107;
/** Bytes behind the first 16 of version 2. Addresses take 216 at most, what proxies add some hundred. */
const V2_AT_MOST = 4096;

const MORE: HeaderRead = { kind: 'more' };
const BAD: HeaderRead = { kind: 'bad' };
const UNKNOWN: Proxied = { address: undefined, secure: false };

/** Look at the first bytes of a connection. */
export function readProxyHeader(bytes: Buffer): HeaderRead {
  if (begins(bytes, SIGNATURE)) return readV2(bytes);
  if (begins(bytes, V1)) return readV1(bytes);
  return { kind: 'none' };
}

/** As far as they go. */
const begins = (bytes: Buffer, mark: Buffer): boolean => {
  const length = Math.min(bytes.length, mark.length);
  return bytes.subarray(0, length).equals(mark.subarray(0, length));
};

/** `PROXY TCP4 client server port port`, or `PROXY UNKNOWN` and anything. */
function readV1(bytes: Buffer): HeaderRead {
  const end = bytes.subarray(0, V1_AT_MOST).indexOf('\r\n');
  if (end === -1) return bytes.length >= V1_AT_MOST ? BAD : MORE;
  const [, family, client = '', server = '', ...ports] = bytes.toString('latin1', 0, end).split(' ');
  const length = end + 2;
  if (family === 'UNKNOWN') return { kind: 'header', proxied: UNKNOWN, length };
  const isAddress = family === 'TCP4' ? isIPv4 : family === 'TCP6' ? isIPv6 : () => false;
  const isPort = (port: string): boolean => /^\d{1,5}$/.test(port) && Number(port) < 65_536;
  if (!isAddress(client) || !isAddress(server) || ports.length !== 2 || !ports.every(isPort)) return BAD;
  return { kind: 'header', proxied: { address: client, secure: false }, length };
}

function readV2(bytes: Buffer): HeaderRead {
  if (bytes.length < 16) return MORE;
  const command = bytes.readUInt8(12);
  const family = bytes.readUInt8(13) >> 4;
  const size = bytes.readUInt16BE(14);
  // Version 2, and one of its two commands.
  if (command !== 0x20 && command !== 0x21) return BAD;
  if (size > V2_AT_MOST) return BAD;
  const length = 16 + size;
  if (bytes.length < length) return MORE;
  const rest = bytes.subarray(16, length);
  // LOCAL: a look whether we are alive. Whatever follows is to be ignored.
  if (command === 0x20) return { kind: 'header', proxied: UNKNOWN, length };
  const taken = ADDRESS_BYTES[family] ?? 0;
  if (size < taken) return BAD;
  const address = family === 1 ? ipv4(rest) : family === 2 ? ipv6(rest) : undefined;
  return { kind: 'header', proxied: { address, secure: saysTls(rest.subarray(taken)) }, length };
}

/** Of both ends and their ports, by family: IPv4, IPv6, Unix. */
const ADDRESS_BYTES: Record<number, number> = { 1: 12, 2: 36, 3: 216 };

const ipv4 = (bytes: Buffer): string => bytes.subarray(0, 4).join('.');

/** In the form of RFC 5952. */
function ipv6(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16));
  // URL knows how to write it short.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}

const PP2_TYPE_SSL = 0x20;
const PP2_CLIENT_SSL = 0x01;

/** Section 2.2: type, length, value, one behind the other. */
function saysTls(extensions: Buffer): boolean {
  for (let at = 0; at + 3 <= extensions.length; ) {
    const length = extensions.readUInt16BE(at + 1);
    if (extensions[at] === PP2_TYPE_SSL && length > 0)
      return ((extensions[at + 3] ?? 0) & PP2_CLIENT_SSL) !== 0;
    at += 3 + length;
  }
  return false;
}
