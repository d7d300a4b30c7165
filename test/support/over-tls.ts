/**
 * Imported first, this makes all servers of a test file speak TLS, and all clients of test/support with them: for stories that have to
 * turn out the same.
 */
import type { TlsOptions } from 'offloop';
import { certificate } from './certificates.js';

export const overTls: { tls: TlsOptions | undefined } = { tls: undefined };

export function switchOn(): void {
  const { cert, key } = certificate('localhost');
  overTls.tls = { cert, key };
  // For fetch and its like, which have no other way to be told here.
  process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0';
}
