// Run as a program by a ClientProcess: large bodies down and up, over plain sockets, each read into one buffer, since a
// client that costs more than the server would be what is measured.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { blocks } from './blocks.js';
import { ResponseReader } from './response-reader.js';
import { answerDriver } from './serve.js';

const BUFFER = 256 * 1024;
/** What does not move for so long never will. */
const PATIENCE = 30_000;

function open(url, onData) {
  const { hostname, port } = new URL(url);
  const onread = onData && {
    buffer: Buffer.alloc(BUFFER),
    callback: (count, buffer) => {
      onData(buffer.subarray(0, count));
      return true;
    },
  };
  return connect({ host: hostname, port: Number(port), noDelay: true, onread });
}

/**
 * Reads one answer. Resolves with it, `seconds` from the first byte sent to the last one received.
 * @param {string} url
 * @param {(socket: import('node:net').Socket) => unknown} send
 */
function exchange(url, send, { hash = false } = {}) {
  return new Promise((resolve, reject) => {
    const digest = hash ? createHash('sha256') : undefined;
    let text = '';
    const reader = new ResponseReader((bytes) => {
      digest?.update(bytes);
      if (text.length < 200) text += bytes.subarray(0, 200).toString('latin1');
    });
    let start = 0;
    const fail = (error) => {
      socket.destroy();
      reject(error);
    };
    const socket = open(url, (data) => {
      try {
        reader.push(data);
        if (!reader.done) return;
        const seconds = (performance.now() - start) / 1000;
        socket.destroy();
        const { status, bytes } = reader;
        if (status !== 200) throw new Error(`status ${status}: ${text}`);
        resolve({ seconds, bytes, text, hash: digest?.digest('hex') });
      } catch (error) {
        fail(error);
      }
    });
    socket.setTimeout(PATIENCE, () => fail(new Error(`nothing moved for ${PATIENCE / 1000} s`)));
    socket.on('error', fail);
    socket.on('close', () => reject(new Error(`the connection was closed after ${reader.bytes} bytes`)));
    socket.once('connect', () => {
      start = performance.now();
      Promise.resolve(send(socket)).catch(fail);
    });
  });
}

const get = (path) => `GET ${path} HTTP/1.1\r\nHost: bench\r\n\r\n`;

/** Those that read slowly. */
let readers = [];

process.once('disconnect', () => process.exit());
answerDriver({
  download: ({ url, path, hash }) => exchange(url, (socket) => socket.write(get(path)), { hash }),

  upload: ({ url, path, bytes, chunked = false }) =>
    exchange(url, async (socket) => {
      const data = Buffer.concat([...blocks(BUFFER)]);
      const framing = chunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${bytes}`;
      socket.write(`POST ${path} HTTP/1.1\r\nHost: bench\r\n${framing}\r\n\r\n`);
      for (let left = bytes; left > 0; left -= data.length) {
        const part = left < data.length ? data.subarray(0, left) : data;
        socket.cork();
        if (chunked) socket.write(`${part.length.toString(16)}\r\n`);
        let room = socket.write(part);
        if (chunked) room = socket.write(left <= data.length ? '\r\n0\r\n\r\n' : '\r\n');
        socket.uncork();
        if (!room) await once(socket, 'drain');
      }
    }),

  /** Opens `count` connections that ask for the same and read `perSecond` bytes of it, until they are let go. */
  readSlowly: async ({ url, path, count, perSecond }) => {
    const start = performance.now();
    readers = Array.from({ length: count }, () => {
      const reader = { answer: new ResponseReader(), read: 0, problem: undefined, socket: undefined };
      const { hostname, port } = new URL(url);
      const socket = connect({ host: hostname, port: Number(port) });
      reader.socket = socket;
      socket.on('readable', () => {});
      socket.on('error', (error) => {
        reader.problem ??= error.message;
      });
      socket.on('close', () => {
        if (!reader.answer.done) reader.problem ??= 'closed';
      });
      socket.once('connect', () => socket.write(get(path)));
      return reader;
    });
    const every = 50;
    const step = async () => {
      for (let turn = 1; readers.length > 0; turn++) {
        const due = (turn * every * perSecond) / 1000;
        for (const reader of readers) {
          const { socket, answer } = reader;
          const want = Math.min(due - reader.read, socket.readableLength);
          const data = want > 0 ? socket.read(Math.floor(want)) : null;
          if (data === null) continue;
          reader.read += data.length;
          try {
            answer.push(data);
          } catch (error) {
            reader.problem ??= error.message;
          }
        }
        await sleep(start + turn * every - performance.now());
      }
    };
    step().catch((error) => console.error(error));
  },

  /** What they have read so far. */
  slowReaders: () => ({
    bytes: readers.map(({ answer }) => answer.bytes),
    problems: readers.flatMap(({ problem }) => problem ?? []),
  }),

  letGo: () => {
    const all = readers;
    readers = [];
    for (const { socket } of all) socket.destroy();
  },
});
