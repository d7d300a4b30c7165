// What the scenarios with large bodies share: their size, a client, and the memory of the server watched from outside.
import { checkAnswer } from './answer.js';
import { bars, fromSpread } from './charts.js';
import { withClient } from './client-process.js';
import { judged, perRound } from './figures.js';
import { finished, measureRounds } from './rounds.js';
import { spread } from './stats.js';
import { failures, number, table } from './table.js';

export const MiB = 2 ** 20;
export const GiB = 2 ** 30;
const SMOKE = 4 * MiB;
/** Sent before the measurement, so that code is compiled and buffers have grown. */
const WARM_UP = 64 * MiB;

/** Bytes of the measured body, if there is no bound to it, and of the one before it. */
export const sizes = ({ smoke }) => ({ bytes: smoke ? SMOKE : GiB, warmup: smoke ? 0 : WARM_UP });

/** How much more memory than idle, in MB. */
const MEMORY = { unit: 'MB', atMost: 64 };
/** Its throughput against that of plain Node. */
const SPEED = { unit: 'x', atLeast: 0.8 };

/**
 * Rounds of one large body for each server.
 * @param {readonly any[]} entries
 * @param {object} plan
 * @param {any} plan.settings
 * @param {() => Record<string, string>} [plan.env]
 * @param {(client: any, url: string, entry: any) => Promise<void>} plan.check
 * @param {(client: any, url: string, entry: any, bytes: number) => Promise<{ seconds: number, moved: number }>} plan.move
 */
export async function moveBodies(entries, { settings, env, check, move }) {
  const { bytes, warmup } = sizes(settings);
  const measured = await measureRounds(entries, {
    rounds: settings.rounds,
    env,
    measure: (server, entry) =>
      withClient(async (client) => {
        const { url } = server;
        await checkAnswer(url, { body: 'ready' });
        const idle = server.memory();
        server.resetPeak();
        await check(client, url, entry);
        if (warmup > 0) await move(client, url, entry, warmup);
        const before = { all: server.cpuSeconds(), main: server.mainThreadCpuSeconds() };
        const { seconds, moved } = await move(client, url, entry, bytes);
        const after = { all: server.cpuSeconds(), main: server.mainThreadCpuSeconds() };
        const { now, peak } = server.memory() ?? {};
        return {
          ok: true,
          mbPerSecond: moved / MiB / seconds,
          cpuSeconds: after.all === null ? null : after.all - before.all,
          mainCpuSeconds: after.main === null ? null : after.main - before.main,
          memory: idle && { idle: idle.now, peak, after: now, grown: peak - idle.now },
        };
      }, './body-load.js'),
    describe: ({ mbPerSecond, memory }) =>
      `${number(mbPerSecond)} MB/s, ${number(memory?.idle, 1)} MB idle, ${number(memory?.peak, 1)} MB at most`,
  });
  return measured.map((server) => ({ ...server, ...summary(server) }));
}

function summary(server) {
  const done = finished(server);
  if (done.length === 0) return {};
  const of = (number) => spread(done.map(number));
  return {
    mbPerSecond: of(({ mbPerSecond }) => mbPerSecond),
    cpuSeconds: of(({ cpuSeconds }) => cpuSeconds),
    mainCpuSeconds: of(({ mainCpuSeconds }) => mainCpuSeconds),
    idleMb: of(({ memory }) => memory?.idle),
    grownMb: of(({ memory }) => memory?.grown),
  };
}

/**
 * @param {readonly any[]} servers
 * @param {{ of: string, to: string, what: string }} wanted
 */
export function bodyFigures(servers, { of, to, what }, judge) {
  const [a, b] = [of, to].map((name) => servers.find((server) => server.name === name));
  if (a === undefined) return [];
  const grown = finished(a).flatMap(({ memory }) => memory?.grown ?? []);
  return [
    judged(
      { figure: `${what}: MB/s, ${of} / ${to}`, ...SPEED },
      perRound(a, b, ({ mbPerSecond }) => mbPerSecond),
      judge && a.ok && b?.ok === true,
    ),
    judged({ figure: `${what}: memory of ${of} over idle`, ...MEMORY, worst: true }, grown, judge && a.ok),
  ].filter(Boolean);
}

/** @param {readonly any[]} servers */
export function bodyChart(servers, title) {
  const rows = servers.flatMap(({ name, mbPerSecond }) =>
    mbPerSecond ? [{ name, ...fromSpread(mbPerSecond) }] : [],
  );
  return bars({ title, unit: 'MB/s', rows });
}

/** @param {readonly any[]} servers */
export function bodyTable(servers) {
  return [
    table(
      ['server', 'MB/s', 'min', 'max', 'CPU s', 'main thread', 'MB idle', 'MB more', 'max'],
      servers
        .filter(({ mbPerSecond }) => mbPerSecond)
        .map(({ name, mbPerSecond, cpuSeconds, mainCpuSeconds, idleMb, grownMb }) => [
          name,
          number(mbPerSecond.median),
          number(mbPerSecond.min),
          number(mbPerSecond.max),
          number(cpuSeconds.median, 2),
          number(mainCpuSeconds.median, 2),
          number(idleMb.median, 1),
          number(grownMb.median, 1),
          number(grownMb.max, 1),
        ]),
    ),
    ...failures(servers),
  ].join('\n');
}
