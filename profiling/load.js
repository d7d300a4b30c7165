// Run as a program, so that asking is not profiled with the answering: node profiling/load.js '{"url", "scenario", "seconds", "perSecond"?}'.
// Prints how many answers it got; ends with 1 when one was wrong.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import autocannon from 'autocannon';
import { WebSocket } from 'ws';
import { SCENARIOS } from './scenarios.js';

const { url, scenario, seconds, perSecond } = JSON.parse(process.argv[2]);
const { connections = 32, post, message } = SCENARIOS[scenario];

const answers = message === undefined ? await overHttp() : await overWebSockets();
console.log(JSON.stringify({ answers }));
process.exit(0);

async function overHttp() {
  // It costs a fifth of the other, which is left to the server.
  if (!perSecond && !post && spawnSync('wrk', ['-v']).error === undefined) return withWrk();
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

function withWrk() {
  const { stdout } = spawnSync('wrk', ['-t1', `-c${connections}`, `-d${seconds}s`, url], {
    encoding: 'utf8',
  });
  const wrong = /^ *(Non-2xx|Socket errors).*$/m.exec(stdout)?.[0];
  if (wrong !== undefined) throw new Error(wrong.trim());
  return Number(/(\d+) requests in/.exec(stdout)?.[1] ?? 0);
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
