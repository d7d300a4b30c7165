/** Certificates for tests, made by openssl when they are first asked for. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

let made: string | undefined;

/** Where they lie, until the process ends. */
export function folder(): string {
  if (made === undefined) {
    const path = mkdtempSync(join(tmpdir(), 'offloop-tls-'));
    process.once('exit', () => rmSync(path, { recursive: true, force: true }));
    made = path;
  }
  return made;
}

export function openssl(...args: string[]): void {
  execFileSync('openssl', args, { cwd: folder(), stdio: ['ignore', 'ignore', 'pipe'] });
}

export interface Pair {
  /** Names of the files. */
  readonly cert: string;
  readonly key: string;
}

/** A certificate that vouches for itself, for a name; `kind` as openssl's `-newkey` has it. */
export function certificate(name: string, kind: readonly string[] = EC): Pair {
  const file = `${name.replaceAll('*', '_')}-${kind.join('-').replaceAll(/[^\w-]/g, '_')}`;
  const [cert, key] = [join(folder(), `${file}.crt`), join(folder(), `${file}.key`)];
  if (!existsSync(cert)) {
    const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
    openssl(
      'req',
      '-x509',
      '-newkey',
      ...kind,
      '-nodes',
      '-keyout',
      key,
      '-out',
      cert,
      '-days',
      '30',
      ...subject,
    );
  }
  return { cert, key };
}
const EC = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

/** A certificate that another one vouches for. */
export function issued(name: string, by: Pair): Pair {
  const own = certificate(name);
  const cert = join(folder(), `${name}-issued.crt`);
  const request = join(folder(), `${name}.csr`);
  openssl('req', '-new', '-key', own.key, '-subj', `/CN=${name}`, '-out', request);
  openssl(
    'x509',
    '-req',
    '-in',
    request,
    '-CA',
    by.cert,
    '-CAkey',
    by.key,
    '-CAcreateserial',
    '-days',
    '30',
    '-out',
    cert,
  );
  return { cert, key: own.key };
}

/** A certificate that was valid until some days ago. */
export function expired(name: string): Pair {
  const { key } = certificate(name);
  const [request, cert] = [join(folder(), `${name}.csr`), join(folder(), `${name}-expired.crt`)];
  openssl('req', '-new', '-key', key, '-subj', `/CN=${name}`, '-out', request);
  openssl('x509', '-req', '-in', request, '-signkey', key, '-days', '-1', '-out', cert);
  return { cert, key };
}

/** The same key, encrypted. */
export function encrypted(key: string, passphrase: string, ...how: string[]): string {
  const file = join(folder(), `encrypted-${how.join('')}-${passphrase}.key`);
  openssl('pkcs8', '-topk8', ...how, '-in', key, '-passout', `pass:${passphrase}`, '-out', file);
  return file;
}
