/**
 * Finished answers in shared memory: a ring that one worker writes and the I/O thread reads. An answer is out of the
 * worker's hands as soon as it is written, before the next handler is called: whatever that one does, loop for ever or
 * run out of memory, the finished answer is delivered. The lane only carries the hint that something is there.
 *
 * Belongs to no thread; {@link OutboxWriter} is used in a worker, {@link OutboxReader} on the I/O thread.
 */
import { copyInto, writeText } from './bytes.js';
import type { Payload } from './protocol.js';

/** Bytes of the ring. */
const CAPACITY = 512 * 1024;
/** Larger answers take the lane: they would only push the others out. */
const LARGEST = 128 * 1024;
/** Texts from so many characters on are delivered as the bytes that lie here: the engine would only make bytes of them again. */
const LONG_TEXT = 512;

/** Positions, in bytes since the start; both only ever grow (and wrap at 32 bits, of which the capacity is a divisor). */
const WRITTEN = 0;
const READ = 1;
const POSITIONS = 8;

/**
 * Int32 fields in front of a record: seq, status, flags, micros, kind, number of the head, bytes of the head, bytes of
 * the payload.
 */
const FIELDS = 8;
const FIELD_BYTES = FIELDS * 4;

/** What the payload is; `ascii` is a string of which each character is a byte; `skip` marks the unused end of the ring. */
const KIND = { null: 0, number: 1, string: 2, bytes: 3, skip: 4, ascii: 5 } as const;

/**
 * A worker gives the same few heads again and again. Each of the first so many is numbered, from 1 on, and its text sent
 * only the first time; if it is no longer than this.
 */
const NUMBERED = 256;
const NUMBERED_LENGTH = 256;

/** Texts of at most so many bytes are read together with what follows them, of which so many bytes are looked at. */
const SHORT_TEXT = 128;
const TEXT_AHEAD = 2048;

const MOST_NUMBER = 2 ** 31 - 1;

const align = (bytes: number): number => (bytes + 3) & ~3;

/** What `toString` comes down to, without its way of finding out: half of the price for strings of this size. */
type SlicingBuffer = Buffer & {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
};

/** A character of a string is three bytes of UTF-8 at most. */
function mostBytes(payload: Payload): number {
  if (typeof payload === 'string') return payload.length * 3;
  return payload instanceof Uint8Array ? payload.byteLength : 0;
}

class Outbox {
  protected readonly positions: Int32Array;
  protected readonly fields: Int32Array;
  protected readonly bytes: SlicingBuffer;

  constructor(memory: SharedArrayBuffer) {
    this.positions = new Int32Array(memory, 0, 2);
    this.fields = new Int32Array(memory, POSITIONS, CAPACITY / 4);
    this.bytes = Buffer.from(memory, POSITIONS, CAPACITY) as unknown as SlicingBuffer;
  }
}

export function createOutbox(): SharedArrayBuffer {
  return new SharedArrayBuffer(POSITIONS + CAPACITY);
}

export class OutboxWriter extends Outbox {
  private written = 0;
  private readonly numbers = new Map<string, number>();

  /** Write an answer. Returns false when there is no room for it, or it is too large: it must take the lane then. */
  write(seq: number, status: number, head: string, payload: Payload, flags: number, micros: number): boolean {
    const headMost = mostBytes(head);
    const isLong = typeof payload === 'string' && payload.length >= LONG_TEXT;
    const payloadMost = isLong ? Buffer.byteLength(payload) : mostBytes(payload);
    const most = align(FIELD_BYTES + headMost + payloadMost);
    if (most > LARGEST || (typeof payload === 'number' && payload > MOST_NUMBER)) return false;
    let at = this.written & (CAPACITY - 1);
    const tail = CAPACITY - at;
    const needed = tail < most ? tail + most : most;
    const used = (this.written - Atomics.load(this.positions, READ)) | 0;
    if (used + needed > CAPACITY) return false;
    if (tail < most) {
      // A record lies in one piece, so the rest of the ring stays empty. It may be too short even for a mark; the
      // reader knows that then.
      if (tail >= FIELD_BYTES) this.fields[(at >> 2) + 4] = KIND.skip;
      this.written = (this.written + tail) | 0;
      at = 0;
    }
    const { fields, bytes } = this;
    const from = at + FIELD_BYTES;
    let number = this.numbers.get(head) ?? 0;
    let headLength = 0;
    if (number === 0) {
      headLength = bytes.write(head, from, 'utf8');
      if (this.numbers.size < NUMBERED && head.length <= NUMBERED_LENGTH) {
        number = this.numbers.size + 1;
        this.numbers.set(head, number);
      }
    }
    let kind: number = KIND.null;
    let payloadLength = 0;
    if (isLong) {
      kind = KIND.bytes;
      payloadLength = payloadMost;
      writeText(bytes, payload, payloadLength, from + headLength);
    } else if (typeof payload === 'string') {
      payloadLength = bytes.write(payload, from + headLength, 'utf8');
      kind = payloadLength === payload.length ? KIND.ascii : KIND.string;
    } else if (typeof payload === 'number') {
      kind = KIND.number;
      payloadLength = payload;
    } else if (payload !== null) {
      kind = KIND.bytes;
      payloadLength = payload.byteLength;
      copyInto(bytes, payload, from + headLength);
    }
    const i = at >> 2;
    fields[i] = seq;
    fields[i + 1] = status;
    fields[i + 2] = flags;
    fields[i + 3] = micros;
    fields[i + 4] = kind;
    fields[i + 5] = number;
    fields[i + 6] = headLength;
    fields[i + 7] = payloadLength;
    const length = FIELD_BYTES + headLength + (kind === KIND.number ? 0 : payloadLength);
    this.written = (this.written + align(length)) | 0;
    // Publishes everything above.
    Atomics.store(this.positions, WRITTEN, this.written);
    return true;
  }
}

