// What the objects of a process come to when its garbage is gone, those of its threads included. Servers and handlers that are
// asked for it import this.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { BroadcastChannel, isMainThread } from 'node:worker_threads';

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc');
const air = new BroadcastChannel('bench.garbage');

/** What one pass finds to be dead may be all that kept something else alive. */
function collect() {
  for (let i = 0; i < 3; i++) gc();
  const { heapUsed, external } = process.memoryUsage();
  return { heapUsed, external };
}

if (!isMainThread) {
  air.onmessage = ({ data }) => {
    if (data.asked !== undefined) air.postMessage({ answers: data.asked, ...collect() });
  };
}
air.unref();

let asked = 0;

/**
 * Bytes of the process and of the heaps of its threads, without garbage. On the main thread.
 * @param {number} workers how many of them have imported this
 */
export async function memoryInUse(workers) {
  const threads = [];
  const id = ++asked;
  await new Promise((resolve) => {
    air.onmessage = ({ data }) => {
      if (data.answers !== id) return;
      threads.push({ heapUsed: data.heapUsed, external: data.external });
      if (threads.length >= workers) resolve();
    };
    air.postMessage({ asked: id });
    if (workers === 0) resolve();
  });
  air.unref();
  const main = collect();
  return { rss: process.memoryUsage.rss(), main, workers: threads };
}
