import { setTimeout as sleep } from 'node:timers/promises';
import { cpuWork } from '../lib/cpu-work.js';
import { judged } from '../lib/figures.js';
import { watchMemory } from '../lib/memory.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const KILLS_PER_SECOND = 2;
const HUNG_AFTER = 5000;
/** Part of the time that goes by before memory is looked at: until some fifty threads have come and gone the heap still grows into its size. */
const SETTLING = 0.5;
/** Both kinds keep the workers busy all the time: the quick ones travel in batches, the slow ones are hit most. */
const kinds = [
  { name: 'quick', path: '/quick/0.1/', inFlight: 24, echo: true },
  { name: 'slow', path: '/slow/5/', inFlight: 4, echo: true },
];

const pool = { nMin: 2, nMax: 2 };
const entries = [
  {
    name: 'offloop-chaos',
    file: 'offloop-chaos',
    options: { handler: 'counted', mounts: { '/slow': 'counted-slow' }, ...pool },
  },
];

/** @type {import('../run.js').Scenario} */
export default {
  name: 'chaos',
  title: 'Twice a second a worker is ended, whatever it does: does anything fail that need not?',
  needsWrk: false,
  defaults: { duration: 60, rounds: 1, smoke: 2 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, smoke } = settings;
    const { env } = await cpuWork(1);
    const measured = await measureRounds(entries, {
      rounds,
      env: () => env,
      measure: (server) => measure(server, duration, smoke),
      describe,
    });
    const servers = measured;
    return {
      load: { rounds, duration, settling: duration * SETTLING, killsPerSecond: KILLS_PER_SECOND, kinds },
      servers,
      figures: servers.flatMap((server) => figures(server, !smoke)),
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, figures }) => [
    table(
      ['server', 'requests', 'kills', 'failed', 'slowest ms', 'MB at 1/3', 'at the end', 'log lines'],
      servers.flatMap((server) =>
        finished(server).map(({ requests, kills, failed, latencyMs, memory, log }) => [
          server.name,
          number(requests),
          number(kills),
          number(failed),
          number(latencyMs.max),
          number(memory.atThirdMb, 1),
          number(memory.atEndMb, 1),
          number(log.count),
        ]),
      ),
    ),
    ...failures(servers),
    figuresTable(figures),
    'Failed: answered 500, since the handler was running when its thread was ended. Memory: from half of that time on.',
  ],
};

async function measure(server, duration, smoke) {
  const load = { url: server.url, giveUpMs: HUNG_AFTER, kinds };
  await server.ask('startKilling', KILLS_PER_SECOND);
  const [{ kinds: byKind, ...all }, memory] = await Promise.all([
    runLoad({ ...load, seconds: duration * (1 + SETTLING) }),
    sleep(duration * SETTLING * 1000).then(() => watchMemory(server, duration)),
  ]);
  const kills = await server.ask('stopKilling');
  const stats = await settled(server);
  const starts = await server.ask('starts', all.requests);

  const answered = Object.values(byKind);
  const idsOf = (status) => answered.flatMap(({ ids }) => ids[status] ?? []);
  const never = new Set(starts.never);
  const failed = idsOf(500);
  const hung = idsOf('timeout');
  // On a busy machine a smoke run may end threads faster than they start: then the pool has none, and says so.
  const refused = smoke ? idsOf(503) : [];
  const ok = answered.reduce((sum, kind) => sum + kind.ok, 0);
  const violations = {
    // Neither answered by the handler nor 500: a refusal, a connection cut, another request's answer.
    otherAnswers: all.requests - ok - failed.length - hung.length - refused.length,
    // It had not started, so it should have run on another thread. Some were ended before their handler could say which it is.
    failedUnstarted: Math.max(0, failed.filter((id) => never.has(id)).length - starts.unnamed),
    answeredUnstarted: starts.never.filter((id) => ![failed, hung, refused].some((ids) => ids.includes(id)))
      .length,
  };
  const sample = {
    kills,
    failed: failed.length,
    hung: hung.length,
    twice: starts.twice.length,
    violations,
    violationCount: Object.values(violations).reduce((sum, count) => sum + count, 0),
    poolShort: pool.nMin - ready(stats),
    open: stats.open,
    memory,
    stats,
    log: await server.ask('log'),
    kinds: byKind,
    ...all,
  };
  return { ok: sample.violationCount + sample.hung + sample.twice === 0 && kills > 0, ...sample };
}

const ready = (stats) => stats.pool.workers.filter(({ state }) => state === 'ready').length;

/** The numbers when the last replacement has come, or has had ten seconds to come. */
async function settled(server) {
  for (let looks = 0; ; looks++) {
    const stats = await server.ask('stats');
    if ((ready(stats) === pool.nMin && stats.open === 0) || looks === 100) return stats;
    await sleep(100);
  }
}

function figures(server, judge) {
  const done = finished(server);
  const figure = (what, limits, number) => judged({ figure: what, ...limits }, done.map(number), judge);
  const none = { atMost: 0, worst: true };
  return [
    figure('violations: answers that need not or cannot be', none, ({ violationCount }) => violationCount),
    figure('hung for 5 s', none, ({ hung }) => hung),
    figure('handlers run twice', none, ({ twice }) => twice),
    figure('failed more than threads were ended', none, ({ failed, kills }) => Math.max(0, failed - kills)),
    figure('workers missing afterwards', none, ({ poolShort }) => poolShort),
    figure('requests open afterwards', none, ({ open }) => open),
    figure(
      'memory at the end / at a third',
      { unit: 'x', atMost: 1.1, worst: true },
      ({ memory }) => memory.growth,
    ),
  ].filter(Boolean);
}

function describe({ requests, kills, failed, hung, twice, violationCount, violations }) {
  const wrong = violationCount > 0 ? `, VIOLATIONS ${JSON.stringify(violations)}` : '';
  return `${number(requests)} requests, ${kills} kills, ${failed} failed, ${hung} hung, ${twice} twice${wrong}`;
}
