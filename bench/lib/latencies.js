import { digest } from './stats.js';

/** Many numbers without an allocation for each. */
export class Latencies {
  #values = new Float64Array(1024);
  count = 0;

  add(ms) {
    if (this.count === this.#values.length) {
      const more = new Float64Array(2 * this.count);
      more.set(this.#values);
      this.#values = more;
    }
    this.#values[this.count++] = ms;
  }

  digest() {
    return digest(this.#values.subarray(0, this.count));
  }
}
