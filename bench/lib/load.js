// Run as a program, so that nothing else shares its event loop: requests of several kinds, each on a schedule of its
// own (open loop) or so many in flight (closed loop). A request of a schedule is timed from the moment it was due, not
// from when it could be sent: a server that stalls cannot slow down its own questioner.
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { digest, seeded } from './stats.js';
import { sourceAddress } from './ws-client.js';

/**
 * @typedef {object} Kind give `perSecond` or `inFlight`
 * @property {string} name
 * @property {string} path
 * @property {string} [body] what a 200 must answer
 * @property {import('./wrk.js').Post} [post] a POST instead of a GET
 * @property {boolean} [echo] a number of its own follows the path of each request, and is what a 200 must answer
 * @property {number} [perSecond] open loop
 * @property {boolean} [atRandom] at random moments, as independent clients ask, instead of evenly; the same for each seed
 * @property {number} [inFlight] closed loop: the next leaves when the last is answered
 * @property {boolean} [fresh] each request opens a connection
 *
 * @typedef {object} Load
 * @property {string} url
 * @property {number} seconds
 * @property {readonly Kind[]} kinds
 * @property {number} [connections] opened before the start and kept; more are opened when all are waiting
 * @property {number} [giveUpMs]
 * @property {number} [seed]
 */

/** @type {Load} */
const {
  url,
  seconds,
  kinds,
  connections = 8,
  giveUpMs = 10_000,
  seed = 1,
} = JSON.parse(readFileSync(0, 'utf8'));
const { hostname, port, host } = new URL(url);

/** A connection that has one request in flight at most. */
class Connection {
  #received = '';
  #settle = null;
  /** Why it is of no more use. */
  broken = null;

  constructor(localAddress) {
    this.socket = connect({ host: hostname, port: Number(port), noDelay: true, localAddress });
    this.socket.setEncoding('latin1');
    this.socket.on('data', (text) => this.#data(text));
    this.socket.on('error', (error) => this.#fail(error.code ?? error.message));
    this.socket.on('close', () => this.#fail('closed'));
  }

  /** @returns {Promise<{ status?: number, body?: string, failure?: string }>} */
  request(text) {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#fail('timeout'), giveUpMs);
      this.#settle = (outcome) => {
        this.#settle = null;
        clearTimeout(timer);
        resolve(outcome);
      };
      if (this.broken) this.#settle({ failure: this.broken });
      else this.socket.write(text);
    });
  }

  #data(text) {
    this.#received += text;
    const end = this.#received.indexOf('\r\n\r\n');
    if (end < 0) return;
    const head = this.#received.slice(0, end);
    const chunked = /^transfer-encoding: *chunked/im.test(head);
    if (chunked) {
      // No body of the bench has this in it.
      if (!this.#received.endsWith('\r\n0\r\n\r\n')) return;
    } else {
      const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1]);
      if (this.#received.length < end + 4 + length) return;
    }
    const body = this.#received.slice(end + 4);
    const answer = { status: Number(head.slice(9, 12)), body: chunked ? withoutChunks(body) : body };
    this.#received = '';
    this.#settle?.(answer);
  }

  #fail(reason) {
    this.broken ??= reason;
    this.socket.destroy();
    this.#settle?.({ failure: this.broken });
  }
}

function withoutChunks(body) {
  let text = '';
  for (let at = 0; ; ) {
    const line = body.indexOf('\r\n', at);
    const size = Number.parseInt(body.slice(at, line), 16);
    if (size === 0) return text;
    text += body.slice(line + 2, line + 2 + size);
    at = line + 2 + size + 2;
  }
}

const idle = [];
let opened = 0;

/** Those that are kept are few; of new ones there may be more than an address has ports. */
function open(fresh = false) {
  return new Connection(fresh ? sourceAddress(url, opened++) : void opened++);
}

/** The one that has been idle longest, so that none is so long that the server closes it. */
function take() {
  for (let kept = idle.shift(); kept; kept = idle.shift()) if (!kept.broken) return kept;
  return open();
}

