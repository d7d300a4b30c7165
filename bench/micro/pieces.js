// The pieces a request goes through, each alone. They are no part of the package, so their source is loaded.
import { strict as assert } from 'node:assert';
import { headOf, packFirst, packNext, splitBatch, targetOf, waitedOf } from '../../src/batch.ts';
import { RingRequest } from '../../src/handlers/request.ts';
import { encode } from '../../src/handlers/respond.ts';
import { RequestReader } from '../../src/io/request-reader.ts';
import { ResponseWriter } from '../../src/io/response-writer.ts';
import { createOutbox, OutboxReader, OutboxWriter } from '../../src/outbox.ts';
import { answer, BATCH, engineRequest, lines, packedHead } from './requests.js';

/**
 * @typedef {object} Piece
 * @property {string} group
 * @property {string} name
 * @property {number} [of] how many there are of what it looks among
 * @property {number} [each] how many of what is counted one call does; 1 by default
 * @property {() => unknown} run must not be async
 */

const info = { isHead: false, method: 'GET', headers: {} };
const source = { isHead: false, head: packedHead, body: null, addressOf: () => '' };

/** A response of the engine that keeps nothing. */
const engineResponse = { writeStatus: () => undefined, end: () => undefined };

function packed() {
  let batch = packFirst(1, 1000);
  for (let i = 0; i < BATCH; i++) batch = packNext(batch, 0, 0, packedHead);
  return batch;
}

/** @returns {readonly Piece[]} */
export function pieces() {
  const reader = new RequestReader(8192);
  const one = engineRequest(lines.slice(0, 1));
  const seven = engineRequest(lines);
  assert.equal(reader.read(seven, 'GET'), undefined);
  assert.equal(reader.headers.split('\n').length, 2 * lines.length + 1);

  const writer = new ResponseWriter('offloop');
  const encoded = encode(answer, info);
  assert.equal(encoded.status, 200);

  // A string that was put together piece by piece is flat once it has been sent; so is this.
  const sent = JSON.parse(JSON.stringify(packed()));
  assert.equal(splitBatch(sent).records.length, BATCH);
  assert.equal(headOf(splitBatch(sent).records[3]), packedHead);

  const memory = createOutbox();
  const outbox = { writer: new OutboxWriter(memory), reader: new OutboxReader(memory) };
  let delivered = 0;
  const deliver = () => {
    delivered++;
  };
  const pass = () => {
    for (let i = 0; i < BATCH; i++)
      outbox.writer.write(i, encoded.status, encoded.head, encoded.payload, encoded.flags, 5);
    outbox.reader.drain(deliver);
  };
  pass();
  assert.equal(delivered, BATCH);

  const board = new Int32Array(new SharedArrayBuffer(4));
  let claimed = 0;
  const claim = () => {
    const next = (claimed + 1) | 0;
    if (Atomics.compareExchange(board, 0, claimed, next) !== claimed) throw new Error('it was free');
    claimed = next;
  };

  return [
    {
      group: 'I/O thread',
      name: 'copy a head out of the engine, 1 line',
      run: () => reader.read(one, 'GET'),
    },
    { group: 'I/O thread', name: 'the same, 7 lines', run: () => reader.read(seven, 'GET') },
    { group: 'I/O thread', name: `pack a batch of ${BATCH}, each`, each: BATCH, run: packed },
    {
      group: 'I/O thread',
      name: 'write an answer, the engine left out',
      run: () =>
        writer.write(engineResponse, encoded.status, encoded.head, encoded.payload, encoded.flags, false),
    },
    {
      group: 'worker',
      name: `take a batch of ${BATCH} apart, each`,
      each: BATCH,
      run: () => {
        let seen = 0;
        for (const record of splitBatch(sent).records)
          seen += targetOf(record) + waitedOf(record) + headOf(record).length;
        return seen;
      },
    },
    { group: 'worker', name: 'claim an invocation', run: claim },
    { group: 'worker', name: 'make a request nobody looks at', run: () => new RingRequest(source) },
    { group: 'worker', name: 'make a request and read its path', run: () => new RingRequest(source).path },
    {
      group: 'worker',
      name: 'make a request and read its headers',
      run: () => new RingRequest(source).headers,
    },
    { group: 'worker', name: 'encode an answer', run: () => encode(answer, info) },
    { group: 'both', name: 'an answer into the outbox and out of it', each: BATCH, run: pass },
  ];
}
