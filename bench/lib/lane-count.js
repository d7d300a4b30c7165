// Counts what is posted from thread to thread, without a word from offloop. The server imports this, and so does the handler
// in each worker.
import { getEnvironmentData, isMainThread, MessagePort, setEnvironmentData } from 'node:worker_threads';

const NAME = 'bench.posts';
const TO_WORKERS = 0;
const OPERATIONS = 1;
const HINTS = 2;

if (isMainThread) setEnvironmentData(NAME, new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT));
const counts = new Int32Array(getEnvironmentData(NAME));

const { postMessage } = MessagePort.prototype;
MessagePort.prototype.postMessage = function post(message, ...rest) {
  const kind = isMainThread ? TO_WORKERS : message?.kind === 'channels' ? OPERATIONS : HINTS;
  Atomics.add(counts, kind, 1);
  return postMessage.call(this, message, ...rest);
};

/** `operations`: messages with what channels ask for. `hints`: all others from workers. */
export function lanePosts() {
  return { toWorkers: counts[TO_WORKERS], operations: counts[OPERATIONS], hints: counts[HINTS] };
}
