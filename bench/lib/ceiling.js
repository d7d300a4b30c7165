// Run as a program: how much more work do two bare threads get done than one? Two virtual cores are often one
// physical core, and then no server can double its throughput. A server's scaling has to be read against this.
import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { burn } from './work.js';

if (isMainThread) {
  const seconds = Number(process.argv[2] ?? 1);
  const one = await together(1, seconds);
  const two = await together(2, seconds);
  console.log(JSON.stringify({ one, two, ratio: two / one }));
} else {
  const { iterations, seconds } = workerData;
  for (let i = 0; i < 5; i++) burn(iterations);
  parentPort.postMessage('warm');
  await once(parentPort, 'message');
  const start = performance.now();
  let done = 0;
  while (performance.now() - start < seconds * 1000) {
    burn(iterations);
    done++;
  }
  parentPort.postMessage(done / ((performance.now() - start) / 1000));
  parentPort.close();
}

/** Units of work a second, `threads` threads together. */
async function together(threads, seconds) {
  const iterations = Number(process.env.BENCH_ITERATIONS);
  const workers = Array.from(
    { length: threads },
    () => new Worker(new URL(import.meta.url), { workerData: { iterations, seconds } }),
  );
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  for (const worker of workers) worker.postMessage('go');
  const rates = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
  return rates.reduce((sum, rate) => sum + rate, 0);
}
