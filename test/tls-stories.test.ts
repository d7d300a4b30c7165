/**
 * What is told of plain connections holds for encrypted ones: the same stories, with servers and clients that speak TLS. Among them what
 * looks at sockets: the read gate, the brake, the table of hang-ups.
 */
import './support/switch-tls-on.js';

await import('./http-disconnect.test.js');
await import('./http-pipelining.test.js');
await import('./channel-websocket.test.js');
await import('./channel-topics.test.js');
await import('./response-streams.test.js');
