import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createOutbox, OutboxReader, OutboxWriter } from '../src/outbox.js';
import type { Payload } from '../src/protocol.js';
import { type OutboxRecord, random, recordOf, same, write } from './support/outbox-records.js';
import { fixture } from './support/server.js';

/** Bytes of the ring: all of the memory but the two positions. */
const CAPACITY = createOutbox().byteLength - 8;
/** Bytes of an answer without head and payload. */
const BARE = 32;
/** Bytes of the largest answer, with all that belongs to it. */
const LARGEST = 128 * 1024;
/** A payload of so many bytes fits beside any head that recordOf makes up. */
const FITS = LARGEST - 300;

interface Ends {
  readonly memory: SharedArrayBuffer;
  readonly writer: OutboxWriter;
  readonly reader: OutboxReader;
}

/** Both ends of an outbox through which so many bytes have gone already. */
function outbox(position = 0): Ends {
  const memory = createOutbox();
  new Int32Array(memory, 0, 2).fill(position);
  const writer = new OutboxWriter(memory);
  const reader = new OutboxReader(memory);
  (writer as unknown as { written: number }).written = position | 0;
  (reader as unknown as { read: number }).read = position | 0;
  return { memory, writer, reader };
}

function drain(reader: OutboxReader): OutboxRecord[] {
  const got: OutboxRecord[] = [];
  reader.drain((seq, status, head, payload, flags, micros) => {
    // Bytes are for the time of the call.
    const kept = payload instanceof Uint8Array ? new Uint8Array(payload) : payload;
    got.push({ seq, status, head, payload: kept, flags, micros });
  });
  return got;
}

const answer = (seq: number, payload: Payload = null, head = ''): OutboxRecord => ({
  seq,
  status: 200,
  head,
  payload,
  flags: 0,
  micros: 7,
});
const bytes = (length: number): Uint8Array => new Uint8Array(length).map((_, i) => i);

/** For many: as exact as toEqual, and a hundred times as fast. */
function expectSame(got: readonly OutboxRecord[], expected: readonly OutboxRecord[]): void {
  const wrong = got.findIndex((record, i) => !same(record, expected[i] ?? record));
  expect(got[wrong]).toEqual(expected[wrong]);
  expect(got.length).toBe(expected.length);
}

/** Write until nothing more fits. Returns what was written. */
function fill(writer: OutboxWriter, make: (seq: number) => OutboxRecord): OutboxRecord[] {
  const written: OutboxRecord[] = [];
  for (let seq = 0; ; seq++) {
    const record = make(seq);
    if (!write(writer, record)) return written;
    written.push(record);
  }
}

