import { defineChannel } from '../../dist/handlers/index.js';

const echo = defineChannel('echo', { onReceive: (channel, message) => channel.send(message) });

/** Sends every message back, from whichever worker has time. */
export default (req) => echo.open(req);
