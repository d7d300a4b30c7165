// On the worker threads: this computes, and nobody else has to wait for it.
import { type Handler, json } from 'offloop/handlers';
import { countPrimes } from './count-primes.js';

const handler: Handler = (req) => {
  if (req.path !== '/') return null; // nothing = 404
  const below = Number(new URLSearchParams(req.query ?? '').get('below') ?? 1000);
  if (!Number.isInteger(below) || below < 0 || below > 50_000_000)
    return json({ error: 'below is a whole number up to 50000000' }, { status: 422 });
  return json({ below, primes: countPrimes(below) });
};

export default handler;
