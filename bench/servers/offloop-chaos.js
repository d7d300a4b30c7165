// offloop, and somebody who ends its threads. That comes first: it must know of all of them.

import { setEnvironmentData } from 'node:worker_threads';
import { runServer } from '../../dist/index.js';
import { answerDriver, handlerFile, handlerUrl, ip, options, ready } from '../lib/serve.js';
import { endOneAtRandom } from '../lib/threads.js';
import { about, keepLog } from '../lib/watched.js';

/** More requests than any run sends. Memory that is not touched costs nothing. */
const REQUESTS_AT_MOST = 2 ** 25;

const starts = new Uint8Array(new SharedArrayBuffer(REQUESTS_AT_MOST));
setEnvironmentData('bench.starts', starts.buffer);
const calls = new Int32Array(new SharedArrayBuffer(8));
setEnvironmentData('bench.calls', calls.buffer);

const { handler: _, mounts, ...asked } = options;
const { log, loggers } = keepLog();
const server = await runServer(handlerUrl, { ip, port: 0, ...asked, ...loggers });
for (const [path, name] of Object.entries(mounts)) await server.mount(handlerFile(name), { path });

let timer;
let kills = 0;
answerDriver({
  ...about(server, log),
  startKilling: (perSecond) => {
    timer = setInterval(() => {
      if (endOneAtRandom()) kills++;
    }, 1000 / perSecond);
  },
  stopKilling: () => {
    clearInterval(timer);
    return kills;
  },
  /** Which of the first `total` requests were never started, and which more than once; how many were before they could say which they are. */
  starts: (total) => {
    const ids = (wrong) =>
      [...starts.subarray(0, total).entries()].flatMap(([id, times]) => (wrong(times) ? [id] : []));
    const unnamed = Atomics.load(calls, 0) - Atomics.load(calls, 1);
    return { never: ids((times) => times === 0), twice: ids((times) => times > 1), unnamed };
  },
});
ready(server.port, () => server.stop({ timeout: 1000 }));
