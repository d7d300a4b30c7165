import { burn } from '../lib/work.js';

// The driver calibrates the number once and hands it to every server, so that all do identical work.
const iterations = Number(process.env.BENCH_ITERATIONS);
if (!(iterations > 0)) throw new Error('BENCH_ITERATIONS must say how much work a request is');

export default () => ({
  status: 200,
  headers: { 'content-type': 'text/plain' },
  body: String(burn(iterations)),
});
