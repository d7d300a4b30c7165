/** Questions to a child process that answers them with `answerDriver` of lib/serve.js. */
export class Asking {
  #child;
  #next = 0;

  /** @param {import('node:child_process').ChildProcess} child one with an IPC channel */
  constructor(child) {
    this.#child = child;
  }

  /**
   * @param {string} question
   * @param {unknown} [about]
   * @returns {Promise<any>}
   */
  ask(question, about) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const settle = (error, value) => {
        this.#child.off('message', hear).off('close', lost);
        if (error) reject(new Error(`${question}: ${error}`));
        else resolve(value);
      };
      const hear = (message) => {
        if (message.id === id) settle(message.error, message.value);
      };
      const lost = () => settle('the process ended');
      this.#child.on('message', hear).on('close', lost);
      this.#child.send({ id, question, about }, (error) => error && settle(error.message));
    });
  }
}
