/** Where log lines go. Never waits and never throws: what does not fit is dropped and counted. */
import { openSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { peer } from './peers.js';

export interface LogSink {
  write(line: string): void;
  /** What there is to say about lines that were lost, at most every ten seconds. */
  complaint(): { readonly message: string; readonly error: unknown } | undefined;
}

/** The part of sonic-boom that is used. */
interface SonicBoom {
  write(text: string): boolean;
  flushSync(): void;
  on(event: 'drop' | 'error', listener: (detail: unknown) => void): void;
}
type SonicBoomClass = new (options: Record<string, unknown>) => SonicBoom;

const COMPLAIN_EVERY = 10_000;

abstract class CountingSink implements LogSink {
  private dropped = 0;
  private error: unknown;
  private complained = Number.NEGATIVE_INFINITY;

  abstract write(line: string): void;

  protected drop(): void {
    this.dropped++;
  }
  protected failed(error: unknown): void {
    this.dropped++;
    this.error = error;
  }

  complaint(): { readonly message: string; readonly error: unknown } | undefined {
    if (this.dropped === 0) return undefined;
    const now = performance.now();
    if (now - this.complained < COMPLAIN_EVERY) return undefined;
    this.complained = now;
    const { dropped, error } = this;
    this.dropped = 0;
    this.error = undefined;
    return { message: `accessLog: ${dropped} lines were lost`, error };
  }
}

const files = new Set<SonicBoom>();
// Of a thread that ends in an orderly way, the last lines are written too.
process.once('exit', () => {
  for (const file of files) {
    try {
      file.flushSync();
    } catch {}
  }
});

/** A file, written by Node's own threads: neither this thread nor, for a worker, the I/O thread waits for it. */
class FileSink extends CountingSink {
  private readonly file: SonicBoom;

  constructor(to: number | string, maxWaiting: number) {
    super();
    const loaded = peer<SonicBoomClass & { SonicBoom?: SonicBoomClass }>('sonic-boom', 'accessLog to a file');
    const Class = loaded.SonicBoom ?? loaded;
    // Opened now: a log that cannot be written fails the start, not the first request.
    this.file = new Class({
      fd: typeof to === 'number' ? to : openSync(to, 'a'),
      sync: false,
      maxLength: maxWaiting,
    });
    this.file.on('drop', () => this.drop());
    this.file.on('error', (error) => this.failed(error));
    files.add(this.file);
  }

  write(line: string): void {
    this.file.write(line);
  }
}

class StreamSink extends CountingSink {
  constructor(
    private readonly stream: Writable,
    private readonly maxWaiting: number,
  ) {
    super();
  }

  write(line: string): void {
    const { stream } = this;
    if (stream.destroyed || stream.writableEnded || stream.writableLength + line.length > this.maxWaiting)
      this.drop();
    else stream.write(line);
  }
}

export function sinkTo(to: number | string | Writable, maxWaiting: number): LogSink {
  return typeof to === 'object' ? new StreamSink(to, maxWaiting) : new FileSink(to, maxWaiting);
}
