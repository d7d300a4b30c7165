// Subscribing is all that the workers do here: ticks go from the I/O thread to the sockets.
import { asChannel, eventStream } from 'offloop/handlers';

export default (req) => {
  const symbol = req.path.slice(1);
  if (symbol !== 'ACME' && symbol !== 'GLOBEX') return null; // 404
  if (req.isWebSocket) return asChannel(req, { topics: [`${symbol} for sockets`] });
  return eventStream(req, { topics: [`${symbol} for streams`] });
};
