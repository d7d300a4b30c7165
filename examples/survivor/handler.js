// A connection that outlives the worker it began in: its callbacks are no closures, and its state is kept with it.
import { threadId } from 'node:worker_threads';
import { defineChannel } from 'offloop/handlers';

const survivor = defineChannel('survivor', {
  onOpen: (channel) => channel.send('say something, or crash'),
  onReceive(channel, message) {
    if (message === 'crash') process.exit(1);
    channel.state.heard.push(String(message));
    channel.send(`worker ${threadId} has heard: ${channel.state.heard.slice(-5).join(', ')}`);
  },
});

export default (req) => survivor.open(req, { state: { heard: [] } });
