import { get } from 'node:http';
import { checkAnswer } from '../lib/answer.js';
import { cpuWork } from '../lib/cpu-work.js';
import { log } from '../lib/log.js';
import { ServerProcess } from '../lib/server-process.js';
import { number, table } from '../lib/table.js';

const entries = [entry({ nMin: 1, nMax: 1, queueSize: 1 }, 4), entry({ nMin: 2, nMax: 4, queueSize: 3 }, 10)];

function entry(pool, atOnce) {
  const name = `offloop-max${pool.nMax}-queue${pool.queueSize}`;
  return { name, file: 'offloop-dispatched', options: { handler: 'cpu', ...pool }, atOnce };
}

/** @type {import('../run.js').Scenario} */
export default {
  name: 'bound',
  title: 'More requests at once than nMax + queueSize: exactly the rest gets 503 (300 ms of CPU a request)',
  needsWrk: false,
  entries,

  async run({ entries, settings }) {
    const { iterations, body, env } = await cpuWork(settings.smoke ? 3000 : 300);
    const servers = [];
    for (const entry of entries) {
      servers.push(await holdBound(entry, settings.rounds, body, env));
    }
    return {
      load: { rounds: settings.rounds },
      iterations,
      servers,
      figures: [],
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers }) => [
    table(
      ['server', 'at once', 'wanted', 'bursts right', 'slowest 503 ms', 'Retry-After', ''],
      servers.map((server) => [
        server.name,
        String(server.atOnce),
        `${server.capacity} x 200, ${server.atOnce - server.capacity} x 503`,
        `${server.bursts.filter(({ ok }) => ok).length} of ${server.bursts.length}`,
        number(server.slowestRefusalMs, 1),
        [...new Set(server.bursts.flatMap(({ retryAfter }) => retryAfter))].join(' '),
        server.ok ? 'exact' : 'NOT EXACT',
      ]),
    ),
    ...servers.flatMap(({ name, failure, bursts }) => [
      ...(failure ? [`${name}: ${failure}`] : []),
      ...bursts.filter(({ ok }) => !ok).map(({ statuses }) => `${name}: answered ${statuses.join(', ')}`),
    ]),
  ],
};

/** The same burst several times on one server: what a burst took must have come back before the next. */
async function holdBound({ name, file, options, atOnce }, rounds, body, env) {
  const capacity = options.nMax + options.queueSize;
  const bursts = [];
  let server;
  let failure;
  try {
    server = await ServerProcess.start(file, options, env);
    await checkAnswer(server.url, { body });
    for (let i = 0; i < rounds; i++) {
      bursts.push(await burst(server.url, atOnce, capacity));
      log(`  ${name}  ${atOnce} at once: ${bursts.at(-1).statuses.join(' ')}`);
    }
  } catch (error) {
    failure = error.message;
    log(`  ${name}  FAILED: ${failure}`);
  } finally {
    await server?.stop();
  }
  return {
    name,
    options,
    atOnce,
    capacity,
    ok: failure === undefined && bursts.every(({ ok }) => ok),
    failure,
    slowestRefusalMs: Math.max(...bursts.map(({ slowestRefusalMs }) => slowestRefusalMs)),
    bursts,
  };
}

async function burst(url, atOnce, capacity) {
  const answers = await Promise.all(Array.from({ length: atOnce }, () => timed(url)));
  const refused = answers.filter(({ status }) => status === 503);
  const statuses = answers.map(({ status }) => status).sort();
  const wanted = Array.from({ length: atOnce }, (_, i) => (i < capacity ? 200 : 503));
  return {
    ok: statuses.join() === wanted.join(),
    statuses,
    refusalsMs: refused.map(({ ms }) => ms),
    slowestRefusalMs: Math.max(...refused.map(({ ms }) => ms)),
    retryAfter: refused.map(({ retryAfter }) => retryAfter ?? 'none'),
  };
}

/** One request on a connection of its own. A failure has the status 0. */
function timed(url) {
  const start = performance.now();
  return new Promise((resolve) => {
    get(url, { agent: false }, (res) => {
      const ms = performance.now() - start;
      res
        .resume()
        .on('close', () => resolve({ status: res.statusCode, ms, retryAfter: res.headers['retry-after'] }));
    }).on('error', () => resolve({ status: 0, ms: performance.now() - start }));
  });
}
