/** Sends an open file, or parts of it. */
import { OffloopError } from '../../errors.js';
import { BODY_CHUNK } from '../../protocol.js';
import type { SizedSource } from '../source.js';
import { chunkMemory } from '../spare.js';
import { type Disk, threaded } from './disk.js';
import type { OpenFile } from './open.js';
import type { Span } from './ranges.js';

const CHUNK = BODY_CHUNK;
/** Bytes of a large file that are read at once: half of what may be on its way, which is as much as is asked for together. */
const READ = 2 * CHUNK;

/** Bytes of a file, and what is written between them. */
export type Piece = Span | Uint8Array;

const lengthOf = (piece: Piece): number =>
  piece instanceof Uint8Array ? piece.byteLength : piece.to - piece.from;

/**
 * Never more than what the file had when it was opened. Of a file that is replaced meanwhile the old content is sent, as the
 * descriptor holds it; one that has become shorter fails, so that nobody takes what there was for all of it.
 */
export class FileSource implements SizedSource {
  readonly length: number;
  private closed = false;
  private reading = false;

  constructor(
    private readonly file: OpenFile,
    private readonly pieces: readonly Piece[],
  ) {
    this.length = pieces.reduce((sum, piece) => sum + lengthOf(piece), 0);
  }

  /** All of it at once, and the file is closed. */
  async all(disk: Disk): Promise<Uint8Array> {
    const all = allocate(this.length);
    try {
      let at = 0;
      for (const piece of this.pieces) {
        if (piece instanceof Uint8Array) all.set(piece, at);
        else await this.fill(all, at, piece, disk);
        at += lengthOf(piece);
      }
      return all;
    } finally {
      this.close();
    }
  }

  /** Always with libuv's threads: a file that takes its time belongs to one of many clients. */
  async *chunks(): AsyncGenerator<Uint8Array> {
    for (const piece of this.pieces) {
      if (piece instanceof Uint8Array) {
        // Whoever gets it may give it away.
        yield new Uint8Array(piece);
        continue;
      }
      // The first chunk alone: many a client wants to see no more.
      for (let { from } = piece, length = CHUNK; from < piece.to; from += length, length = READ) {
        // Closed while the last chunk was on its way: the descriptor may be another file's by now.
        if (this.closed) return;
        for (const chunk of await this.read({ from, to: Math.min(from + length, piece.to) })) {
          yield chunk;
          if (this.closed) return;
        }
      }
    }
  }

  private async read({ from, to }: Span): Promise<Uint8Array[]> {
    const chunks: Uint8Array[] = [];
    for (let left = to - from; left > 0; left -= CHUNK)
      chunks.push(left < CHUNK ? allocate(left) : chunkMemory());
    await this.whileOpen(async () => {
      let done = await threaded.readAll(this.file.fd, chunks, from);
      // Rare: it may give less than there is.
      for (const [i, chunk] of chunks.entries()) {
        const there = Math.min(chunk.byteLength, Math.max(0, done - i * CHUNK));
        if (there === chunk.byteLength) continue;
        await this.fillFrom(
          chunk,
          there,
          { from: from + done, to: from + i * CHUNK + chunk.byteLength },
          threaded,
        );
        done = i * CHUNK + chunk.byteLength;
      }
    });
    return chunks;
  }

  private fill(into: Uint8Array, at: number, span: Span, disk: Disk): Promise<void> {
    return this.whileOpen(() => this.fillFrom(into, at, span, disk));
  }

  private async fillFrom(into: Uint8Array, at: number, { from, to }: Span, disk: Disk): Promise<void> {
    for (let done = 0; done < to - from; ) {
      const count = await disk.read(this.file.fd, into, at + done, to - from - done, from + done);
      if (count === 0) {
        throw new OffloopError(
          'OFFLOOP_FILE_CHANGED',
          `${this.file.path} has become shorter while it was sent: it ends at byte ${from + done}`,
        );
      }
      done += count;
    }
  }

  /** The file is not closed before this is done. */
  private async whileOpen(work: () => Promise<void>): Promise<void> {
    this.reading = true;
    try {
      await work();
    } finally {
      this.reading = false;
      if (this.closed) this.file.close();
    }
  }

  /** A read that is under way comes to its end before. */
  close(): void {
    this.closed = true;
    if (!this.reading) this.file.close();
  }
}

/** In a buffer of its own, which can be transferred; not zeroed, since it is filled to the last byte or thrown away. */
const allocate = (length: number): Uint8Array => Buffer.allocUnsafeSlow(length);
