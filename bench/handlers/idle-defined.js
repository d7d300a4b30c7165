import '../lib/garbage.js';
import { defineChannel } from '../../dist/handlers/index.js';

const idle = defineChannel('idle', {
  onReceive: (channel, message) => {
    channel.state = message;
    channel.send(message);
  },
  onClose: (channel) => channel.send(channel.state),
});

/** As idle.js: what that has in a variable is the state of the channel here. */
export default (req) => {
  if (!req.isWebSocket)
    return { status: 200, headers: { 'content-type': 'text/plain' }, body: 'Hello, World!' };
  return idle.open(req, { state: '' });
};
