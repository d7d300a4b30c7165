// offloop, and somebody who knows all its threads and the engine's topics, without a word from offloop.

import { runServer } from '../../dist/index.js';
import { loadEngine } from '../lib/engine.js';
import { memoryInUse } from '../lib/garbage.js';
import { countObjects } from '../lib/objects.js';
import { answerDriver, handlerUrl, ip, options, ready } from '../lib/serve.js';
import { books, faultsByKind, topics } from '../lib/storm-books.js';
import { threadsAlive, threadsEnded } from '../lib/threads.js';
import { about, keepLog } from '../lib/watched.js';

const { uws } = loadEngine();
const apps = [];
const { App } = uws;
uws.App = (...args) => {
  const app = App(...args);
  apps.push(app);
  return app;
};

const { handler: _, ...asked } = options;
const { log, loggers } = keepLog();
const server = await runServer(handlerUrl, { ip, port: 0, ...asked, ...loggers });

answerDriver({
  ...about(server, log),
  memory: () => memoryInUse(server.stats().pool.threads),
  threads: () => threadsAlive().length,
  objects: (classes) => countObjects(classes, threadsAlive()),
  subscribers: () =>
    topics.reduce((sum, topic) => sum + apps.reduce((n, app) => n + app.numSubscribers(topic), 0), 0),
  /** What the callbacks of the first `count` connections wrote down. */
  books: (count) => {
    const { opens, closes, kinds, owners, exits } = books;
    const ended = new Set(threadsEnded());
    const those = (which) => Array.from({ length: count }, (_, id) => id).filter(which);
    return {
      opened: those((id) => opens[id] > 0).length,
      closed: those((id) => closes[id] > 0).length,
      openedTwice: those((id) => opens[id] > 1).length,
      closedTwice: those((id) => closes[id] > 1).length,
      neverOpened: those((id) => closes[id] > opens[id]).length,
      /** `bereft`: the thread that opened it has ended. */
      neverClosed: those((id) => closes[id] < opens[id]).map((id) => ({
        id,
        isDefined: kinds[id] === 1,
        bereft: ended.has(owners[id]),
      })),
      faults: faultsByKind(),
      ended: ended.size,
      exits: exits.reduce((sum, exit) => sum + exit, 0),
    };
  },
});
ready(server.port, () => server.stop({ timeout: 1000 }));
