import { setTimeout as sleep } from 'node:timers/promises';
import { withClient } from '../lib/client-process.js';
import { judged } from '../lib/figures.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const CONNECTIONS = 10_000;
const SMOKE_CONNECTIONS = 100;
/** Threads that are ended in a storm: by `process.exit()` and by an endless loop, in turns. */
const KILLS = 8;
/** What makes the server as large as it gets: a storm of its own, in which nobody is ended. */
const WARM_UP = 0.1;
const REST_WITHIN = 20_000;
/** One that no connection of a run gets. */
const LAST_ID = 2 ** 20 - 1;

// The queue has room for what comes while a worker is stuck: with the default one most channels would be closed for that.
const pool = { nMin: 4, nMax: 4, queueSize: 20_000, handlerTimeout: 500, killAfter: 500 };
/** What there is one of for each open channel, of how many of the two kinds; and what else has that name. */
const CLASSES = {
  WebSocketLine: { kinds: 2 },
  LaneOwner: { kinds: 1 },
  DefinedOwner: { kinds: 1 },
  // In each thread, the main one included, the prototype of its subclass looks like one.
  HandlerChannel: { kinds: 1, others: pool.nMin + 1 },
};
const entries = [{ name: 'offloop-storm', file: 'offloop-storm', options: { handler: 'storm', ...pool } }];

const connectionsOf = ({ connections, smoke }) => (smoke ? SMOKE_CONNECTIONS : (connections ?? CONNECTIONS));

/** @type {import('../run.js').Scenario} */
export default {
  name: 'storm',
  title: '10,000 WebSockets that come, talk and go at random while workers are ended: what is left of them?',
  needsWrk: false,
  defaults: { duration: 20, rounds: 1, smoke: 2 },
  openFiles: connectionsOf,
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, smoke } = settings;
    const connections = connectionsOf(settings);
    const killEveryMs = (duration * 1000) / KILLS;
    const servers = await measureRounds(entries, {
      rounds,
      measure: (server, _entry, round) =>
        measure(server, { url: server.url, connections, seconds: duration, killEveryMs, seed: round }),
      describe,
    });
    return {
      load: { rounds, duration, connections, killEveryMs },
      servers,
      figures: servers.flatMap((server) => figures(server, !smoke)),
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, figures }) => [
    table(
      [
        'server',
        'opened',
        'at once',
        'messages',
        'news',
        'kills',
        'refused',
        'lost with a thread',
        'heap MB before',
        'after',
        'log lines',
      ],
      servers.flatMap((server) =>
        finished(server).map(({ load, memory, log }) => [
          server.name,
          number(load.connections),
          number(load.mostOpen),
          number(load.sent),
          number(load.news),
          number(load.kills),
          number(refused(load)),
          number(load.ends[1012] ?? 0),
          number(memory.beforeMb, 1),
          number(memory.afterMb, 1),
          number(log.count),
        ]),
      ),
    ),
    ...servers.flatMap((server) =>
      finished(server).flatMap(({ violations }) =>
        Object.entries(violations).flatMap(([what, count]) =>
          count > 0 ? [`${server.name}: ${what}: ${count}`] : [],
        ),
      ),
    ),
    ...failures(servers),
    figuresTable(figures),
    'Refused: 500, 503 and 504 to a handshake, and 1013. Half of the channels are defined ones, which outlive their thread.',
  ],
};

async function measure(server, plan) {
  return await withClient(async (client) => {
    const small = {
      connections: Math.ceil(plan.connections * WARM_UP),
      seconds: plan.seconds * WARM_UP,
      killEveryMs: Number.MAX_SAFE_INTEGER,
    };
    const calm = await client.ask('storm', { ...plan, ...small });
    await atRest(server);
    const before = await server.ask('memory');
    const { unaccepted, ...load } = await client.ask('storm', plan);
    const { stats, rest } = await atRest(server);
    // Before we look: heap snapshots take a lot.
    const after = await server.ask('memory');

    const log = await server.ask('log');
    const lostCallbacks = log.lines.filter((line) =>
      line.includes('a callback was lost with its worker'),
    ).length;
    const books = await server.ask('books', load.ids);
    const violations = {
      ...load.faults,
      ...books.faults,
      ...Object.fromEntries(
        Object.entries(calm.faults).map(([what, count]) => [`with nobody ended: ${what}`, count]),
      ),
      ...(await objectsLeft(server)),
      'subscribed afterwards': await server.ask('subscribers'),
      'answers missing, and no callback lost': Math.max(0, load.missing - lostCallbacks),
      'not at rest afterwards': Number(!rest),
      'opened twice': books.openedTwice,
      'closed twice': books.closedTwice,
      'closed without having been opened': books.neverOpened,
      'never closed': unexcused(books.neverClosed, new Set(unaccepted), lostCallbacks),
      'threads that died unasked': Math.max(0, stats.pool.crashed - books.exits),
    };
    const violationCount = Object.values(violations).reduce((sum, count) => sum + count, 0);
    return {
      ok: violationCount === 0 && load.kills > 0,
      violations,
      violationCount,
      lostCallbacks,
      books,
      memory: {
        beforeMb: heapMb(before),
        afterMb: heapMb(after),
        growth: heapMb(after) / heapMb(before),
        before,
        after,
      },
      load,
      stats,
      log,
    };
  }, './storm-load.js');
}

