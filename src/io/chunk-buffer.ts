import { copyInto, copyOf } from '../bytes.js';

/** Chunks from this size on are kept as they are. */
const LARGE = 16 * 1024;
/** Smaller ones are put together into pieces of at least and at most so many bytes. */
const PIECE_FROM = 4 * 1024;
const PIECE_TO = 64 * 1024;

/**
 * Bytes out of the engine's memory, in order, each copied once. Small chunks share a piece: a client may send its body byte by
 * byte, and a buffer for each byte would take a hundred times the memory of what it holds.
 */
export class ChunkBuffer {
  /** Bytes in it. */
  bytes = 0;

  private chunks: Uint8Array<ArrayBuffer>[] = [];
  private piece: Uint8Array<ArrayBuffer> | undefined;
  private used = 0;

  push(chunk: ArrayBuffer): void {
    const { byteLength } = chunk;
    if (byteLength === 0) return;
    this.bytes += byteLength;
    if (byteLength >= LARGE) {
      this.closePiece();
      this.chunks.push(copyOf(chunk));
      return;
    }
    if (this.piece !== undefined && this.used + byteLength > this.piece.byteLength) this.closePiece();
    this.piece ??= new Uint8Array(Math.min(PIECE_TO, Math.max(PIECE_FROM, 2 * this.bytes)));
    this.piece.set(new Uint8Array(chunk), this.used);
    this.used += byteLength;
  }

  /** The first of it, in a buffer of exactly its size. */
  shift(): Uint8Array<ArrayBuffer> | undefined {
    if (this.chunks.length === 0) this.closePiece();
    const chunk = this.chunks.shift();
    if (chunk !== undefined) this.bytes -= chunk.byteLength;
    return chunk;
  }

  /** Move all of it to the beginning of `target`. */
  moveTo(target: Uint8Array): void {
    let at = 0;
    for (let chunk = this.shift(); chunk !== undefined; chunk = this.shift()) {
      copyInto(target, chunk, at);
      at += chunk.byteLength;
    }
  }

  clear(): void {
    this.chunks = [];
    this.piece = undefined;
    this.used = 0;
    this.bytes = 0;
  }

  private closePiece(): void {
    const { piece, used } = this;
    if (piece === undefined) return;
    this.chunks.push(used === piece.byteLength ? piece : piece.slice(0, used));
    this.piece = undefined;
    this.used = 0;
  }
}
