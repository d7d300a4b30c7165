// The program that is profiled: node profiling/server.js SCENARIO. It ends by itself when it is told to, since the tools write down what
// they have when the process ends in order: a signal, or process.exit(), would be too early.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runServer } from '../dist/index.js';
import { SCENARIOS } from './scenarios.js';

const { handler, options = {} } = SCENARIOS[process.argv[2]];
const given = options.dispatch === false ? (await import(handler.href)).default : handler;
const server = await runServer(given, { ip: '127.0.0.1', port: 0, ...options });

/** Requests and WebSockets after which there is load to be profiled. */
const UNDER_LOAD = 30;

/** Whether it is being asked, and has started the threads it wants for that. */
function underLoad() {
  const { answers, channels, pool } = server.stats();
  const served = Object.values(answers).reduce((sum, count) => sum + count, channels);
  return served >= UNDER_LOAD && (pool?.workers ?? []).every(({ state }) => state === 'ready');
}

const ask = {
  stop: () => void setImmediate(() => void server.stop({ timeout: 2000 })),
  /** A CPU profile of each thread at the same time, into the folder, when there is load. */
  threads: async ({ folder, duration }) => {
    while (!underLoad()) await sleep(5);
    const workers = (server.stats().pool?.workers ?? []).map(({ name, threadId }) => ({
      name,
      worker: threadId,
    }));
    const threads = [{ name: 'io-thread', worker: 'io' }, ...workers];
    await Promise.all(
      threads.map(async ({ name, worker }) => {
        const profile = await server.profileWorker({ worker, duration });
        mkdirSync(join(folder, name), { recursive: true });
        writeFileSync(join(folder, name, `${name}.cpuprofile`), JSON.stringify(profile));
      }),
    );
    return threads.map(({ name }) => name);
  },
};
await server.mount(
  async (req) => {
    const { what, ...about } = await req.json();
    return { body: JSON.stringify((await ask[what](about)) ?? null) };
  },
  { path: '/profiling', dispatch: false },
);

console.log(`profiling: ${JSON.stringify({ port: server.port, pid: process.pid })}`);
