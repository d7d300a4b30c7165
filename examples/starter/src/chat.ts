// A WebSocket: what one client says, all of them hear, whichever worker they are with.
import { asChannel, type Handler, publish } from 'offloop/handlers';

const handler: Handler = (req) => {
  if (!req.isWebSocket)
    return { status: 426, headers: { upgrade: 'websocket' }, body: 'connect with a WebSocket' };
  return asChannel(req, {
    topics: ['chat'],
    onReceive: (_channel, message) => publish('chat', message),
  });
};

export default handler;
