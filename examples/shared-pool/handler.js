// One module, loaded once in each worker of the pool, whichever server the request came in through.
import { threadId } from 'node:worker_threads';
import { text } from 'offloop/handlers';

export default (req) => text(`port ${req.serverPort}, answered on thread ${threadId}\n`);
