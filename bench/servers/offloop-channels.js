// offloop with what the scenarios about channels want to know of it: messages between threads, memory in use.
import { runServer } from '../../dist/index.js';
import { memoryInUse } from '../lib/garbage.js';
import { lanePosts } from '../lib/lane-count.js';
import { answerDriver, handlerUrl, ip, options, ready } from '../lib/serve.js';
import { about, keepLog } from '../lib/watched.js';

const { handler: _, ...asked } = options;
const { log, loggers } = keepLog();
const server = await runServer(handlerUrl, { ip, port: 0, ...asked, ...loggers });

answerDriver({
  ...about(server, log),
  lanePosts,
  memory: () => memoryInUse(server.stats().pool?.threads ?? 0),
});
ready(server.port, () => server.stop({ timeout: 1000 }));
