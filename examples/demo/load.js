// Fires the work requests, on a thread of its own. Not the browser: that opens six connections to a host and no more,
// so "100 at once" would wait in the browser's queue instead of the server's. Every request here is a real one, over
// TCP, with a connection to itself.
import { Agent, request } from 'node:http';
import { parentPort, workerData } from 'node:worker_threads';

const { url, below } = workerData;
const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });

// How many requests may be open against the inline handler. It has no queue that could be full: a hundred of them
// would silence the whole server, this page too, until the last one is done.
const INLINE_AT_ONCE = 3;

let where = 'pool';
let keepOpen = 0; // continuous mode: so many requests open at any time
let backOffUntil = 0;
let open = 0;
let waiting = 0; // fired, held back by INLINE_AT_ONCE
const totals = { sent: 0, failed: 0, 200: 0, 503: 0 };
const meanMs = { 200: 0, 503: 0 };
let retryAfter = null;

parentPort.on('message', (message) => {
  if (message.where !== undefined) where = message.where;
  if (message.keepOpen !== undefined) keepOpen = message.keepOpen;
  if (message.fire !== undefined) waiting += message.fire;
  if (message.stop) waiting = 0;
  pump();
});
setInterval(report, 100);

function pump() {
  const limit = where === 'inline' ? INLINE_AT_ONCE : Number.POSITIVE_INFINITY;
  while (waiting > 0 && open < limit) {
    waiting--;
    send();
  }
  // A client with manners: told to come back in a second, it does.
  if (performance.now() < backOffUntil) return;
  while (open < Math.min(keepOpen, limit)) send();
}

function send() {
  open++;
  totals.sent++;
  const began = performance.now();
  const path = where === 'inline' ? '/inline-work' : '/work';
  const req = request(`${url}${path}?below=${below}`, { agent });
  req.on('response', (res) => {
    res.resume().on('end', () => done(res.statusCode, performance.now() - began, res.headers['retry-after']));
  });
  req.on('error', () => done(null));
  req.end();
}

function done(status, ms, after) {
  open--;
  if (status === 200 || status === 503) {
    totals[status]++;
    meanMs[status] = totals[status] === 1 ? ms : meanMs[status] * 0.9 + ms * 0.1;
  } else {
    totals.failed++;
    backOffUntil = performance.now() + 1000;
  }
  if (after !== undefined) {
    retryAfter = Number(after);
    backOffUntil = performance.now() + retryAfter * 1000;
  }
  pump();
}

function report() {
  pump();
  parentPort.postMessage({ where, keepOpen, open, waiting, totals, meanMs, retryAfter });
}
