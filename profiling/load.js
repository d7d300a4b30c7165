// Run as a program, so that asking is not profiled with the answering: node profiling/load.js '{"url", "scenario", "seconds", "perSecond"?}'.
// Prints how many answers it got; ends with 1 when one was wrong.
import { once } from 'node:events';
import autocannon from 'autocannon';
import { WebSocket } from 'ws';
import { hasWrk, wrk } from '../bench/lib/wrk.js';
import { SCENARIOS } from './scenarios.js';

const { url, scenario, seconds, perSecond } = JSON.parse(process.argv[2]);
const { connections = 32, post, message } = SCENARIOS[scenario];

const answers = message === undefined ? await overHttp() : await overWebSockets();
console.log(JSON.stringify({ answers }));
process.exit(0);

async function overHttp() {
  // It costs a fifth of the other, which is left to the server.
  if (!perSecond && hasWrk()) {
    const { requests, errors, errorCount } = await wrk(url, { duration: seconds, connections, post });
    if (errorCount > 0) throw new Error(`errors: ${JSON.stringify(errors)}`);
    return requests;
  }
  const result = await autocannon({
    url,
    connections,
    duration: seconds,
    ...(perSecond && { overallRate: perSecond, connections: Math.min(connections, 4) }),
    ...(post && { method: 'POST', body: post.body, headers: { 'content-type': post.type } }),
  });
  const { errors, timeouts, non2xx } = result;
  if (errors + timeouts + non2xx > 0)
    throw new Error(`${errors} errors, ${timeouts} timeouts, ${non2xx} answers that are not 2xx`);
  return result['2xx'];
}

/** Closed loop: each connection sends again when its message is back. */
async function overWebSockets() {
  let count = 0;
  const end = performance.now() + seconds * 1000;
  const pause = perSecond ? 4000 / perSecond : 0;
  const one = async () => {
    const socket = new WebSocket(url.replace('http', 'ws'));
    await once(socket, 'open');
    while (performance.now() < end) {
      socket.send(message);
      const [data] = await once(socket, 'message');
      if (data.toString() !== message) throw new Error('a message came back wrong');
      count++;
      if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
    }
    socket.close();
  };
  await Promise.all(Array.from({ length: perSecond ? 4 : connections }, one));
  return count;
}
