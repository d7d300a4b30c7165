/** Count the primes below `below` by trial division: honest work for one core, and no memory to speak of. */
export function countPrimes(below) {
  let count = below > 2 ? 1 : 0;
  for (let n = 3; n < below; n += 2) {
    let prime = true;
    for (let d = 3; d * d <= n; d += 2) {
      if (n % d === 0) {
        prime = false;
        break;
      }
    }
    if (prime) count++;
  }
  return count;
}

/** How far to count so that it takes about `ms` on this machine. */
export function primesWorth(ms) {
  let below = 50_000;
  for (;;) {
    const began = performance.now();
    countPrimes(below);
    const took = performance.now() - began;
    // The work grows a little slower than below ** 1.5.
    if (took > ms / 4) return Math.round(below * (ms / took) ** (1 / 1.45));
    below *= 2;
  }
}
