import { Hono } from 'hono';
import { burn } from '../lib/work.js';

// The driver calibrates the number once and hands it to every server, so that all do identical work.
const iterations = Number(process.env.BENCH_ITERATIONS);
if (!(iterations > 0)) throw new Error('BENCH_ITERATIONS must say how much work a request is');

const app = new Hono();
app.get('/', (c) => c.text('Hello, World!'));
app.get('/work', (c) => c.text(String(burn(iterations))));

export default app;
