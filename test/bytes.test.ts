import { describe, expect, it } from 'vitest';
import { cloneOf, copyInto } from '../src/bytes.js';
import { content } from './support/upload.js';

const KINDS = { shared: SharedArrayBuffer, own: ArrayBuffer };
const SIZES = [0, 1, 7, 255, 256, 257, 4096, 65_537];
const PAD = 16;

/** Bytes that begin `shift` behind the beginning of their memory. */
function laid(bytes: Uint8Array, Memory: typeof ArrayBuffer | typeof SharedArrayBuffer, shift: number) {
  const view = new Uint8Array(new Memory(bytes.byteLength + PAD), shift, bytes.byteLength);
  for (const [i, byte] of bytes.entries()) view[i] = byte;
  return view;
}

describe.each(Object.keys(KINDS) as (keyof typeof KINDS)[])('out of memory that is %s', (from) => {
  it.each(Object.keys(KINDS) as (keyof typeof KINDS)[])(
    'all bytes and no others come to memory that is %s',
    (to) => {
      for (const size of SIZES) {
        for (const shift of [0, 3, 8]) {
          const bytes = content(size);
          const target = new Uint8Array(new KINDS[to](size + 2 * PAD)).fill(0xee);
          copyInto(target, laid(bytes, KINDS[from], shift), PAD + shift - 8);
          const at = PAD + shift - 8;
          expect(Buffer.compare(target.subarray(at, at + size), bytes)).toBe(0);
          expect(target.subarray(0, at).every((byte) => byte === 0xee)).toBe(true);
          expect(target.subarray(at + size).every((byte) => byte === 0xee)).toBe(true);
        }
      }
    },
  );

  it('a copy is in memory of its own, and of its size', () => {
    for (const size of SIZES) {
      const bytes = content(size);
      const original = laid(bytes, KINDS[from], 3);
      const copy = cloneOf(original);
      original.fill(0);
      expect(Buffer.compare(copy, bytes)).toBe(0);
      expect(copy.buffer).toBeInstanceOf(ArrayBuffer);
      expect(copy.buffer.byteLength).toBe(size);
    }
  });
});
