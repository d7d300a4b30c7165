// Sends every message back: text as text, bytes as bytes. All messages of a connection run on one worker, one at a time.
import { asChannel, text } from 'offloop/handlers';

export default (req) => {
  if (!req.isWebSocket)
    return text('this is a WebSocket\n', { status: 426, headers: { upgrade: 'websocket' } });
  return asChannel(req, {
    onReceive: (channel, message) => channel.send(message),
  });
};
