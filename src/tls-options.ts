/** The option `tls`: what it may hold. What the files hold is looked at in io/tls.ts. */
import { OffloopTypeError } from './errors.js';

/** PEM, as text or bytes, or the file that holds it: a path, or a `file:` URL. */
export type TlsFile = string | URL | Uint8Array;

/** A certificate with its key. */
export interface TlsIdentity {
  /** The server's certificate, and behind it those that lead to the authority. */
  cert: TlsFile;
  /** Its private key: RSA, ECDSA (P-256, P-384, P-521) or Ed25519. */
  key: TlsFile;
  /** What the key is encrypted with. */
  passphrase?: string;
}

export interface TlsOptions extends TlsIdentity {
  /**
   * Authorities of client certificates. A client that shows a certificate of another one is refused; one that shows none is let in:
   * the engine cannot insist. Default: clients are not asked.
   */
  ca?: TlsFile;
  /** The oldest version of TLS that is spoken. Default 'TLSv1.2'. */
  minVersion?: 'TLSv1.2' | 'TLSv1.3';
  /**
   * Further certificates, by the name the client asks for: 'example.com', or '*.example.com' for one label. Who asks for another name, or
   * for none, gets the certificate above.
   */
  sni?: Record<string, TlsIdentity>;
}

// The engine's tree of names is ten labels deep.
const SERVER_NAME = /^(?:\*\.)?[a-z\d_-]{1,63}(?:\.[a-z\d_-]{1,63}){0,8}$/i;
const IDENTITY = ['cert', 'key', 'passphrase'];
const FILE = 'the path or file: URL of a PEM file, or PEM as text or bytes';

/** Throws for whatever is not allowed. The message names it, and shows nothing of its value, which may be secret. */
export function checkTls(where: string, tls: unknown): asserts tls is TlsOptions {
  const options = objectOf(where, 'tls', tls, [...IDENTITY, 'ca', 'minVersion', 'sni']);
  checkIdentity(where, 'tls', options);
  if (options['ca'] !== undefined) checkFile(where, 'tls.ca', options['ca']);
  const { minVersion, sni } = options;
  if (minVersion !== undefined && minVersion !== 'TLSv1.2' && minVersion !== 'TLSv1.3')
    refuse(where, 'tls.minVersion', minVersion, "'TLSv1.2' or 'TLSv1.3'");
  if (sni === undefined) return;
  const seen = new Set<string>();
  for (const [name, identity] of Object.entries(objectOf(where, 'tls.sni', sni))) {
    const path = `tls.sni['${name}']`;
    if (!SERVER_NAME.test(name) || seen.has(name.toLowerCase()))
      throw bad(
        `${where}: ${path} is no name, or is there twice; allowed: host names of up to ten labels such as 'example.com' and '*.example.com'.`,
      );
    seen.add(name.toLowerCase());
    checkIdentity(where, path, objectOf(where, path, identity, IDENTITY));
  }
}

function checkIdentity(where: string, path: string, identity: Record<string, unknown>): void {
  checkFile(where, `${path}.cert`, identity['cert']);
  checkFile(where, `${path}.key`, identity['key']);
  const { passphrase } = identity;
  if (passphrase !== undefined && (typeof passphrase !== 'string' || passphrase === ''))
    refuse(where, `${path}.passphrase`, passphrase, 'a string of at least one character');
}

function checkFile(where: string, path: string, file: unknown): void {
  const good =
    file instanceof URL
      ? file.protocol === 'file:'
      : file instanceof Uint8Array || (typeof file === 'string' && file !== '');
  if (!good) refuse(where, path, file, FILE);
}

function objectOf(
  where: string,
  path: string,
  value: unknown,
  known?: readonly string[],
): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    const allowed = path === 'tls.sni' ? 'an object of { cert, key } by name' : 'an object with cert and key';
    refuse(where, path, value, allowed);
  }
  const object = value as Record<string, unknown>;
  const odd = known && Object.keys(object).find((name) => !known.includes(name));
  if (odd !== undefined)
    throw bad(`${where}: there is no option ${path}.${odd}; allowed: ${known?.join(', ')}.`);
  return object;
}

function refuse(where: string, path: string, value: unknown, allowed: string): never {
  const type = value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`;
  const what =
    value === undefined ? 'is missing' : `is ${type === 'a object' ? 'an object' : type} that will not do`;
  throw bad(`${where}: option ${path} ${what}; allowed: ${allowed}.`);
}

const bad = (message: string): OffloopTypeError => new OffloopTypeError('OFFLOOP_BAD_OPTION', message);
