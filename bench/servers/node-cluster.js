// What people do today to use their cores: node:http in as many processes, by node:cluster as it comes.
import cluster from 'node:cluster';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { availableParallelism } from 'node:os';
import { handlerUrl, ip, options, ready } from '../lib/serve.js';

if (cluster.isPrimary) {
  const members = Array.from({ length: options.processes ?? availableParallelism() }, () => cluster.fork());
  // All of them get the port that the first one is given.
  const [[{ port }]] = await Promise.all(members.map((member) => once(member, 'listening')));
  ready(
    port,
    () => {},
    members.map((member) => member.process.pid),
  );
} else {
  const { default: handler } = await import(handlerUrl.href);

  const server = createServer((req, res) => {
    const answer = handler(req);
    res.writeHead(answer.status, { ...answer.headers, 'content-length': Buffer.byteLength(answer.body) });
    res.end(answer.body);
  });
  server.listen(0, ip);
}