/**
 * Objects of channels that are no more. Counted while a few are open: the names of classes are none of our business, so we
 * have to see that they are still what they were.
 */
async function objectsLeft(server) {
  const each = 5;
  return await withClient(async (client) => {
    await client.ask('connect', { url: server.url, path: `/pinned/${LAST_ID}`, count: each });
    await client.ask('connect', { url: server.url, path: `/defined/${LAST_ID}`, count: each });
    const counts = await server.ask('objects', Object.keys(CLASSES));
    await client.ask('close');
    return Object.fromEntries(
      Object.entries(CLASSES).map(([name, { kinds, others = 0 }]) => {
        const left = counts[name] - kinds * each - others;
        if (left < 0) throw new Error(`too few ${name} are seen in the heap: the class has another name now`);
        return [`left of ${name}`, left];
      }),
    );
  });
}

/** Waits until nothing is open, nothing is on its way and every thread is there. */
async function atRest(server) {
  const deadline = performance.now() + REST_WITHIN;
  for (;;) {
    const stats = await server.ask('stats');
    const { open, channels, pool } = stats;
    const { queued, running, pending, workers } = pool;
    const busy =
      open +
      channels +
      queued +
      running +
      pending +
      workers.reduce((sum, worker) => sum + worker.channels, 0);
    const whole = workers.length === pool.nMin && workers.every(({ state }) => state === 'ready');
    // Those that were ended take a while to be gone, if every core is busy.
    if (busy === 0 && whole && (await server.ask('threads')) === pool.nMin) return { stats, rest: true };
    if (performance.now() > deadline) return { stats, rest: false };
    await sleep(50);
  }
}

/**
 * An onClose that was never called is excused by the end of its thread; that of a defined channel only if the thread took the
 * handshake with it, or the callback itself, which is logged.
 */
function unexcused(neverClosed, unaccepted, lostCallbacks) {
  const pinned = neverClosed.filter(({ isDefined, bereft }) => !isDefined && !bereft);
  const defined = neverClosed.filter(
    ({ id, isDefined, bereft }) => isDefined && !(bereft && unaccepted.has(id)),
  );
  return pinned.length + Math.max(0, defined.length - lostCallbacks);
}

const refused = ({ handshakes, ends }) =>
  [handshakes[500], handshakes[503], handshakes[504], ends[1013]].reduce(
    (sum, count) => sum + (count ?? 0),
    0,
  );

const heapMb = ({ main, workers }) =>
  [main, ...workers].reduce((sum, { heapUsed, external }) => sum + heapUsed + external, 0) / 1e6;

function figures(server, judge) {
  const done = finished(server);
  const figure = (what, limits, number) => judged({ figure: what, ...limits }, done.map(number), judge);
  return [
    figure(
      'violations: what must not happen, or be left',
      { atMost: 0, worst: true },
      (sample) => sample.violationCount,
    ),
    figure(
      'heaps afterwards / before',
      { unit: 'x', atMost: 1.5, worst: true },
      ({ memory }) => memory.growth,
    ),
  ].filter(Boolean);
}

function describe({ load, memory, violations, violationCount }) {
  const wrong = Object.entries(violations).filter(([, count]) => count > 0);
  return (
    `${number(load.connections)} opened, ${number(load.sent)} messages, ${load.kills} kills, ` +
    `${number(memory.beforeMb, 1)} to ${number(memory.afterMb, 1)} MB` +
    `${violationCount > 0 ? `, VIOLATIONS ${JSON.stringify(Object.fromEntries(wrong))}` : ''}`
  );
}