describe('an answer in the outbox', () => {
  const payloads: [string, Payload][] = [
    ['nothing', null],
    ['a length of 0', 0],
    ['a length', 1234],
    ['the largest length there is', 2 ** 31 - 1],
    ['an empty string', ''],
    ['a string', 'hello'],
    ['a string with zeros and line breaks in it', 'a\u0000b\r\nc\u0000'],
    ['a string of two-byte characters', 'äöüß'.repeat(20)],
    ['a string of three-byte characters', '漢字€'.repeat(20)],
    ['a string of characters outside the basic plane', '😀𝄞'.repeat(20)],
    ['a string that begins with a byte order mark', '\ufeffhello'],
    ['no bytes', new Uint8Array(0)],
    ['bytes', bytes(300)],
    ['part of a larger buffer', bytes(300).subarray(17, 40)],
    ['bytes that are shared', new Uint8Array(new SharedArrayBuffer(64)).fill(9)],
    ['a Buffer', Buffer.from('hello')],
  ];

  it.each(payloads)('arrives as it was written when its payload is %s', (_, payload) => {
    const { writer, reader } = outbox();
    const records = [answer(1, payload), answer(2, payload, 'X-One: 1\r\nX-Two: ä漢😀'), answer(3, payload)];
    for (const record of records) expect(write(writer, record)).toBe(true);
    const expected = payload instanceof Uint8Array ? Uint8Array.from(payload) : payload;
    expect(drain(reader)).toEqual(records.map((record) => ({ ...record, payload: expected })));
  });

  it('has half a surrogate pair replaced as UTF-8 would have it, and the next answer whole', () => {
    for (const text of ['\ud83d', '\ude00', 'a\ud83db', '\ude00\ud83d', '\ud83d'.repeat(100), '😀\ud83d']) {
      const { writer, reader } = outbox();
      write(writer, answer(1, text, 'X-Head: 1'));
      write(writer, answer(2, 'next'));
      expect(drain(reader)).toEqual([
        answer(1, Buffer.from(text).toString(), 'X-Head: 1'),
        answer(2, 'next'),
      ]);
    }
  });

  it('keeps its number, status, flags and time, the largest and the smallest', () => {
    const { writer, reader } = outbox();
    const records: OutboxRecord[] = [
      { seq: 2 ** 31 - 1, status: 599, head: '', payload: null, flags: 7, micros: 2 ** 31 - 1 },
      { seq: -(2 ** 31), status: 0, head: '', payload: null, flags: 0, micros: 0 },
      { seq: -1, status: 100, head: '', payload: null, flags: 1, micros: 1 },
    ];
    for (const record of records) write(writer, record);
    expect(drain(reader)).toEqual(records);
  });

  it('is delivered with bytes that are there for as long as the call lasts, whatever else is drained meanwhile', () => {
    const { writer, reader } = outbox();
    write(writer, answer(1, bytes(100)));
    reader.drain((_seq, _status, _head, payload) => {
      for (let round = 0; round < 3; round++) {
        fill(writer, (seq) => answer(seq, new Uint8Array(100).fill(0xff)));
        drain(reader);
      }
      expect(payload).toEqual(bytes(100));
    });
    expect(fill(writer, (seq) => answer(seq)).length).toBeGreaterThan(CAPACITY / BARE - 3);
  });

  it.each([
    ['ASCII', 'x'.repeat(100_000)],
    ['all of Latin-1', 'é'.repeat(50_000)],
    ['any characters', 'a漢😀'.repeat(10_000)],
    ['half a surrogate pair', `${'\ud83d'.repeat(10_000)}x`],
  ])('is delivered as bytes when it is a long text of %s', (_, text) => {
    const { writer, reader } = outbox();
    write(writer, answer(1, text, 'X-Head: 1'));
    write(writer, answer(2, 'next'));
    expectSame(drain(reader), [answer(1, Buffer.from(text), 'X-Head: 1'), answer(2, 'next')]);
  });

  it('is delivered once', () => {
    const { writer, reader } = outbox();
    expect(reader.drain(() => undefined)).toBe(false);
    write(writer, answer(1));
    const got: number[] = [];
    expect(reader.drain((seq) => got.push(seq))).toBe(true);
    expect(reader.drain((seq) => got.push(seq))).toBe(false);
    expect(got).toEqual([1]);
  });
});

describe('an answer that is not for the outbox', () => {
  it.each<[string, Payload, string]>([
    ['bytes', bytes(LARGEST), ''],
    ['a string', 'x'.repeat(LARGEST), ''],
    ['a string of few characters and many bytes', '漢'.repeat(LARGEST / 3), ''],
    ['head', null, 'x'.repeat(LARGEST)],
    ['head and payload together', bytes(LARGEST / 2), 'x'.repeat(LARGEST / 4)],
    ['bytes, more than the whole ring', bytes(CAPACITY), ''],
    ['a string, more than the whole ring', 'x'.repeat(CAPACITY), ''],
    ['a length beyond 31 bits', 2 ** 31, ''],
    ['the largest whole number', Number.MAX_SAFE_INTEGER, ''],
  ])('is refused and leaves nothing behind: too much of it is %s', (_, payload, head) => {
    const { writer, reader } = outbox();
    expect(write(writer, answer(1, 'before'))).toBe(true);
    expect(write(writer, answer(2, payload, head))).toBe(false);
    expect(write(writer, answer(3, 'behind'))).toBe(true);
    expect(drain(reader)).toEqual([answer(1, 'before'), answer(3, 'behind')]);
  });

  it('is refused by its size alone, whatever place of the ring it would come to', () => {
    for (let at = 0; at < CAPACITY; at += 508) {
      const { writer, reader } = outbox(at);
      expect(write(writer, answer(1, bytes(LARGEST - BARE + 1)))).toBe(false);
      expect(write(writer, answer(2, bytes(LARGEST - BARE)))).toBe(true);
      expectSame(drain(reader), [answer(2, bytes(LARGEST - BARE))]);
    }
  });
});

