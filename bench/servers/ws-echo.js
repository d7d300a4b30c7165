// What most people use: the ws package on one event loop.
import { WebSocketServer } from 'ws';
import { ip, ready } from '../lib/serve.js';

const server = new WebSocketServer({ host: ip, port: 0, perMessageDeflate: false });
server.on('connection', (ws) => {
  ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
});
server.on('listening', () => ready(server.address().port));
