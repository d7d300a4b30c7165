import { createHash } from 'node:crypto';

/**
 * How many bytes a body has, or their SHA-256: read chunk by chunk, and none of it kept.
 * @param {AsyncIterable<Uint8Array>} body
 * @param {boolean} hashed
 */
export async function readBody(body, hashed) {
  const hash = hashed ? createHash('sha256') : undefined;
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    hash?.update(chunk);
  }
  return hash?.digest('hex') ?? String(bytes);
}
