/** Bytes, and texts as bytes: how many they are, copies of them, and many small ones as one. Belongs to no thread. */
import type { Payload } from './protocol.js';

/** Bytes of a text, as UTF-8, or of memory. */
export function sizeOf(data: string | Uint8Array): number {
  return typeof data === 'string' ? Buffer.byteLength(data) : data.byteLength;
}

/** The length of a response that its head says: a number stands for a body that is not sent. */
export function payloadSize(payload: Payload): number | null {
  return payload === null || typeof payload === 'number' ? payload : sizeOf(payload);
}

/** Memory for `size` bytes that will all be written: what was there before has not been cleared. */
export function memoryFor(size: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.allocUnsafeSlow(size).buffer);
}

/** Bytes from which {@link copyInto} is faster by a call of Node's. */
const NATIVE_FROM = 256;

/**
 * Copy all of `source` to where `at` is in `target`. Either may be shared memory, between which and other memory V8's `set`
 * copies byte by byte, unless both lie alike: 64 KiB take it twenty times as long.
 */
export function copyInto(target: Uint8Array, source: Uint8Array, at: number): void {
  const { byteLength } = source;
  if (byteLength < NATIVE_FROM) target.set(source, at);
  else Buffer.prototype.fill.call(target, source, at, at + byteLength);
}

/** A copy of memory that may be shared. */
export function cloneOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  if (bytes.byteLength < NATIVE_FROM) return new Uint8Array(bytes);
  const copy = memoryFor(bytes.byteLength);
  copyInto(copy, bytes, 0);
  return copy;
}

/**
 * What stays as it is: bytes are copied. Those of an inline handler may change as soon as it has returned, and those of an
 * outbox when it goes on. A Buffer's `slice` would be no copy.
 */
export function keepable<T extends Payload>(data: T): T {
  return data instanceof Uint8Array ? (cloneOf(data) as Uint8Array & T) : data;
}

/** A copy of memory that is not ours. For a few bytes `slice` takes ten times as long. */
export function copyOf(data: ArrayBuffer): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint8Array(data));
}

// Half the price of a Buffer's toString for a message of a few bytes. A mark of byte order is the sender's, and stays.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** The text of memory that is not ours. */
export function textOf(data: ArrayBuffer | Uint8Array): string {
  return decoder.decode(data);
}

/** A text as UTF-8, in memory that is only for it. */
export function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(text));
  writeText(bytes, text, bytes.byteLength);
  return bytes as Uint8Array<ArrayBuffer>;
}

/** Write a text of `length` bytes of UTF-8 to `at`. All ASCII is the same in Latin-1, for a third of the price. */
export function writeText(bytes: Buffer, text: string, length: number, at = 0): void {
  bytes.write(text, at, length === text.length ? 'latin1' : 'utf8');
}

/** Bytes below which a piece of memory travels in a {@link Parcel}. */
const SMALL = 4096;

/** Small pieces of memory that cross threads as one: each by itself costs three times as much to clone, on both sides. */
export class Parcel {
  private readonly parts: Uint8Array[] = [];
  private size = 0;

  /** Takes what is small and returns its length, by which {@link unpacked} finds it; what is larger is returned. */
  add(bytes: Uint8Array): Uint8Array | number {
    const { byteLength } = bytes;
    if (byteLength >= SMALL) return bytes;
    this.parts.push(bytes);
    this.size += byteLength;
    return byteLength;
  }

  /** All that it has taken. */
  get whole(): Uint8Array<ArrayBuffer> {
    const whole = new Uint8Array(this.size);
    let at = 0;
    for (const part of this.parts) {
      whole.set(part, at);
      at += part.byteLength;
    }
    return whole;
  }
}

/** Takes the pieces out of what a {@link Parcel} was, in the order they were added. Each gets memory of its own. */
export function unpacked(whole: Uint8Array): (length: number) => Uint8Array<ArrayBuffer> {
  let at = 0;
  return (length) => {
    at += length;
    return whole.slice(at - length, at) as Uint8Array<ArrayBuffer>;
  };
}
