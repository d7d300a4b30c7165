/**
 * Work that cannot be shortened: every round needs the one before it. No allocation, no clock, no sleep, so that
 * a request costs the same number of instructions on every server.
 * @param {number} iterations
 */
export function burn(iterations) {
  let x = 0x9e3779b9 | 0;
  for (let i = 0; i < iterations; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    x = (Math.imul(x, 0x2c1b3c6d) + i) | 0;
  }
  return x >>> 0;
}
