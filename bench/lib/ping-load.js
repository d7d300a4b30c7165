// Run as a program, so that nothing else shares its event loop: pings at a fixed rate, every other one on a
// connection of its own, the rest on kept ones (or a new one when all are waiting). A ping is timed from the moment it was due, not from when it could be sent: a server that
// stalls cannot slow down its own questioner.
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { percentile } from './stats.js';

const GIVE_UP = 2_000;
const KEPT_CONNECTIONS = 8;

const [url, perSecond, seconds] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const { hostname, port, pathname, host } = new URL(url);
const request = `GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;

/** A connection that has one ping in flight at most. */
class Connection {
  #answer = '';
  #settle = null;
  #failure = null;

  constructor() {
    this.socket = connect({ host: hostname, port: Number(port), noDelay: true });
    this.socket.setEncoding('latin1');
    this.socket.on('data', (text) => this.#data(text));
    this.socket.on('error', (error) => this.#fail(error.code ?? error.message));
    this.socket.on('close', () => this.#fail('closed'));
  }

  /** @returns {Promise<string | null>} what went wrong, or null */
  ping() {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#settle?.('timeout');
        this.socket.destroy();
      }, GIVE_UP);
      this.#settle = (failure) => {
        this.#settle = null;
        clearTimeout(timer);
        resolve(failure);
      };
      if (this.#failure) this.#settle(this.#failure);
      else this.socket.write(request);
    });
  }

  #data(text) {
    this.#answer += text;
    const end = this.#answer.indexOf('\r\n\r\n');
    if (end < 0) return;
    const length = Number(/content-length: *(\d+)/i.exec(this.#answer.slice(0, end))?.[1]);
    if (this.#answer.length < end + 4 + length) return;
    const right = this.#answer.startsWith('HTTP/1.1 200') && this.#answer.slice(end + 4) === 'pong';
    this.#answer = '';
    this.#settle?.(right ? null : 'wrong answer');
  }

  #fail(reason) {
    this.#failure ??= reason;
    this.#settle?.(this.#failure);
  }
}

const idle = [];
for (let i = 0; i < KEPT_CONNECTIONS; i++) {
  const connection = new Connection();
  await connection.ping();
  idle.push(connection);
}

const latency = { fresh: [], kept: [] };
const sentLate = [];
const fromSent = [];
const failures = { fresh: {}, kept: {} };

async function ping(kind, due) {
  const sent = performance.now();
  sentLate.push(sent - due);
  const connection = (kind === 'kept' && idle.shift()) || new Connection();
  const failure = await connection.ping();
  latency[kind].push(performance.now() - due);
  fromSent.push(performance.now() - sent);
  if (failure) failures[kind][failure] = (failures[kind][failure] ?? 0) + 1;
  if (kind === 'kept' && !failure) idle.push(connection);
  else connection.socket.destroy();
}

const interval = 1000 / perSecond;
const total = Math.round(perSecond * seconds);
const start = performance.now() + 50;
const pending = [];
for (let next = 0; next < total; ) {
  const due = start + next * interval;
  const wait = due - performance.now();
  if (wait > 0) await sleep(wait);
  else pending.push(ping(next++ % 2 === 0 ? 'fresh' : 'kept', due));
}
await Promise.all(pending);

const count = (byReason) => Object.values(byReason).reduce((sum, n) => sum + n, 0);
const digest = (values) => ({
  p50: percentile(values, 50),
  p99: percentile(values, 99),
  max: Math.max(...values),
});
console.log(
  JSON.stringify({
    pings: total,
    latencyMs: digest([...latency.fresh, ...latency.kept]),
    freshMs: digest(latency.fresh),
    keptMs: digest(latency.kept),
    sentLateMs: digest(sentLate),
    fromSentMs: digest(fromSent),
    failedAccepts: count(failures.fresh),
    failedKept: count(failures.kept),
    failures,
  }),
);
process.exit(0);
