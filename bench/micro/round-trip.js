// A batch to another thread and its answers back, as the pool does it but for everything around: one message there, the answers
// through an outbox, one message back.
import { once } from 'node:events';
import { MessageChannel, Worker } from 'node:worker_threads';
import { packFirst, packNext } from '../../src/batch.ts';
import { createOutbox, OutboxReader } from '../../src/outbox.ts';
import { packedHead } from './requests.js';

/** @returns {Promise<{ trip: (size: number) => Promise<void>, end: () => Promise<unknown> }>} */
export async function otherThread() {
  const { port1: lane, port2 } = new MessageChannel();
  const memory = createOutbox();
  const outbox = new OutboxReader(memory);
  const worker = new Worker(new URL('./round-trip-thread.js', import.meta.url), {
    workerData: { lane: port2, memory },
    execArgv: [],
    transferList: [port2],
  });
  await once(worker, 'message');
  let left = 0;
  let done = () => {};
  const deliver = () => {
    left--;
  };
  lane.on('message', () => {
    outbox.drain(deliver);
    if (left === 0) done();
  });
  return {
    trip: (size) =>
      new Promise((resolve) => {
        done = resolve;
        left = size;
        let batch = packFirst(1, 1000);
        for (let i = 0; i < size; i++) batch = packNext(batch, 0, 0, packedHead);
        lane.postMessage(batch);
      }),
    end: () => {
      lane.close();
      return worker.terminate();
    },
  };
}
