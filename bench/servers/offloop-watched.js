// offloop with its log kept and its numbers told to the driver.
import { runServer } from '../../dist/index.js';
import { answerDriver, handlerUrl, ip, options, ready } from '../lib/serve.js';
import { about, keepLog, watchReplacements } from '../lib/watched.js';

const { handler: _, watchMs, ...asked } = options;
const { log, loggers } = keepLog();
const server = await runServer(handlerUrl, { ip, port: 0, ...asked, ...loggers });
const replacements = watchMs && watchReplacements(server, { size: asked.nMin, everyMs: watchMs });

answerDriver({ ...about(server, log), replacements });
ready(server.port, () => server.stop({ timeout: 1000 }));
