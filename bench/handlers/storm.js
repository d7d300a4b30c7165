import '../lib/garbage.js';
import { setTimeout as sleep } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';
import { asChannel, defineChannel, publish } from '../../dist/handlers/index.js';
import { books, fault, topicOf } from '../lib/storm-books.js';

const { opens, closes, kinds, owners, exits } = books;

/** Does what the first word of a message says. */
function obey(channel, id, message) {
  if (opens[id] === 0) fault('messages before onOpen');
  if (closes[id] !== 0) fault('messages after onClose');
  switch (message.split(' ', 1)[0]) {
    case 'echo':
      return channel.send(message);
    case 'later':
      return sleep(1).then(() => channel.send(message));
    case 'publish':
      return publish(topicOf(id), `news ${id}`);
    case 'close':
      return channel.close(4000, 'as you wish');
    case 'exit':
      Atomics.store(exits, threadId, 1);
      return process.exit(1);
    case 'spin':
      for (;;);
    default:
      throw new Error(`a storm knows no ${message}`);
  }
}

/** The second word is a number, one more each time, of messages that are answered. */
const numberOf = (message) => (message.includes(' ') ? Number(message.split(' ')[1]) : null);

const storm = defineChannel('storm', {
  onOpen: (channel) => {
    Atomics.add(opens, channel.state.id, 1);
  },
  onReceive: (channel, message) => {
    const { id, next } = channel.state;
    const number = numberOf(message);
    // One may be missing: of a callback that was running in a thread that died.
    if (number !== null && number < next) fault('messages out of order');
    channel.state = { id, next: number === null ? next : number + 1 };
    return obey(channel, id, message);
  },
  onClose: (channel) => {
    Atomics.add(closes, channel.state.id, 1);
  },
});

/** `/pinned/17` and `/defined/17`: a channel of that kind with that number. */
export default (req) => {
  if (!req.isWebSocket)
    return { status: 200, headers: { 'content-type': 'text/plain' }, body: 'Hello, World!' };
  const [, kind, last] = req.path.split('/');
  const id = Number(last);
  const topics = [topicOf(id)];
  Atomics.store(owners, id, threadId);
  kinds[id] = kind === 'defined' ? 1 : 0;
  if (kind === 'defined') return storm.open(req, { state: { id, next: 0 }, topics });
  let next = 0;
  return asChannel(req, {
    topics,
    onOpen: () => {
      Atomics.add(opens, id, 1);
    },
    onReceive: (channel, message) => {
      const number = numberOf(message);
      if (number !== null && number !== next++) fault('messages out of order');
      return obey(channel, id, message);
    },
    onClose: () => {
      Atomics.add(closes, id, 1);
    },
  });
};
