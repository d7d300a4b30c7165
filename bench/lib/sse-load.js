// Run as a program by a ClientProcess: subscribers of an event stream, and one who has events sent to all of them.
import { connect } from 'node:net';
import { Latencies } from './latencies.js';
import { answerDriver } from './serve.js';
import { sourceAddress } from './ws-client.js';

const AT_ONCE = 64;
/** What does not come within that never will. */
const PATIENCE = 30_000;
/** Every event has one of these in it, and nothing else has. */
const MARK = '~'.charCodeAt(0);
const buffer = Buffer.allocUnsafe(256 * 1024);

/** @type {{ socket: import('node:net').Socket, events: number }[]} */
const subscribers = [];
let publisher;
let onEvents = () => {};
let giveUp = () => {};

function open(url, { from, onData }) {
  const { hostname, port } = new URL(url);
  const socket = connect({
    host: hostname,
    port: Number(port),
    noDelay: true,
    localAddress: from,
    onread: {
      buffer,
      callback: (size) => {
        onData(size);
        return true;
      },
    },
  });
  const gone = (error) => giveUp(new Error(`a connection was lost: ${error?.code ?? 'closed'}`));
  return socket.on('error', gone).on('close', () => gone());
}

/** Opens one, and resolves when the head of its stream and the first line have come. */
function subscribe(url, i) {
  return new Promise((resolve, reject) => {
    const subscriber = { socket: undefined, events: 0 };
    giveUp = reject;
    let head = '';
    const opening = (size) => {
      head += buffer.latin1Slice(0, size);
      if (!/\r\n\r\n[\s\S]*:/.test(head)) return;
      if (!/^HTTP\/1.1 200 [\s\S]*content-type: text\/event-stream/i.test(head))
        reject(new Error(`wrong answer: ${head.slice(0, 200)}`));
      onData = events;
      resolve(subscriber);
    };
    const events = (size) => {
      const there = buffer.subarray(0, size);
      let found = 0;
      for (let at = there.indexOf(MARK); at >= 0; at = there.indexOf(MARK, at + 1)) found++;
      subscriber.events += found;
      onEvents(found);
    };
    let onData = opening;
    subscriber.socket = open(url, { from: sourceAddress(url, i), onData: (size) => onData(size) });
    subscriber.socket.write(
      `GET / HTTP/1.1\r\nHost: ${new URL(url).host}\r\nAccept: text/event-stream\r\n\r\n`,
    );
  });
}

/** Asks for events for all. */
function publish(url, times) {
  return new Promise((resolve, reject) => {
    let text = '';
    publisher ??= open(url, { onData: (size) => publisher.heard(size) });
    publisher.heard = (size) => {
      text += buffer.latin1Slice(0, size);
      if (!text.endsWith('published')) return;
      if (text.startsWith('HTTP/1.1 200')) resolve();
      else reject(new Error(`wrong answer: ${text.slice(0, 200)}`));
    };
    publisher.write(`POST /?${times} HTTP/1.1\r\nHost: ${new URL(url).host}\r\nContent-Length: 0\r\n\r\n`);
  });
}

process.once('disconnect', () => process.exit());
answerDriver({
  subscribe: async ({ url, count }) => {
    const start = performance.now();
    let next = 0;
    const lane = async () => {
      while (next < count) subscribers.push(await subscribe(url, next++));
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, lane));
    return { ms: performance.now() - start };
  },

  /** Again and again `times` events, the next when all have got all of them. */
  publish: async ({ url, seconds, times }) => {
    const wanted = subscribers.length * times;
    const latencies = new Latencies();
    for (const subscriber of subscribers) subscriber.events = 0;
    const end = performance.now() + seconds * 1000;
    let rounds = 0;
    do {
      let got = 0;
      let timer;
      const start = performance.now();
      const complete = new Promise((resolve, reject) => {
        giveUp = reject;
        timer = setTimeout(() => reject(new Error(`${got} of ${wanted} events came`)), PATIENCE);
        onEvents = (found) => {
          got += found;
          if (got >= wanted) resolve();
        };
      });
      await Promise.all([publish(url, times), complete.then(() => latencies.add(performance.now() - start))]);
      clearTimeout(timer);
      rounds++;
    } while (performance.now() < end);
    // Right in sum could still be twice for one and never for another.
    const wrong = subscribers.filter(({ events }) => events !== rounds * times).length;
    return { rounds, wrong, latencyMs: latencies.digest() };
  },
});
