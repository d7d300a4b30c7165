/** Reads certificates and keys, and finds what is wrong with them: the engine only says that it cannot. */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createSecureContext } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { OffloopError } from '../errors.js';
import type { TlsFile, TlsIdentity, TlsOptions } from '../tls-options.js';
import type { EngineTls, TlsFiles } from './engine.js';

/** PEM that has been read. */
interface Read {
  /** As messages name it. */
  readonly name: string;
  readonly bytes: Buffer;
  /** The file it came from; '' if it was given as it is. */
  readonly path: string;
}

interface Identity {
  readonly cert: Read;
  readonly key: Read;
  readonly passphrase: string | undefined;
}

/** Certificates that have been read and found good. */
export class Certificates implements TlsFiles {
  private readonly main: Identity;
  private readonly named: readonly (readonly [name: string, identity: Identity])[];
  private readonly ca: Read | undefined;
  private readonly minVersion: 'TLSv1.2' | 'TLSv1.3';

  /** `warn` is told of those that are good but for their dates. @throws OFFLOOP_BAD_TLS */
  constructor(
    { sni = {}, ca, minVersion = 'TLSv1.2', ...main }: TlsOptions,
    warn: (message: string) => void,
  ) {
    this.minVersion = minVersion;
    this.main = readIdentity('tls', main, warn);
    this.named = Object.entries(sni).map(([name, one]) => [
      name.toLowerCase(),
      readIdentity(`tls.sni['${name}']`, one, warn),
    ]);
    this.ca = ca === undefined ? undefined : readPem('tls.ca', ca);
    if (this.ca !== undefined) {
      certificateOf(this.ca);
      // All of them, and not only the first.
      attempt(() => createSecureContext({ ca: this.ca?.bytes }), `${this.ca.name} holds no certificates`);
    }
  }

  /**
   * Hand them to `use` as files, which is what the engine takes. What was given as PEM is there, for this user only, as long as `use` runs;
   * in memory where the system has a place for that.
   */
  asFiles<T>(use: (tls: EngineTls) => T): T {
    const { main, named, ca, minVersion } = this;
    let folder: string | undefined;
    let count = 0;
    const fileOf = ({ path, bytes }: Read): string => {
      if (path !== '') return path;
      folder ??= mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'offloop-pem-'));
      const file = join(folder, `${count++}.pem`);
      writeFileSync(file, bytes, { mode: 0o600 });
      return file;
    };
    const files = ({ cert, key, passphrase }: Identity): EngineTls['main'] => ({
      cert: fileOf(cert),
      key: fileOf(key),
      passphrase,
    });
    try {
      return use({
        main: files(main),
        named: named.map(([name, identity]) => ({ name, ...files(identity) })),
        ca: ca && fileOf(ca),
        minVersion,
      });
    } finally {
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    }
  }
}

function readIdentity(path: string, given: TlsIdentity, warn: (message: string) => void): Identity {
  const cert = readPem(`${path}.cert`, given.cert);
  const key = readPem(`${path}.key`, given.key);
  const { passphrase } = given;
  const certificate = certificateOf(cert);
  const privateKey = privateKeyOf(key, passphrase, `${path}.passphrase`);
  if (!certificate.checkPrivateKey(privateKey)) {
    throw bad(
      `${key.name} does not belong to ${cert.name} (${subjectOf(certificate)}): give the key the certificate was issued for, and in the file of the certificate the server's own first`,
    );
  }
  attempt(
    () => createSecureContext({ cert: cert.bytes, key: key.bytes, passphrase }),
    `${cert.name} and ${key.name} cannot be used`,
  );
  const now = Date.now();
  if (Date.parse(certificate.validTo) < now)
    warn(
      `${cert.name} (${subjectOf(certificate)}) expired on ${certificate.validTo}: clients will refuse it`,
    );
  else if (Date.parse(certificate.validFrom) > now)
    warn(
      `${cert.name} (${subjectOf(certificate)}) is not valid before ${certificate.validFrom}: clients will refuse it`,
    );
  return { cert, key, passphrase };
}

function readPem(name: string, file: TlsFile): Read {
  if (file instanceof Uint8Array) return { name, bytes: Buffer.from(file), path: '' };
  if (typeof file === 'string' && file.includes('-----BEGIN '))
    return { name, bytes: Buffer.from(file), path: '' };
  const path = typeof file === 'string' && !file.startsWith('file:') ? resolve(file) : fileURLToPath(file);
  try {
    return { name: `${name} (${path})`, bytes: readFileSync(path), path };
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unknown error';
    const advice = ADVICE[code] ?? 'check the file';
    throw bad(`${name}: cannot read ${path}: ${code}; ${advice}`, cause);
  }
}

const ADVICE: Record<string, string> = {
  ENOENT:
    'there is no such file: check the path, which is taken from the working directory if it is relative',
  EACCES: 'this user may not read it: give it the right to, or have the file copied where it may',
  EISDIR: 'it is a folder: give the file in it',
};

function certificateOf({ name, bytes }: Read): X509Certificate {
  return attempt(() => {
    if (!bytes.includes('-----BEGIN ')) throw new Error('no PEM');
    return new X509Certificate(bytes);
  }, `${name} is no certificate in PEM form (-----BEGIN CERTIFICATE-----)`);
}

function privateKeyOf(key: Read, passphrase: string | undefined, option: string): KeyObject {
  try {
    return createPrivateKey({ key: key.bytes, ...(passphrase !== undefined && { passphrase }) });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const encrypted = /ENCRYPTED/.test(key.bytes.toString('latin1'));
    if (code === 'ERR_MISSING_PASSPHRASE' || (encrypted && passphrase === undefined))
      throw bad(`${key.name} is encrypted: give the passphrase in ${option}`, cause);
    if (encrypted)
      throw bad(`${option} does not open ${key.name}: give the one it was encrypted with`, cause);
    throw bad(`${key.name} is no private key in PEM form (-----BEGIN PRIVATE KEY-----)`, cause);
  }
}

const subjectOf = ({ subject, subjectAltName }: X509Certificate): string =>
  (subjectAltName ?? subject ?? 'no name').replaceAll('\n', ', ');

function attempt<T>(look: () => T, problem: string): T {
  try {
    return look();
  } catch (cause) {
    throw bad(`${problem}: ${(cause as Error).message}`, cause);
  }
}

const bad = (message: string, cause?: unknown): OffloopError =>
  new OffloopError('OFFLOOP_BAD_TLS', message, { cause });
