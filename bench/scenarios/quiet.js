import { withClient } from '../lib/client-process.js';
import { calibrate, cpuWork } from '../lib/cpu-work.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { spread } from '../lib/stats.js';
import { failures, number, table } from '../lib/table.js';

const WORK_MS = 20;
const QUIET = 64;
const QUIET_PER_SECOND = 400;
/** Busy channels, all of them in half of the workers. */
const BUSY_PER_WORKER = 4;
/** How much of each of those they take. */
const BUSY_SHARE = 0.5;

/**
 * Ways to make a channel. `pinned`: its callbacks run in the worker that opened it. Such a channel shares its worker with
 * the busy ones that live there, so its message waits for the callback that is running and for those that came before: up
 * to 20 ms for each, as long as that worker is busy. All it can expect is that busy channels elsewhere do not touch it. A
 * channel that is not pinned waits as long as all workers are busy.
 */
const kinds = [
  { name: 'asChannel', handler: 'busy-channels', pinned: true },
  { name: 'defineChannel', handler: 'busy-defined', pinned: false },
];

const entries = kinds.flatMap(({ name, handler, pinned }) =>
  [2, 4].map((workers) => ({
    name: `${name}-${workers}-workers`,
    file: 'offloop-watched',
    options: { handler, nMin: workers, nMax: workers },
    workers,
    pinned,
  })),
);

/** Where a quiet channel lives: with busy ones, without, or nowhere in particular. */
const PLACES = ['beside', 'apart', 'anywhere'];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'quiet',
  title: 'Quiet channels while the callbacks of others take 20 ms of CPU: who waits?',
  needsWrk: false,
  defaults: { duration: 10 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, smoke } = settings;
    let work;
    const servers = await measureRounds(entries, {
      rounds,
      beforeRound: async () => {
        await calibrate();
        work = await cpuWork(1);
      },
      env: () => work.env,
      measure: (server, entry, round) => measure(server, entry, { seconds: smoke ? 0.5 : duration, round }),
      describe,
    });
    return {
      load: {
        rounds,
        duration,
        workMs: WORK_MS,
        quiet: QUIET,
        quietPerSecond: QUIET_PER_SECOND,
        busyShare: BUSY_SHARE,
      },
      servers,
      figures: [],
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers }) => [
    table(
      [
        'server',
        'busy channels',
        'alone p50 ms',
        'p99',
        'loaded p50 ms',
        'p99',
        'p99 max',
        'loaded / alone: p99',
        'sent late p99',
      ],
      servers.flatMap(rows),
    ),
    ...failures(servers),
    `Busy channels take as much as ${BUSY_SHARE * 100} % of half of the workers. "Beside": the quiet channel lives in a worker that` +
      ' has busy ones, and waits behind them. "Apart": in another, and only the cores are shared. "Anywhere": it is not pinned.',
  ],
};

async function measure(server, { workers, pinned }, { seconds, round }) {
  return await withClient(async (client) => {
    const busyWorkers = workers / 2;
    const count = QUIET + BUSY_PER_WORKER * workers;
    await client.ask('connect', { url: server.url, count });
    const { busy, places } = share(await client.ask('exchange', { text: 'where' }), busyWorkers, pinned);

    const perMs = (await cpuWork(WORK_MS)).body;
    const [answer] = await client.ask('exchange', { numbers: busy.slice(0, 1), text: String(WORK_MS) });
    if (answer !== perMs) throw new Error(`wrong answer: ${answer} instead of ${perMs}`);

    const total = Object.values(places).flat().length;
    const quiet = Object.entries(places).map(([name, numbers]) => ({
      name,
      numbers,
      text: 'quiet?',
      perSecond: (QUIET_PER_SECOND * numbers.length) / total,
    }));
    const load = {
      name: 'busy',
      numbers: busy,
      text: String(WORK_MS),
      perSecond: (busyWorkers * BUSY_SHARE * 1000) / WORK_MS,
    };
    await client.ask('schedule', { seconds: seconds / 5, seed: 1000, groups: quiet });
    const alone = await client.ask('schedule', { seconds, seed: round, groups: quiet });
    const loaded = await client.ask('schedule', { seconds, seed: round, groups: [...quiet, load] });
    return { ok: true, alone, loaded };
  });
}

/** Who is busy, and where the others live. */
function share(threads, busyWorkers, pinned) {
  const workers = [...new Set(threads)];
  const busyThreads = new Set(workers.slice(0, busyWorkers));
  const numbers = [...threads.keys()];
  const inBusy = numbers.filter((n) => busyThreads.has(threads[n]));
  const busy = pinned
    ? [...busyThreads].flatMap((thread) =>
        inBusy.filter((n) => threads[n] === thread).slice(0, BUSY_PER_WORKER),
      )
    : numbers.slice(0, BUSY_PER_WORKER * busyWorkers);
  const quiet = numbers.filter((n) => !busy.includes(n));
  const of = (name) => (n) =>
    name === (!pinned ? 'anywhere' : busyThreads.has(threads[n]) ? 'beside' : 'apart');
  const places = PLACES.map((name) => [name, quiet.filter(of(name))]);
  return { busy, places: Object.fromEntries(places.filter(([, members]) => members.length > 0)) };
}

function rows(server) {
  const done = finished(server);
  return PLACES.filter((place) => done.some(({ loaded }) => place in loaded.groups)).map((place) => {
    const there = done.filter(({ loaded }) => place in loaded.groups);
    const of = (phase, p) => spread(there.map((sample) => sample[phase].groups[place].latencyMs[p]));
    const ratio = spread(
      there.map(
        ({ alone, loaded }) => loaded.groups[place].latencyMs.p99 / alone.groups[place].latencyMs.p99,
      ),
    );
    return [
      server.name,
      place,
      number(of('alone', 'p50').median, 2),
      number(of('alone', 'p99').median, 2),
      number(of('loaded', 'p50').median, 2),
      number(of('loaded', 'p99').median, 2),
      number(of('loaded', 'p99').max, 2),
      number(ratio.median, 1),
      number(spread(there.map(({ loaded }) => loaded.sentLateMs.p99)).median, 2),
    ];
  });
}

function describe({ alone, loaded }) {
  const places = Object.keys(alone.groups).map((place) => {
    const p99 = (phase) => number(phase.groups[place].latencyMs.p99, 2);
    return `${place}: p99 ${p99(alone)} ms alone, ${p99(loaded)} ms loaded`;
  });
  return places.join('; ');
}
