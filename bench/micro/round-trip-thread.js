// The other end of round-trip.js: each request gets the same answer.
import { parentPort, workerData } from 'node:worker_threads';
import { register } from 'tsx/esm/api';
import { answer } from './requests.js';

// What loads the source on the main thread does not do so here.
register();
const { headOf, splitBatch } = await import('../../src/batch.ts');
const { RingRequest } = await import('../../src/handlers/request.ts');
const { encode } = await import('../../src/handlers/respond.ts');
const { OutboxWriter } = await import('../../src/outbox.ts');

const { lane, memory } = workerData;
const outbox = new OutboxWriter(memory);
const info = { isHead: false, method: 'GET', headers: {} };

lane.on('message', (batch) => {
  const { first, records } = splitBatch(batch);
  for (const [i, record] of records.entries()) {
    const request = new RingRequest({ isHead: false, head: headOf(record), body: null, addressOf: () => '' });
    const { status, head, payload, flags } = encode(answer, info);
    if (!outbox.write(first + i, status, head, payload, flags, 5) || request.isHead)
      throw new Error('the outbox is full');
  }
  lane.postMessage(null);
});
parentPort.postMessage('ready');
