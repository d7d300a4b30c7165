import { burn } from '../lib/work.js';

// The driver calibrates the number once and hands it to every server, so that all do identical work.
const perMs = Number(process.env.BENCH_ITERATIONS);
if (!(perMs > 0)) throw new Error('BENCH_ITERATIONS must say how much work a millisecond is');

/** Computes for as many milliseconds as the query says. Requests of other servers than offloop have a `url` alone. */
export default ({ query, url }) => ({
  status: 200,
  headers: { 'content-type': 'text/plain' },
  body: String(burn(Math.round(perMs * Number(query ?? url.slice(url.indexOf('?') + 1))))),
});
