// What the handlers of a storm write down, in memory that they share with the server: whatever becomes of their threads, it is
// there. Connections are numbered by their client.
import { getEnvironmentData, isMainThread, setEnvironmentData } from 'node:worker_threads';

const NAME = 'bench.storm';
/** More connections, and more threads, than any run has. Memory that is not touched costs nothing. */
const CONNECTIONS = 2 ** 20;
const THREADS = 2 ** 16;

if (isMainThread) {
  const bytes = (count) => new SharedArrayBuffer(count);
  setEnvironmentData(NAME, {
    opens: bytes(CONNECTIONS),
    closes: bytes(CONNECTIONS),
    kinds: bytes(CONNECTIONS),
    owners: bytes(4 * CONNECTIONS),
    exits: bytes(THREADS),
    faults: bytes(4 * 3),
  });
}
const { opens, closes, kinds, owners, exits, faults } = getEnvironmentData(NAME);

/** What must not happen. */
const FAULTS = ['messages out of order', 'messages before onOpen', 'messages after onClose'];

export const books = {
  /** How often each connection was opened and closed, as its callbacks saw it. */
  opens: new Uint8Array(opens),
  closes: new Uint8Array(closes),
  /** 1: a defined channel. */
  kinds: new Uint8Array(kinds),
  /** The thread whose handler opened each. */
  owners: new Int32Array(owners),
  /** Threads that were asked to exit. */
  exits: new Uint8Array(exits),
};
const counts = new Int32Array(faults);

/** @param {'messages out of order' | 'messages before onOpen' | 'messages after onClose'} what */
export function fault(what) {
  Atomics.add(counts, FAULTS.indexOf(what), 1);
}

export function faultsByKind() {
  return Object.fromEntries(FAULTS.map((what, i) => [what, Atomics.load(counts, i)]));
}

const TOPICS = 100;
export const topicOf = (id) => `topic ${id % TOPICS}`;
export const topics = Array.from({ length: TOPICS }, (_, i) => topicOf(i));
