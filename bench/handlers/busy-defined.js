import { defineChannel } from '../../dist/handlers/index.js';
import { answer } from './busy-channels.js';

const channel = defineChannel('busy', { onReceive: answer });

export default (req) => channel.open(req);
