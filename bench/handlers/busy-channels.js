import { threadId } from 'node:worker_threads';
import { asChannel } from '../../dist/handlers/index.js';
import burn from './burn.js';

/** `where` is answered with the thread, a number with so many milliseconds of work, and anything else with itself. */
export function answer(channel, message) {
  if (message === 'where') channel.send(String(threadId));
  else if (Number(message) > 0) channel.send(burn({ query: message }).body);
  else channel.send(message);
}

export default (req) => asChannel(req, { onReceive: answer });
