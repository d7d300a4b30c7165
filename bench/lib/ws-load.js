// Run as a program by a ClientProcess: many WebSockets, opened once and then measured in several ways.
import { setTimeout as sleep } from 'node:timers/promises';
import { Latencies } from './latencies.js';
import { answerDriver } from './serve.js';
import { seeded } from './stats.js';
import { frame, OPCODE, openAll, sourceAddress, WsClient } from './ws-client.js';

/** @type {WsClient[]} */
let clients = [];
/** Why the connections are of no more use. */
let broken;
let giveUp = nothing;

/** Whatever ends a connection while it is measured makes the measurement worthless. */
function lost({ code, reason, error }) {
  broken ??= new Error(
    `a WebSocket was lost: closed with ${[code, reason, error].filter(Boolean).join(' ')}`,
  );
  giveUp(broken);
}

/** What is asked for is there long before; without an end a lost message would be waited for without an end. */
const PATIENCE = 30_000;

/** Resolves when `start` has its argument called; rejects when a connection is lost, or an answer. */
function measured(start, seconds = 0) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`an answer did not come within ${PATIENCE / 1000} s`)),
      seconds * 1000 + PATIENCE,
    );
    giveUp = (error) => {
      clearTimeout(timer);
      reject(error);
    };
    if (broken) giveUp(broken);
    else
      start(() => {
        clearTimeout(timer);
        resolve();
      });
  });
}

const make = (url, path) => (i) => new WsClient({ url, path, from: sourceAddress(url, i) });

process.once('disconnect', () => process.exit());
answerDriver({
  /** Opens `count` more. They are numbered from 0 on, in the order in which they were begun. */
  connect: async ({ url, path, count }) => {
    const start = performance.now();
    const opened = await openAll(count, make(url, path));
    for (const client of opened) client.onClose = lost;
    clients = clients.concat(opened);
    return { ms: performance.now() - start };
  },

  /** Closes all, and forgets them. */
  close: async () => {
    const ended = clients.map(
      (client) =>
        new Promise((resolve) => {
          client.onClose = resolve;
          client.close();
        }),
    );
    await Promise.all(ended);
    clients = [];
  },

  /** Says one thing on each of `numbers`, and returns what comes back. Bytes are in hex. */
  exchange: async ({ numbers = clients.keys(), text, binary }) => {
    const asked = [...numbers].map((n) => clients[n]);
    const message =
      text === undefined ? frame(OPCODE.binary, Buffer.from(binary, 'hex')) : frame(OPCODE.text, text);
    const answers = new Map();
    await measured((resolve) => {
      for (const client of asked) {
        client.payloads = true;
        client.onMessage = (_client, _length, opcode, payload) => {
          client.payloads = false;
          client.onMessage = nothing;
          answers.set(client, payload.toString(opcode === OPCODE.text ? 'utf8' : 'hex'));
          if (answers.size === asked.length) resolve();
        };
        client.write(message);
      }
    });
    return asked.map((client) => answers.get(client));
  },

  echo,
  publish,
  schedule,
});

function nothing() {}

/**
 * Closed loop: each connection has `inFlight` messages under way, and sends the next when one is back. What came back in
 * one read is answered in one write.
 */
