// Run as a program by a ClientProcess: clients that take their time, on purpose or not.
import { connect } from 'node:net';
import { answerDriver } from './serve.js';

/** Each of them does a little so often. */
const EVERY_MS = 100;
/** Bytes that a slow reader takes each time. */
const SIP = 8 * 1024;

/**
 * What each kind does when it has connected, and then again and again.
 * @type {Record<string, { begin: (host: string) => string, step: (socket: import('node:net').Socket) => void, reads?: boolean }>}
 */
const kinds = {
  /** A head that does not end. */
  head: {
    begin: (host) => `GET / HTTP/1.1\r\nHost: ${host}\r\nX-Slow: `,
    step: (socket) => socket.write('x'),
  },
  /** A body that is collected before anything is done with it, byte by byte. */
  body: {
    begin: (host) => `POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 100000\r\n\r\n`,
    step: (socket) => socket.write('x'),
  },
  /** One that is too large for that, and goes to its handler as it comes. */
  largeBody: {
    begin: (host) => `POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 4000000\r\n\r\n`,
    step: (socket) => socket.write('x'),
  },
  /** Wants much, and reads little. */
  reader: {
    begin: (host) => `GET /generated?104857600 HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
    step: (socket) => socket.read(Math.min(SIP, socket.readableLength)),
    reads: true,
  },
};

let clients = [];
let closed = {};
let timer;

function open(url, client) {
  const { hostname, port, host } = new URL(url);
  const { name } = client;
  const { begin, reads } = kinds[name];
  const socket = connect({ host: hostname, port: Number(port), noDelay: true });
  client.socket = socket;
  if (reads) socket.on('readable', () => {});
  else socket.resume();
  socket.on('error', () => {});
  socket.on('close', () => {
    if (timer === undefined) return;
    // Whoever is shown the door comes again.
    closed[name] = (closed[name] ?? 0) + 1;
    open(url, client);
  });
  socket.once('connect', () => socket.write(begin(host)));
  return client;
}

process.once('disconnect', () => process.exit());
answerDriver({
  /** So many of each kind. */
  start: ({ url, each }) => {
    closed = {};
    timer = setInterval(() => {
      for (const { name, socket } of clients) if (socket.readyState === 'open') kinds[name].step(socket);
    }, EVERY_MS);
    clients = Object.entries(each).flatMap(([name, count]) =>
      Array.from({ length: count }, () => open(url, { name })),
    );
  },

  /** How many were closed by the server, by kind. */
  stop: () => {
    clearInterval(timer);
    timer = undefined;
    for (const { socket } of clients) socket.destroy();
    clients = [];
    return closed;
  },
});
