// Server-sent events out of CPU-bound work. In a browser: new EventSource('/?below=5000000').addEventListener('progress', ...)
import { setImmediate as turn } from 'node:timers/promises';
import { eventStream, text } from 'offloop/handlers';

const STEPS = 20;

export default (req) => {
  const below = Number(new URLSearchParams(req.query ?? '').get('below'));
  if (!Number.isInteger(below) || below < 3 || below > 50_000_000)
    return text('try /?below=5000000\n', { status: 400 });
  return eventStream(req, {
    async onOpen(stream) {
      let count = 1; // 2 is prime
      for (let step = 0; step < STEPS; step++) {
        const from = 3 + Math.floor((step * (below - 3)) / STEPS);
        const to = 3 + Math.floor(((step + 1) * (below - 3)) / STEPS);
        for (let n = from | 1; n < to; n += 2) if (isPrime(n)) count++;
        stream.send({ event: 'progress', data: String(Math.round(((step + 1) / STEPS) * 100)) });
        // What is sent leaves when the event loop turns; and if the client has left, it is noticed then.
        await turn();
        if (!stream.channel.isOpen) return;
      }
      stream.send({ event: 'done', data: JSON.stringify({ below, primes: count }) });
      stream.close();
    },
  });
};

function isPrime(n) {
  for (let d = 3; d * d <= n; d += 2) if (n % d === 0) return false;
  return true;
}
