/** Answers made up from a number, the same ones on both ends of an outbox. */
import type { OutboxWriter } from '../../src/outbox.js';
import type { Payload } from '../../src/protocol.js';

/** What is written of an answer, and what is delivered. */
export interface OutboxRecord {
  readonly seq: number;
  readonly status: number;
  readonly head: string;
  readonly payload: Payload;
  readonly flags: number;
  readonly micros: number;
}

/** Numbers that look random and are the same for the same seed: below `n`. */
export function random(seed: number): (n: number) => number {
  let state = seed | 0;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

const LETTERS = ['a', 'Z', '0', ' ', '\u0000', 'é', 'ß', '€', '漢', '\ufeff', '😀', '𝄞'];
const TEXT = Array.from({ length: 4096 }, (_, i) => LETTERS[(i * 7 + (i >> 4)) % LETTERS.length]).join('');

/** A piece of text that begins and ends with whole characters. */
function textOf(from: number, length: number): string {
  return TEXT.slice(from, from + length).replace(/^[\udc00-\udfff]|[\ud800-\udbff]$/g, '');
}

/** The answer with this number: mostly a small one, now and then up to so many bytes of payload. */
export function recordOf(seq: number, largest: number): OutboxRecord {
  const next = random(seq);
  const size = next(64) === 0 ? next(largest) : Math.min(largest, next(4) === 0 ? next(600) : next(40));
  const kind = next(8);
  let payload: Payload;
  if (kind === 0) payload = null;
  else if (kind === 1) payload = next(2 ** 31);
  else if (kind < 5) payload = textOf(next(1000), Math.floor(size / 3));
  else payload = new Uint8Array(size).fill(next(256)).map((byte, i) => byte + i);
  const head = next(3) === 0 ? '' : `Content-Type: text/plain\r\nX-Number: ${textOf(next(1000), next(30))}`;
  return { seq, status: 100 + next(500), head, payload, flags: next(8), micros: next(2 ** 31) };
}

export function write(writer: OutboxWriter, record: OutboxRecord): boolean {
  const { seq, status, head, payload, flags, micros } = record;
  return writer.write(seq, status, head, payload, flags, micros);
}

/** A long text is delivered as bytes. Cheap enough for hundreds of thousands. */
export function same(a: OutboxRecord, b: OutboxRecord): boolean {
  const payload =
    a.payload instanceof Uint8Array || b.payload instanceof Uint8Array
      ? bytesOf(a.payload).equals(bytesOf(b.payload))
      : a.payload === b.payload;
  return (
    payload &&
    a.seq === b.seq &&
    a.status === b.status &&
    a.head === b.head &&
    a.flags === b.flags &&
    a.micros === b.micros
  );
}

const bytesOf = (payload: Payload): Buffer =>
  payload instanceof Uint8Array ? Buffer.from(payload) : Buffer.from(String(payload));
