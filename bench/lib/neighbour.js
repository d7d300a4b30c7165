/**
 * What an endless loop takes from the machine, in a process of its own: once a second one core for `argv[2]` ms, as a worker's
 * priority has it, and the start of one thread. Beside it a server shows what the machine alone is responsible for.
 */
import { setPriority } from 'node:os';
import { Worker } from 'node:worker_threads';

const loopMs = Number(process.argv[2]);
setPriority(10);

function loop() {
  const until = performance.now() + loopMs;
  while (performance.now() < until);
  // As a replacement does: it starts while the loop still runs, and lives on.
  const thread = new Worker('', { eval: true });
  thread.once('online', () => void thread.terminate());
}

setInterval(loop, 1000);