describe('a head that is given again', () => {
  it('arrives as it is each time, among more different ones than anybody would remember', () => {
    const { writer, reader } = outbox();
    const next = random(5);
    const heads = Array.from({ length: 700 }, (_, i) => `X-Number: ${i} é漢😀${'x'.repeat(i % 300)}`);
    heads.push('', 'x', `${'x'.repeat(255)}y`, `${'x'.repeat(256)}y`, '漢'.repeat(256), '\ufeffx');
    const written: OutboxRecord[] = [];
    const got: OutboxRecord[] = [];
    for (let seq = 0; seq < 20_000; seq++) {
      // The first ones often, the others now and then.
      const record = answer(seq, 'body', heads[next(next(2) === 0 ? 10 : heads.length)] ?? '');
      while (!write(writer, record)) got.push(...drain(reader));
      written.push(record);
    }
    got.push(...drain(reader));
    expectSame(got, written);
  });

  it('arrives whole when the outbox was too full for it, or it too large, the first time', () => {
    const { writer, reader } = outbox();
    expect(write(writer, answer(1, bytes(LARGEST), 'X-Large: 1'))).toBe(false);
    fill(writer, (seq) => answer(seq, bytes(seq < 100 ? 500 : 0)));
    expect(write(writer, answer(2, null, 'X-Full: 1'))).toBe(false);
    drain(reader);
    const records = [
      answer(3, null, 'X-Large: 1'),
      answer(4, null, 'X-Full: 1'),
      answer(5, null, 'X-Full: 1'),
    ];
    for (const record of records) expect(write(writer, record)).toBe(true);
    expect(drain(reader)).toEqual(records);
  });

  it('is known to one worker and not taken for that of another', () => {
    const [one, two] = [outbox(), outbox()];
    for (const head of ['X-One: 1', 'X-One: 1']) write(one.writer, answer(1, null, head));
    for (const head of ['X-Two: 2', 'X-Two: 2']) write(two.writer, answer(2, null, head));
    expect(drain(one.reader).map((record) => record.head)).toEqual(['X-One: 1', 'X-One: 1']);
    expect(drain(two.reader).map((record) => record.head)).toEqual(['X-Two: 2', 'X-Two: 2']);
  });
});

describe('a full outbox', () => {
  it.each([0, 1, 3, 4, 100, 997, FITS])(
    'refuses answers of %i bytes until it is drained, and loses none',
    (length) => {
      const { writer, reader } = outbox();
      for (let round = 0; round < 5; round++) {
        const written = fill(writer, (seq) => answer(seq, bytes(length)));
        // Only what lies unused at the end of the ring, and room for less than one more, may be missing.
        const size = (BARE + length + 3) & ~3;
        expect(written.length).toBeGreaterThanOrEqual(Math.floor(CAPACITY / size) - 2);
        expect(written.length * size).toBeLessThanOrEqual(CAPACITY);
        expect(write(writer, answer(-1, bytes(length)))).toBe(false);
        expectSame(drain(reader), written);
      }
    },
  );

  it('is full to the last byte when the answers just fit, and is not taken for an empty one', () => {
    const { writer, reader } = outbox();
    const written = fill(writer, (seq) => answer(seq, bytes(64 - BARE)));
    expect(written).toHaveLength(CAPACITY / 64);
    expectSame(drain(reader), written);
    expect(drain(reader)).toEqual([]);
  });

  it('takes a small answer while it has no room for a large one', () => {
    const { writer, reader } = outbox();
    const written = fill(writer, (seq) => answer(seq, bytes(FITS)));
    expect(write(writer, answer(100, 'small'))).toBe(true);
    expectSame(drain(reader), [...written, answer(100, 'small')]);
  });
});

