// The demo: a page that pings the server while you load its workers with CPU-bound requests.
// npm run demo, then open http://127.0.0.1:8090. Another port: PORT=3000 npm run demo
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { runServer } from 'offloop';
import { file, json } from 'offloop/handlers';
import { primesWorth } from './primes.js';

const here = (name) => new URL(name, import.meta.url);
const PAGE = ['index.html', 'style.css', 'app.js', 'chart.js', 'pinger.js'];
const page = (req) => {
  const name = req.path === '/' ? 'index.html' : req.path.slice(1);
  return PAGE.includes(name)
    ? { headers: { 'cache-control': 'no-cache' }, body: file(here(`page/${name}`)) }
    : null;
};
// At most 64, so that a hundred requests are too many anywhere.
const threads = Math.min(Math.max(2, availableParallelism()), 64);

const server = await runServer(page, {
  ip: '127.0.0.1',
  port: Number(process.env.PORT ?? 8090),
  dispatch: false,
  nMin: threads,
  nMax: threads,
  queueSize: 32, // small, so that you can fill it with one click
  prefix: 'worker-',
  errorLogger(message, error) {
    // A full queue is what this demo is about: the page shows it.
    if (error?.code !== 'OFFLOOP_OVERLOADED') console.error(message, error);
  },
  warnLogger() {},
}).catch((error) => {
  if (error.code !== 'EADDRINUSE') throw error;
  console.error(`Port ${process.env.PORT ?? 8090} is in use. Take another: PORT=8091 npm run demo`);
  process.exit(2);
});

// The same work twice: on the workers, and on the thread that owns the sockets.
await server.mount(here('work.js'), { path: '/work' });
await server.mount(here('work.js'), { path: '/inline-work', dispatch: false });
// And the same ping twice.
await server.mount(here('ping.js'), { path: '/ping', dispatch: false });
await server.mount(here('ping.js'), { path: '/ping-worker' });

const load = new Worker(here('load.js'), { workerData: { url: server.url, below: primesWorth(200) } });
let loadStats = await new Promise((resolve) => load.once('message', resolve));
load.on('message', (stats) => {
  loadStats = stats;
});

// A page that is closed asks for no stats any more: then the machine gets its rest.
const nobodyLooks = setTimeout(() => load.postMessage({ keepOpen: 0, stop: true }), 15_000).unref();
let before = { at: process.uptime(), cpu: process.cpuUsage(), busy: 0 };
function coresBusy() {
  const at = process.uptime();
  if (at - before.at < 0.4) return before.busy;
  const { user, system } = process.cpuUsage(before.cpu);
  before = { at, cpu: process.cpuUsage(), busy: (user + system) / 1e6 / (at - before.at) };
  return before.busy;
}
const stats = () => {
  nobodyLooks.refresh();
  const body = {
    server: server.stats(),
    load: loadStats,
    cores: availableParallelism(),
    coresBusy: coresBusy(),
  };
  return json(body, { headers: { 'cache-control': 'no-store' } });
};
await server.mount(stats, { path: '/stats', dispatch: false });

const inRange = (value, max) => Number.isInteger(value) && value >= 0 && value <= max;
const control = async (req) => {
  if (req.method !== 'POST') return { status: 405, headers: { allow: 'POST' } };
  const { fire, keepOpen, where } = Object(await req.json());
  const good =
    (fire !== undefined || keepOpen !== undefined || where !== undefined) &&
    (fire === undefined || inRange(fire, 100)) &&
    (keepOpen === undefined || inRange(keepOpen, 64)) &&
    (where === undefined || where === 'pool' || where === 'inline');
  if (!good) return { status: 422 };
  load.postMessage({ fire, keepOpen, where, stop: keepOpen === 0 });
  return { status: 204 };
};
await server.mount(control, { path: '/load', dispatch: false });

console.log(`The demo is at ${server.url}`);

async function stop() {
  await load.terminate();
  await server.stop({ timeout: 2000 });
}
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);
