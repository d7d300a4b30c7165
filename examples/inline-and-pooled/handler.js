// The slow part: a deliberately naive Fibonacci, on a worker thread. The mount is /fib, so pathInfo is /30.
import { json, text } from 'offloop/handlers';

export default function handler(req) {
  const n = Number(req.pathInfo.slice(1));
  if (!Number.isInteger(n) || n < 1 || n > 42) return text('try /fib/30\n', { status: 400 });
  return json({ n, fib: fib(n) });
}

const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2));
