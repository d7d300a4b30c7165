// The CPU-bound handler. It runs on worker threads at /work and, for comparison, on the I/O thread at /inline-work.
import { json, text } from 'offloop/handlers';
import { countPrimes } from './primes.js';

export default function handler(req) {
  const below = Number(new URLSearchParams(req.query ?? '').get('below'));
  if (!Number.isInteger(below) || below < 1 || below > 5_000_000) {
    return text('below must be a whole number from 1 to 5000000\n', { status: 400 });
  }
  return json({ below, primes: countPrimes(below) });
}