const tallies = new Map(
  kinds.map((kind) => [kind, { sent: 0, latency: [], byStatus: new Map(), failures: {}, ids: {} }]),
);
const sentLate = [];
const fromSent = [];
let nextId = 0;
let lastAnswer = 0;

function request(path, post) {
  if (post === undefined) return `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
  const body = post.body.repeat(post.times ?? 1);
  return (
    `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: ${post.type}\r\n` +
    `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  );
}

async function ask(kind, due) {
  const tally = tallies.get(kind);
  const id = nextId++;
  const path = kind.echo ? `${kind.path}${id}` : kind.path;
  const wanted = kind.echo ? String(id) : kind.body;
  const connection = kind.fresh ? open(true) : take();
  const sent = performance.now();
  tally.sent++;
  let { status, body, failure } = await connection.request(request(path, kind.post));
  lastAnswer = performance.now();

  sentLate.push(sent - due);
  fromSent.push(lastAnswer - sent);
  tally.latency.push(lastAnswer - due);
  if (status === 200 && wanted !== undefined && body !== wanted) failure = 'wrong answer';
  if (failure) tally.failures[failure] = (tally.failures[failure] ?? 0) + 1;
  else if (tally.byStatus.has(status)) tally.byStatus.get(status).push(lastAnswer - due);
  else tally.byStatus.set(status, [lastAnswer - due]);
  if (kind.echo && (failure || status !== 200)) {
    tally.ids[failure ?? status] ??= [];
    tally.ids[failure ?? status].push(id);
  }

  if (kind.fresh) connection.socket.destroy();
  else if (!connection.broken) idle.push(connection);
}

/** When the requests of a kind are due, in ms from the start. Kinds of the same rate take turns. */
function moments({ perSecond, atRandom }, place) {
  const gap = 1000 / perSecond;
  if (!atRandom)
    return Array.from(
      { length: Math.round(perSecond * seconds) },
      (_, i) => (i + place / kinds.length) * gap,
    );
  const random = seeded(seed + place);
  const pause = () => -gap * Math.log(1 - random());
  const due = [];
  for (let at = pause(); at < seconds * 1000; at += pause()) due.push(at);
  return due;
}

const schedule = kinds
  .flatMap((kind, place) => (kind.perSecond ? moments(kind, place).map((due) => ({ kind, due })) : []))
  .sort((a, b) => a.due - b.due);

for (let i = 0; i < connections; i++) {
  const connection = open();
  await new Promise((resolve) => connection.socket.once('connect', resolve).once('close', resolve));
  idle.push(connection);
}

const start = performance.now() + 50;
const loops = kinds.flatMap((kind) =>
  Array.from({ length: kind.inFlight ?? 0 }, async () => {
    await sleep(start - performance.now());
    while (performance.now() < start + seconds * 1000) await ask(kind, performance.now());
  }),
);
const pending = [];
for (let next = 0; next < schedule.length; ) {
  // All that is due by now leaves at once: no timer is finer than a millisecond.
  const { kind, due } = schedule[next];
  const wait = start + due - performance.now();
  if (wait > 0) await sleep(wait);
  else {
    pending.push(ask(kind, start + due));
    next++;
  }
}
await Promise.all([...pending, ...loops]);

const took = (lastAnswer - start) / 1000;
const all = [...tallies.values()];
console.log(
  JSON.stringify({
    requests: nextId,
    seconds: took,
    connections: opened,
    latencyMs: digest(all.flatMap(({ latency }) => latency)),
    sentLateMs: digest(sentLate),
    fromSentMs: digest(fromSent),
    kinds: Object.fromEntries(
      [...tallies].map(([{ name }, { sent, latency, byStatus, failures, ids }]) => [
        name,
        {
          sent,
          ok: byStatus.get(200)?.length ?? 0,
          latencyMs: digest(latency),
          // Failures are not among them: they have no status.
          statuses: Object.fromEntries(
            [...byStatus].map(([status, values]) => [
              status,
              { count: values.length, perSecond: values.length / took, latencyMs: digest(values) },
            ]),
          ),
          failures,
          // Of requests with `echo` that were not answered 200, by status or failure.
          ids,
        },
      ]),
    ),
  }),
);
process.exit(0);
