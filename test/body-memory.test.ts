import { expect, it } from 'vitest';
import { chunkMemory, copyToSend, useAgain } from '../src/handlers/spare.js';
import { type BodyExchange, ResponseBody } from '../src/io/body-line.js';
import { BODY_CHUNK, type BodyOwner } from '../src/protocol.js';

/** An exchange that takes everything, and keeps it while it is told to. */
class Exchange implements BodyExchange {
  holdsAny = false;
  readonly movedAt = 0;
  startStream(): void {}
  writeStream(): boolean {
    return !this.holdsAny;
  }
  endStream(): void {}
  failStream(): void {}
}

function body(): { exchange: Exchange; line: ResponseBody; told: { total: number; spare: ArrayBuffer[] }[] } {
  const told: { total: number; spare: ArrayBuffer[] }[] = [];
  const owner: BodyOwner = { flowed: (total, spare) => told.push({ total, spare }), closed: () => undefined };
  const exchange = new Exchange();
  return { exchange, line: new ResponseBody(owner, exchange), told };
}

it('gives back the memory of what has left, once', () => {
  const { line, told } = body();
  const [first, second, third] = [0, 1, 2].map(() => new Uint8Array(BODY_CHUNK)) as [
    Uint8Array<ArrayBuffer>,
    Uint8Array<ArrayBuffer>,
    Uint8Array<ArrayBuffer>,
  ];
  line.send(first, false);
  line.send(second, true);
  line.send(third, true);
  expect(told).toEqual([
    { total: 2 * BODY_CHUNK, spare: [first.buffer, second.buffer] },
    { total: 3 * BODY_CHUNK, spare: [third.buffer] },
  ]);
  expect(told[1]?.spare[0]).toBe(third.buffer);
});

it('gives back nothing of which anything waits, and no other sizes', () => {
  const { exchange, line, told } = body();
  line.send(new Uint8Array(BODY_CHUNK - 1), true);
  exchange.holdsAny = true;
  line.send(new Uint8Array(BODY_CHUNK), true);
  exchange.holdsAny = false;
  line.drained();
  line.send(new Uint8Array(0), true);
  expect(told.map(({ spare }) => spare.length)).toEqual([0, 0, 0]);
});

it('uses what has come back for the next copy, and keeps no more than a megabyte', () => {
  const memory = chunkMemory().buffer;
  useAgain([memory]);
  const copy = copyToSend(new Uint8Array(BODY_CHUNK).fill(7));
  expect(copy.buffer).toBe(memory);
  expect(copy.every((byte) => byte === 7)).toBe(true);
  expect(copyToSend(new Uint8Array(BODY_CHUNK)).buffer).not.toBe(memory);

  const many = Array.from({ length: 100 }, () => new ArrayBuffer(BODY_CHUNK));
  useAgain(many);
  const used = Array.from({ length: 100 }, () => chunkMemory().buffer as ArrayBuffer);
  expect(used.filter((buffer) => many.includes(buffer)).length).toBe(16);
});
