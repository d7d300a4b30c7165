import '../lib/garbage.js';
import { asChannel } from '../../dist/handlers/index.js';

/** A WebSocket with callbacks and a variable of its own, as a real one has; anything else gets a hello, which warms up. */
export default (req) => {
  if (!req.isWebSocket)
    return { status: 200, headers: { 'content-type': 'text/plain' }, body: 'Hello, World!' };
  let last = '';
  return asChannel(req, {
    onReceive: (channel, message) => {
      last = message;
      channel.send(message);
    },
    onClose: (channel) => channel.send(last),
  });
};