describe('the end of the ring', () => {
  // Up to just more than a bare answer is left, so also less than the fields of one take.
  const tails = Array.from({ length: 20 }, (_, i) => i * 4);

  it.each(tails)('may come %i bytes behind an answer', (tail) => {
    for (const payload of [null, 5, '', 'hello', '漢'.repeat(50), bytes(0), bytes(30)]) {
      const { writer, reader } = outbox(CAPACITY - tail);
      const records = [answer(1, payload), answer(2, payload, 'X: 1'), answer(3, payload)];
      for (const record of records) expect(write(writer, record)).toBe(true);
      expect(drain(reader)).toEqual(records);
      expect(drain(reader)).toEqual([]);
    }
  });

  it('may hold what was there a round earlier', () => {
    const { writer, reader } = outbox();
    // Every field of the ring looks like an answer: number, status, flags, time, kind and lengths.
    for (const size of [64, 60, 36, 32]) {
      const written = fill(writer, (seq) => answer(seq, new Uint8Array(size - BARE).fill(3)));
      expectSame(drain(reader), written);
    }
    for (let round = 0; round < 50; round++) {
      const written = fill(writer, (seq) => answer(seq, bytes((round * 37) % 500)));
      expectSame(drain(reader), written);
    }
  });
});

describe('positions', () => {
  it.each([2 ** 31 - CAPACITY, 2 ** 31 - 4, 2 ** 31, 2 ** 32 - CAPACITY, 2 ** 32 - 4])(
    'may pass from %i bytes on to where 32 bits end',
    (position) => {
      const { writer, reader } = outbox(position);
      for (let round = 0; round < 4; round++) {
        const written = fill(writer, (seq) => answer(seq, bytes((seq * 13) % 400)));
        expect(written.length).toBeGreaterThan(200);
        expectSame(drain(reader), written);
        expect(drain(reader)).toEqual([]);
      }
    },
  );
});

describe('200000 answers of all kinds and sizes', () => {
  /** Write and drain in turns that only the seed knows, beside a plain array that does the same. */
  function check(seed: number, position: number, count: number): { refusedFull: number; rounds: number } {
    const { writer, reader } = outbox(position);
    const next = random(seed);
    const model: OutboxRecord[] = [];
    let taken = 0;
    let seq = 0;
    let refusedFull = 0;
    const wrong: unknown[] = [];
    const read = (): void => {
      const before = model.length;
      const any = reader.drain((seq, status, head, payload, flags, micros) => {
        const expected = model[taken++];
        const got = { seq, status, head, payload, flags, micros };
        if (expected === undefined || !same(expected, got)) wrong.push({ expected, got });
      });
      if (any !== before > 0 || taken !== before) wrong.push({ any, taken, before });
      model.length = 0;
      taken = 0;
    };
    let sum = 0;
    while (seq < count && wrong.length === 0) {
      for (let n = next(4000); n > 0 && seq < count; n--) {
        const record = recordOf(seq + seed, 140_000);
        if (write(writer, record)) {
          model.push(record);
          seq++;
          sum += record.payload instanceof Uint8Array ? record.payload.length : BARE;
        } else {
          if (model.length === 0)
            seq++; // an empty outbox refuses it: too large
          else refusedFull++;
          break;
        }
      }
      read();
    }
    expect(wrong.slice(0, 1)).toEqual([]);
    return { refusedFull, rounds: sum / CAPACITY };
  }

  it.each([
    ['from the start', 0],
    ['past 2^31', 2 ** 31 - 5 * CAPACITY],
    ['past 2^32', 2 ** 32 - 5 * CAPACITY],
  ])('arrive in order and whole, many times around the ring: %s', (_, position) => {
    const { refusedFull, rounds } = check(position === 0 ? 1 : position % 99991, position, 200_000);
    expect(rounds).toBeGreaterThan(100);
    expect(refusedFull).toBeGreaterThan(100);
  });
});

