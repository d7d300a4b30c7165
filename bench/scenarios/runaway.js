import { fork } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkAnswer } from '../lib/answer.js';
import { calibrate, cpuWork } from '../lib/cpu-work.js';
import { judged, perRound } from '../lib/figures.js';
import { runLoad } from '../lib/program.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { median } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const WORK_MS = 1;
// Half of what one worker does: the other one is lost for three quarters of the time. Half of what two do would be all
// that is left, and the figure would be about queues that grow.
const PER_SECOND = 500;
/** Few enough for a machine that does other things besides. */
const SMOKE_PER_SECOND = 25;
const SPINS_PER_SECOND = 1;
const HANDLER_TIMEOUT = 500;
const KILL_AFTER = 250;
const LOOK_EVERY = 5;

const entries = [2, 4].flatMap((workers) => [
  entry(`offloop-${workers}-workers`, workers, false),
  entry(`offloop-${workers}-runaway`, workers, true),
  // One worker fewer: the one that would be stuck.
  entry(`offloop-${workers}-neighbour`, workers - 1, false, true),
]);

function entry(name, workers, spins, neighbour = false) {
  const pool = { nMin: workers, nMax: workers, handlerTimeout: HANDLER_TIMEOUT, killAfter: KILL_AFTER };
  const options = { handler: 'runaway', ...pool, watchMs: LOOK_EVERY };
  return { name, file: 'offloop-watched', options, spins, neighbour };
}

const NEIGHBOUR = new URL('../lib/neighbour.js', import.meta.url);

/** @type {import('../run.js').Scenario} */
export default {
  name: 'runaway',
  title: 'An endless loop once a second beside requests of 1 ms: who notices?',
  needsWrk: false,
  defaults: { duration: 15, rounds: 3, smoke: 2 },
  entries,

  async run({ entries, settings }) {
    const { rounds, duration, warmup, smoke } = settings;
    let work;
    const measured = await measureRounds(entries, {
      rounds,
      beforeRound: async () => {
        await calibrate();
        work = await cpuWork(WORK_MS);
      },
      env: () => work.env,
      measure: async (server, { spins, neighbour }) => {
        const beside = neighbour && fork(NEIGHBOUR, [String(HANDLER_TIMEOUT + KILL_AFTER)]);
        try {
          return await measure(server, { body: work.body, duration, warmup, spins, smoke });
        } finally {
          if (beside) beside.kill('SIGKILL');
        }
      },
      describe,
    });
    const servers = measured.map((server) => ({ ...server, ...summary(server) }));
    return {
      load: { rounds, duration, perSecond: PER_SECOND, spinsPerSecond: SPINS_PER_SECOND },
      servers,
      figures: [2, 4].flatMap((workers) => figures(workers, servers, !smoke)),
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, figures }) => [
    table(
      [
        'server',
        'others p50 ms',
        'p99',
        'p99.9',
        'max',
        'sent late p99',
        'endless',
        'slowest 504 ms',
        'killed',
        'slowest back ms',
        'errors',
      ],
      servers.map((server) => [
        server.name,
        number(server.others?.p50, 2),
        number(server.others?.p99, 2),
        number(server.others?.p999, 2),
        number(server.others?.max, 1),
        number(server.sentLateP99Ms, 2),
        number(server.spins),
        number(server.slowestMs, 1),
        number(server.killed),
        number(server.slowestBackMs, 0),
        server.failures.length > 0 ? 'FAILED' : number(server.errorCount),
      ]),
    ),
    ...failures(servers),
    figuresTable(figures),
    `"neighbour": no endless loop in the server; another process takes as much from the machine.`,
    `"back": from the kill until as many workers are ready as before, looked at every ${LOOK_EVERY} ms.`,
  ],
};

async function measure(server, { body, duration, warmup, spins, smoke }) {
  const perSecond = smoke ? SMOKE_PER_SECOND : PER_SECOND;
  const others = { name: 'others', path: `/?${WORK_MS}`, body, perSecond };
  const spin = { name: 'spin', path: '/spin', perSecond: SPINS_PER_SECOND };
  await checkAnswer(server.url + others.path, { body });
  const load = { url: server.url, connections: 32 };
  if (warmup > 0) await runLoad({ ...load, seconds: warmup, kinds: [others] });
  const result = await runLoad({ ...load, seconds: duration, kinds: spins ? [others, spin] : [others] });
  // The last victim has its 504; its thread is ended a moment later, and only then is it in the log.
  if (spins) await untilReplaced(server, result.kinds.spin.sent);

  const { kinds } = result;
  const stuck = kinds.spin?.statuses[504];
  // On a busy machine a smoke run's own may be late.
  const late = smoke ? (kinds.others.statuses[504]?.count ?? 0) : 0;
  const log = await server.ask('log');
  return {
    ok: kinds.others.ok + late === kinds.others.sent && (stuck?.count ?? 0) === (kinds.spin?.sent ?? 0),
    errorCount: kinds.others.sent - kinds.others.ok,
    spins: kinds.spin?.sent ?? 0,
    slowestMs: kinds.spin?.latencyMs.max ?? null,
    named: log.lines.filter((line) => line.includes('spinForEver')).length,
    replacements: await server.ask('replacements'),
    log,
    stats: await server.ask('stats'),
    ...result,
  };
}

