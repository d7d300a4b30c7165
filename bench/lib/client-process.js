import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Asking } from './asking.js';

/**
 * A load generator in a process of its own that does what the driver asks, so that it can be told when to begin. It ends
 * with the driver.
 */
export class ClientProcess {
  #child;
  #asking;

  /** @param {string} file a program in lib/ that calls `answerDriver` */
  constructor(file) {
    this.#child = fork(fileURLToPath(new URL(file, import.meta.url)));
    this.#asking = new Asking(this.#child);
  }

  /**
   * @param {string} question
   * @param {unknown} [about]
   * @returns {Promise<any>}
   */
  ask(question, about) {
    return this.#asking.ask(question, about);
  }

  async stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const closed = once(this.#child, 'close');
    this.#child.kill('SIGKILL');
    await closed;
  }
}

/**
 * Runs `use` with a client that is gone afterwards.
 * @template T
 * @param {(client: ClientProcess) => Promise<T>} use
 */
export async function withClient(use, file = './ws-load.js') {
  const client = new ClientProcess(file);
  try {
    return await use(client);
  } finally {
    await client.stop();
  }
}
