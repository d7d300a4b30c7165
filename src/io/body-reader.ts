import { SHARE_FROM } from '../protocol.js';
import type { EngineResponse } from './engine.js';

/**
 * Collects a request body. `done` gets the whole of it; `tooLarge` is called once, as soon as more than `maxBody` bytes
 * have come, and what follows is thrown away. Both are called from within the engine's callback.
 */
export function collectBody(
  res: EngineResponse,
  maxBody: number,
  done: (body: Uint8Array | null) => void,
  tooLarge: (size: number) => void,
): void {
  let chunks: Uint8Array[] | undefined = [];
  let size = 0;
  res.onData((chunk, isLast) => {
    if (chunks === undefined) return;
    size += chunk.byteLength;
    if (size > maxBody) {
      chunks = undefined;
      tooLarge(size);
      return;
    }
    if (isLast && chunks.length === 0) {
      chunks = undefined;
      done(size === 0 ? null : join([new Uint8Array(chunk)], size));
      return;
    }
    // The engine takes its memory back when this callback returns.
    if (chunk.byteLength > 0) chunks.push(new Uint8Array(chunk.slice(0)));
    if (!isLast) return;
    const all = chunks;
    chunks = undefined;
    done(size === 0 ? null : join(all, size));
  });
}

/** In one buffer of exactly that size; large ones in shared memory, see {@link SHARE_FROM}. */
function join(chunks: readonly Uint8Array[], size: number): Uint8Array {
  const body = new Uint8Array(size < SHARE_FROM ? new ArrayBuffer(size) : new SharedArrayBuffer(size));
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.byteLength;
  }
  return body;
}
