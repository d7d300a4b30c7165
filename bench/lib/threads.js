// Import this before anything that starts threads: it gets at all of them, whoever starts them.
import { createRequire, syncBuiltinESMExports } from 'node:module';

const threads = createRequire(import.meta.url)('node:worker_threads');
const alive = new Set();
/** Numbers of the threads that have ended. */
const ended = [];

threads.Worker = class extends threads.Worker {
  constructor(...args) {
    super(...args);
    alive.add(this);
    // It is lost with the thread.
    const { threadId } = this;
    this.once('exit', () => {
      alive.delete(this);
      ended.push(threadId);
    });
  }
};
syncBuiltinESMExports();

/** Ends one of the threads, whatever it is doing. Returns whether there was any. */
export function endOneAtRandom() {
  const victim = [...alive][Math.floor(Math.random() * alive.size)];
  if (victim === undefined) return false;
  // Not again while it dies: a kill that hits nobody must not be counted.
  alive.delete(victim);
  void victim.terminate();
  return true;
}

export function threadsAlive() {
  return [...alive];
}

export function threadsEnded() {
  return [...ended];
}