describe('a drain within a drain', () => {
  it('delivers each answer once, in order', () => {
    const { writer, reader } = outbox();
    for (let seq = 0; seq < 10; seq++) write(writer, answer(seq));
    const got: number[] = [];
    const deliver = (seq: number): void => {
      got.push(seq);
      if (seq === 3) reader.drain(deliver);
    };
    reader.drain(deliver);
    expect(got).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(drain(reader)).toEqual([]);
    write(writer, answer(10));
    expect(drain(reader)).toEqual([answer(10)]);
  });

  it('delivers each answer once when more have been written meanwhile', () => {
    const { writer, reader } = outbox();
    for (let seq = 0; seq < 5; seq++) write(writer, answer(seq));
    const got: number[] = [];
    const deliver = (seq: number): void => {
      got.push(seq);
      if (got.length > 20) throw new Error(`delivered again and again: ${got.join(' ')}`);
      if (seq !== 2) return;
      for (let more = 5; more < 8; more++) write(writer, answer(more));
      reader.drain(deliver);
    };
    reader.drain(deliver);
    expect(got).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(drain(reader)).toEqual([]);
  });

  it('leaves all of the room to the writer', () => {
    const { writer, reader } = outbox();
    const most = fill(writer, (seq) => answer(seq)).length;
    reader.drain((seq) => {
      if (seq === 1) drain(reader);
    });
    expect(fill(writer, (seq) => answer(seq)).length).toBe(most);
  });
});

describe('a delivery that throws', () => {
  it('neither delivers an answer twice nor loses the others', () => {
    const { writer, reader } = outbox();
    for (let seq = 0; seq < 5; seq++) write(writer, answer(seq));
    const got: number[] = [];
    const deliver = (seq: number): void => {
      got.push(seq);
      if (seq === 1) throw new Error('no');
    };
    expect(() => reader.drain(deliver)).toThrow('no');
    reader.drain(deliver);
    expect(got).toEqual([0, 1, 2, 3, 4]);
  });

  it('does not leave a full outbox full, even when it is that of the last answer', () => {
    const { writer, reader } = outbox();
    const last = fill(writer, (seq) => answer(seq)).length - 1;
    const deliver = (seq: number): void => {
      if (seq === last) throw new Error('no');
    };
    expect(() => reader.drain(deliver)).toThrow('no');
    reader.drain(deliver);
    expect(write(writer, answer(1))).toBe(true);
  });
});

describe('a writer in another thread', () => {
  interface Writing {
    readonly reader: OutboxReader;
    /** Settles when the thread has ended. */
    readonly ended: Promise<void>;
    running(): boolean;
  }

  function writing(count: number, largest: number): Writing {
    const { memory, reader } = outbox();
    const worker = new Worker(fixture('outbox-writer.mjs'), { workerData: { memory, count, largest } });
    onTestFinished(async () => void (await worker.terminate()));
    let running = true;
    const ended = new Promise<void>((resolve, reject) => {
      worker.on('error', reject);
      worker.on('exit', () => {
        running = false;
        resolve();
      });
    });
    ended.catch(() => undefined);
    return { reader, ended, running: () => running };
  }

  it.each([
    ['small ones', 40, 200_000],
    ['all sizes', 40_000, 100_000],
  ])('has nothing lost, nothing torn and everything in order: %s', async (_, largest, count) => {
    const { reader, ended, running } = writing(count, largest);
    let next = 0;
    const wrong: unknown[] = [];
    const read = (): boolean =>
      reader.drain((seq, status, head, payload, flags, micros) => {
        const expected = recordOf(next++, largest);
        const got = { seq, status, head, payload, flags, micros };
        if (!same(expected, got) && wrong.length < 3) wrong.push({ expected, got });
      });
    while (running() && wrong.length === 0) {
      // Again and again in one turn, so that both are at it at the same time.
      for (let i = 0; i < 1000; i++) read();
      await nextTurn();
    }
    expect(wrong).toEqual([]);
    await ended;
    read();
    expect(wrong).toEqual([]);
    expect(next).toBe(count);
  });

  it('that has ended has everything delivered that it wrote', async () => {
    const { reader, ended } = writing(100, 100);
    await ended;
    expectSame(
      drain(reader),
      Array.from({ length: 100 }, (_, seq) => recordOf(seq, 100)),
    );
  });
});
