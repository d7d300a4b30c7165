import { asChannel } from '../../dist/handlers/index.js';

/** Sends every message back. */
export default (req) => asChannel(req, { onReceive: (channel, message) => channel.send(message) });
