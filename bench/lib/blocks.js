import { createHash } from 'node:crypto';

/** A body is made of blocks of so many bytes. */
const BLOCK = 64 * 1024;

const block = Buffer.from(Uint8Array.from({ length: BLOCK }, (_, i) => (i * 7) ^ (i >> 8)));

/**
 * The same block over and over: making the bytes costs nothing, so all that is measured is sending them.
 * @param {number} bytes
 */
export function* blocks(bytes) {
  for (let left = bytes; left > 0; left -= BLOCK) yield left < BLOCK ? block.subarray(0, left) : block;
}

/**
 * SHA-256 of such a body.
 * @param {number} bytes
 */
export function hashOf(bytes) {
  const hash = createHash('sha256');
  for (const part of blocks(bytes)) hash.update(part);
  return hash.digest('hex');
}
