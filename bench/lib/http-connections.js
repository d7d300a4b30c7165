// Run as a program by a ClientProcess: connections that did one request and are kept.
import { connect } from 'node:net';
import { answerDriver } from './serve.js';
import { sourceAddress } from './ws-client.js';

const AT_ONCE = 64;
const buffer = Buffer.allocUnsafe(64 * 1024);

let sockets = [];
let problem;

/** Opens one, and resolves when its request has been answered. */
function open(url, i, body) {
  return new Promise((resolve, reject) => {
    const { hostname, port, host } = new URL(url);
    let text = '';
    const socket = connect({
      host: hostname,
      port: Number(port),
      noDelay: true,
      localAddress: sourceAddress(url, i),
      onread: {
        // One for all of them, and nothing kept of what has been read: this process has to be small as well.
        buffer,
        callback: (size) => {
          text += buffer.latin1Slice(0, size);
          const end = text.indexOf('\r\n\r\n');
          if (end < 0 || text.length < end + 4 + body.length) return true;
          if (text.startsWith('HTTP/1.1 200') && text.slice(end + 4) === body) resolve(socket);
          else reject(new Error(`wrong answer: ${text.slice(0, 200)}`));
          text = '';
          return true;
        },
      },
    });
    const gone = (error) => {
      problem ??= `a connection was lost: ${error?.code ?? 'closed'}`;
      reject(new Error(problem));
    };
    socket.on('error', gone).on('close', () => gone());
    socket.write(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  });
}

process.once('disconnect', () => process.exit());
answerDriver({
  /** Opens `count` more, and says how long it took. */
  open: async ({ url, count, body }) => {
    const start = performance.now();
    let next = 0;
    const lane = async () => {
      while (next < count) sockets.push(await open(url, next++, body));
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, lane));
    return { ms: performance.now() - start };
  },

  /** Why they are not all there any more, if that is so. */
  problem: () => problem ?? null,

  close: () => {
    for (const socket of sockets) socket.removeAllListeners('close').destroy();
    sockets = [];
  },
});