async function untilReplaced(server, kills) {
  for (let looks = 0; looks < 200; looks++) {
    const { pool } = await server.ask('stats');
    const ready = pool.workers.filter(({ state }) => state === 'ready').length;
    // One more look of the server's own, so that it has seen that too.
    await sleep(2 * LOOK_EVERY);
    if (pool.killed >= kills && pool.threads === pool.nMin && ready === pool.nMin) return;
  }
}

function summary(server) {
  const done = finished(server);
  if (done.length === 0) return {};
  const of = (number) => median(done.map(number));
  const latency = (p) => of(({ kinds }) => kinds.others.latencyMs[p]);
  const sum = (number) => done.reduce((total, sample) => total + number(sample), 0);
  const back = done.flatMap(({ replacements }) => replacements.backAfterMs);
  return {
    others: { p50: latency('p50'), p99: latency('p99'), p999: latency('p999'), max: latency('max') },
    sentLateP99Ms: of(({ sentLateMs }) => sentLateMs.p99),
    spins: sum(({ spins }) => spins),
    slowestMs: Math.max(...done.map(({ slowestMs }) => slowestMs)) || null,
    killed: sum(({ replacements }) => replacements.killed),
    slowestBackMs: back.length > 0 ? Math.max(...back) : null,
    errorCount: sum(({ errorCount }) => errorCount),
  };
}

function figures(workers, servers, judge) {
  const calm = servers.find(({ name }) => name === `offloop-${workers}-workers`);
  const runaway = servers.find(({ name }) => name === `offloop-${workers}-runaway`);
  const neighbour = servers.find(({ name }) => name === `offloop-${workers}-neighbour`);
  const done = runaway ? finished(runaway) : [];
  const figure = (what, limits, values, mayJudge = judge && runaway?.ok === true) =>
    judged({ figure: `${workers} workers: ${what}`, ...limits }, values, mayJudge);
  return [
    figure(
      'requests not answered as they should be',
      { atMost: 0, worst: true },
      done.map(({ errorCount, spins, kinds }) => errorCount + spins - (kinds.spin.statuses[504]?.count ?? 0)),
      judge,
    ),
    figure(
      'slowest 504',
      { unit: 'ms', atMost: HANDLER_TIMEOUT + 100, worst: true },
      done.map(({ slowestMs }) => slowestMs),
    ),
    figure(
      'p99 of the others, with / without endless loops',
      { unit: 'x', atMost: 1.5 },
      perRound(runaway, calm, ({ kinds }) => kinds.others.latencyMs.p99),
      judge && runaway?.ok === true && calm?.ok === true,
    ),
    figure(
      'p99 of the others, with endless loops / beside a process that takes as much',
      { unit: 'x', atMost: 1.5 },
      perRound(runaway, neighbour, ({ kinds }) => kinds.others.latencyMs.p99),
      judge && runaway?.ok === true && neighbour?.ok === true,
    ),
    figure(
      'endless loops not killed and replaced',
      { atMost: 0, worst: true },
      done.map(({ spins, replacements }) => spins - replacements.killed + Number(replacements.missing)),
    ),
    figure(
      'pool back at its size after a kill',
      { unit: 'ms', atMost: 100, worst: true },
      done.map(({ replacements }) => Math.max(0, ...replacements.backAfterMs)),
    ),
    figure(
      'kills whose line in the log does not name the function',
      { atMost: 0, worst: true },
      done.map(({ replacements, named }) => Math.max(0, replacements.killed - named)),
    ),
  ].filter(Boolean);
}

function describe({ ok, kinds, spins, slowestMs, replacements }) {
  const { p99 } = kinds.others.latencyMs;
  const stuck =
    spins > 0
      ? `, ${spins} endless: slowest 504 ${number(slowestMs, 1)} ms, ${replacements.killed} killed,` +
        ` back after ${number(Math.max(0, ...replacements.backAfterMs))} ms`
      : '';
  const wrong = ok ? '' : `, WITH ERRORS ${JSON.stringify(answers(kinds))}`;
  return `others p99 ${number(p99, 2)} ms${stuck}${wrong}`;
}

function answers(kinds) {
  return Object.fromEntries(
    Object.entries(kinds).map(([name, { statuses, failures }]) => [
      name,
      {
        ...Object.fromEntries(Object.entries(statuses).map(([status, { count }]) => [status, count])),
        ...failures,
      },
    ]),
  );
}