async function echo({ seconds, bytes, inFlight, binary }) {
  const opcode = binary ? OPCODE.binary : OPCODE.text;
  const payload = Buffer.alloc(bytes, 'offloop ');
  const frames = Array.from({ length: inFlight + 1 }, (_, times) => frame(opcode, payload, times));
  const latencies = new Latencies();
  const start = performance.now();
  const end = start + seconds * 1000;
  let out = 0;
  let wrong = 0;
  await measured((resolve) => {
    for (const client of clients) {
      // They come back in the order in which they left.
      const sentAt = new Float64Array(inFlight);
      let oldest = 0;
      let freed = 0;
      let now = 0;
      const send = (times) => {
        const left = performance.now();
        for (let i = times; i > 0; i--) sentAt[(oldest + inFlight - i) % inFlight] = left;
        client.write(frames[times]);
      };
      client.onMessage = (_client, length, got) => {
        if (freed === 0) now = performance.now();
        latencies.add(now - sentAt[oldest]);
        oldest = (oldest + 1) % inFlight;
        freed++;
        if (length !== bytes || got !== opcode) wrong++;
      };
      client.onRead = () => {
        if (freed === 0) return;
        const times = freed;
        freed = 0;
        if (now < end) send(times);
        else {
          out -= times;
          if (out === 0) resolve();
        }
      };
      out += inFlight;
      send(inFlight);
    }
  }, seconds);
  const took = (performance.now() - start) / 1000;
  for (const client of clients) {
    client.onMessage = nothing;
    client.onRead = nothing;
  }
  return {
    messages: latencies.count,
    perSecond: latencies.count / took,
    wrong,
    latencyMs: latencies.digest(),
  };
}

/**
 * Sends the number of messages to publish on the connection `trigger`; the others are the subscribers. Again when all have
 * got all of them.
 */
async function publish({ seconds, trigger, times, bytes }) {
  const ask = frame(OPCODE.text, String(times));
  const subscribers = clients.filter((_, n) => n !== trigger);
  const wanted = subscribers.length * times;
  const latencies = new Latencies();
  let got = 0;
  let wrong = 0;
  let complete = nothing;
  for (const client of subscribers) {
    client.received = 0;
    client.onMessage = (_client, length) => {
      if (length !== bytes) wrong++;
      if (++got === wanted) complete();
    };
  }
  const end = performance.now() + seconds * 1000;
  let rounds = 0;
  do {
    got = 0;
    const start = performance.now();
    await measured((resolve) => {
      complete = resolve;
      clients[trigger].write(ask);
    });
    latencies.add(performance.now() - start);
    rounds++;
  } while (performance.now() < end);
  for (const client of subscribers) client.onMessage = nothing;
  // Right in sum could still be twice for one and never for another.
  wrong += subscribers.filter(({ received }) => received !== rounds * times).length;
  return { rounds, wrong, latencyMs: latencies.digest() };
}

/**
 * Open loop: each group sends its text so many times a second at random moments, on each of its connections in turn, and
 * each message is timed from the moment it was due.
 */
async function schedule({ seconds, seed, groups }) {
  const due = [];
  const results = groups.map(({ name, numbers, text, perSecond }, place) => {
    const random = seeded(seed + place);
    const pause = () => (-1000 / perSecond) * Math.log(1 - random());
    const message = frame(OPCODE.text, text);
    let turn = 0;
    for (let at = pause(); at < seconds * 1000; at += pause()) {
      due.push({ at, place, message, client: clients[numbers[turn++ % numbers.length]] });
    }
    return { name, sent: 0, latencies: new Latencies() };
  });
  due.sort((a, b) => a.at - b.at);

  const start = performance.now() + 50;
  let out = due.length;
  const sentLate = new Latencies();
  const done = measured((resolve) => {
    if (out === 0) resolve();
    for (const { client } of due) {
      client.waiting = [];
      client.onMessage = () => {
        const { place, at } = client.waiting.shift();
        results[place].latencies.add(performance.now() - start - at);
        if (--out === 0) resolve();
      };
    }
  }, seconds);
  done.catch(nothing);
  for (const { at, place, message, client } of due) {
    const wait = start + at - performance.now();
    if (wait > 0) await sleep(wait);
    client.waiting.push({ place, at });
    client.write(message);
    results[place].sent++;
    sentLate.add(performance.now() - start - at);
  }
  await done;
  for (const { client } of due) client.onMessage = nothing;
  return {
    sentLateMs: sentLate.digest(),
    groups: Object.fromEntries(
      results.map(({ name, sent, latencies }) => [name, { sent, latencyMs: latencies.digest() }]),
    ),
  };
}
