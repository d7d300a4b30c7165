import { SHARE_FROM } from '../protocol.js';
import type { EngineResponse } from './engine.js';

/** Who wants the body. Called from within the engine's callback. */
export interface BodySink {
  /** The whole body; null when it turned out to be empty. */
  bodyComplete(body: Uint8Array | null): void;
  /** More than `maxBody` bytes have come. Called once; what follows is thrown away. */
  bodyTooLarge(size: number): void;
  /** Something of ours threw: it must not get into the engine. */
  rescue(error: unknown): void;
}

/** Collects a request body, up to a bound. The engine allows one listener for a body, so this one stays to the end. */
export class BodyReader {
  /** Whether anything has come since this was last set to false. */
  heard = false;
  /** Whether the last byte has come. */
  ended = false;

  private chunks: Uint8Array[] = [];
  private size = 0;

  /** @param sink null to throw everything away. */
  constructor(
    res: EngineResponse,
    private readonly maxBody: number,
    private sink: BodySink | null,
  ) {
    res.onData((chunk, isLast) => {
      this.heard = true;
      this.ended = isLast;
      const { sink } = this;
      if (sink === null) return;
      try {
        this.take(chunk, isLast, sink);
      } catch (error) {
        this.letGo();
        sink.rescue(error);
      }
    });
  }

  private take(chunk: ArrayBuffer, isLast: boolean, sink: BodySink): void {
    this.size += chunk.byteLength;
    if (this.size > this.maxBody) {
      this.letGo();
      sink.bodyTooLarge(this.size);
      return;
    }
    // The engine takes its memory back when this callback returns; the last chunk is copied before that, by `join`.
    if (chunk.byteLength > 0) this.chunks.push(new Uint8Array(isLast ? chunk : chunk.slice(0)));
    if (!isLast) return;
    const body = this.size === 0 ? null : join(this.chunks, this.size);
    this.letGo();
    sink.bodyComplete(body);
  }

  private letGo(): void {
    this.sink = null;
    this.chunks = [];
  }
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
