/**
 * Memory for what is sent of a body, used again and again: fresh memory has to be cleared by the system, piece by piece as it is written
 * to, and waits for the garbage collectors of two threads when it has been sent. On the thread of the handler.
 */
import { BODY_CHUNK } from '../protocol.js';

/** Chunks kept for the next body: 1 MiB a thread. */
const KEPT = 16;

const spare: ArrayBuffer[] = [];

/** Memory of {@link BODY_CHUNK} bytes, with anything in it. */
export function chunkMemory(): Uint8Array<ArrayBuffer> {
  const buffer = spare.pop();
  return buffer === undefined ? Buffer.allocUnsafeSlow(BODY_CHUNK) : new Uint8Array(buffer);
}

/** These have been sent, and are nobody's. */
export function useAgain(buffers: readonly ArrayBuffer[]): void {
  for (const buffer of buffers) if (spare.length < KEPT) spare.push(buffer);
}

/** A copy that may be given away, in a buffer of its own. */
export function copyToSend(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  if (bytes.byteLength !== BODY_CHUNK) return new Uint8Array(bytes);
  const copy = chunkMemory();
  copy.set(bytes);
  return copy;
}