/** Gets each answer as it was written. Bytes lie where the worker will write again: they are for the time of the call. */
export type OnAnswer = (
  seq: number,
  status: number,
  head: string,
  payload: Payload,
  flags: number,
  micros: number,
) => void;

export class OutboxReader extends Outbox {
  private read = 0;
  /** An answer is being delivered. */
  private delivering = false;
  /** Texts of the heads that have a number. */
  private readonly heads: string[] = [];
  /** The ring from `textFrom` to `textTo` as a text, whatever stands there. */
  private text = '';
  private textFrom = 0;
  private textTo = 0;

  /** Deliver what is there. Returns whether there was anything. */
  drain(deliver: OnAnswer): boolean {
    const { fields, bytes, delivering } = this;
    const from = this.read;
    this.textTo = 0;
    // Looked up each time: what is delivered may lead to another drain, and to more being written.
    while (this.read !== Atomics.load(this.positions, WRITTEN)) {
      const at = this.read & (CAPACITY - 1);
      const tail = CAPACITY - at;
      const i = at >> 2;
      const kind = fields[i + 4] as number;
      if (tail < FIELD_BYTES || kind === KIND.skip) {
        this.read = (this.read + tail) | 0;
        continue;
      }
      const seq = fields[i] as number;
      const status = fields[i + 1] as number;
      const flags = fields[i + 2] as number;
      const micros = fields[i + 3] as number;
      const number = fields[i + 5] as number;
      const headLength = fields[i + 6] as number;
      const payloadLength = fields[i + 7] as number;
      const start = at + FIELD_BYTES;
      const end = start + headLength;
      let head = '';
      if (headLength > 0) {
        head = bytes.utf8Slice(start, end);
        if (number > 0) this.heads[number] = head;
      } else if (number > 0) {
        head = this.heads[number] ?? '';
      }
      let payload: Payload = null;
      if (kind === KIND.ascii)
        payload =
          payloadLength <= SHORT_TEXT
            ? this.shortText(end, end + payloadLength)
            : bytes.latin1Slice(end, end + payloadLength);
      else if (kind === KIND.string) payload = bytes.utf8Slice(end, end + payloadLength);
      else if (kind === KIND.number) payload = payloadLength;
      else if (kind === KIND.bytes)
        payload = new Uint8Array(bytes.buffer, bytes.byteOffset + end, payloadLength);
      const length = FIELD_BYTES + headLength + (kind === KIND.number ? 0 : payloadLength);
      // Before it is delivered, so that it is not read twice whatever that leads to.
      this.read = (this.read + align(length)) | 0;
      this.delivering = true;
      try {
        deliver(seq, status, head, payload, flags, micros);
      } finally {
        this.delivering = delivering;
      }
    }
    // Not within a delivery: its bytes are still wanted.
    if (!delivering) Atomics.store(this.positions, READ, this.read);
    return this.read !== from;
  }

  /** One call of the engine for several short texts: a part of a text costs a quarter of one. */
  private shortText(from: number, to: number): string {
    if (from < this.textFrom || to > this.textTo) {
      const written = Atomics.load(this.positions, WRITTEN) & (CAPACITY - 1);
      // Behind what is written lies what will be overwritten.
      const end = written >= to ? written : CAPACITY;
      this.textFrom = from;
      this.textTo = Math.min(end, from + TEXT_AHEAD);
      this.text = this.bytes.latin1Slice(from, this.textTo);
    }
    return this.text.slice(from - this.textFrom, to - this.textFrom);
  }
}
