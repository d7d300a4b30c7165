/** Request bodies on their way to one worker, seen from the I/O thread. */
import type { BodyProblem, BodySink, BodySource } from '../protocol.js';
import type { Worker } from './worker.js';

/**
 * The bodies that a worker reads. Each is known by the number of its invocation, also when that is off the books already: a handler may
 * read on behind its channel.
 */
export class IncomingBodies {
  private readonly open = new Map<number, LaneSink>();

  constructor(private readonly worker: Worker) {}

  read(seq: number, bytes: number, waiting: boolean): void {
    const sink = this.open.get(seq);
    if (sink !== undefined) sink.source.pull(sink, bytes, waiting);
    // Answered by now, or given up in its name.
    else if (!this.begin(seq, bytes, waiting))
      this.worker.send({ kind: 'body-broken', seq, problem: { kind: 'answered' } });
  }

  unread(seq: number): void {
    const source = this.open.get(seq)?.source ?? this.worker.find(seq)?.invocation.incoming;
    this.open.delete(seq);
    source?.cancel();
  }

  /** The invocation leaves the books, and its body may still be read. */
  keep(seq: number): void {
    if (!this.open.has(seq)) this.begin(seq, 0, false);
  }

  private begin(seq: number, bytes: number, waiting: boolean): boolean {
    const source = this.worker.find(seq)?.invocation.incoming;
    if (source === undefined || source === null) return false;
    const sink = new LaneSink(this.worker, seq, source, this.open);
    this.open.set(seq, sink);
    // From here on it hears of the end, whatever becomes of it.
    source.pull(sink, bytes, waiting);
    return true;
  }
}

class LaneSink implements BodySink {
  constructor(
    private readonly worker: Worker,
    private readonly seq: number,
    readonly source: BodySource,
    private readonly open: Map<number, LaneSink>,
  ) {}

  data(chunks: readonly Uint8Array<ArrayBuffer>[], last: boolean): void {
    const { seq } = this;
    if (last) this.open.delete(seq);
    this.worker.send(
      { kind: 'body', seq, chunks, last },
      chunks.map((chunk) => chunk.buffer),
    );
  }
  broken(problem: BodyProblem): void {
    const { seq } = this;
    this.open.delete(seq);
    this.worker.send({ kind: 'body-broken', seq, problem });
  }
}
