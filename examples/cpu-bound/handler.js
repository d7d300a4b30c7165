// Plain synchronous CPU work: it blocks this worker's thread, and nothing else.
import { pbkdf2Sync } from 'node:crypto';
import { json, text } from 'offloop/handlers';

export default function handler(req) {
  const password = new URLSearchParams(req.query ?? '').get('password');
  if (password === null) return text('try /?password=secret\n', { status: 400 });
  const started = performance.now();
  const key = pbkdf2Sync(password, 'a salt for each user', 300_000, 32, 'sha256');
  return json({ key: key.toString('hex'), ms: Math.round(performance.now() - started) });
}
