// What the scenarios have in common that measure several closed loops on each server.
import { checkAnswer } from './answer.js';
import { bars, fromSpread } from './charts.js';
import { closedLoops, errorsIn, inOrder } from './closed-loops.js';
import { perRound } from './figures.js';
import { finished, measureRounds } from './rounds.js';
import { median, spread } from './stats.js';
import { number, table } from './table.js';

/**
 * Rounds of the same loops on all servers: what `run` of such a scenario does.
 * @param {readonly import('./rounds.js').Entry[]} entries
 * @param {readonly import('./closed-loops.js').Loop[]} loops
 * @param {import('../run.js').Settings} settings
 * @param {number} usual connections if the settings do not say
 */
export async function runLoops(entries, loops, settings, usual) {
  const { rounds, duration, warmup, connections = usual, smoke } = settings;
  const servers = await measureRounds(entries, {
    rounds,
    measure: async (server) => {
      for (const { path, ...expected } of loops) await checkAnswer(server.url + path, expected);
      const results = await closedLoops(server, loops, {
        duration,
        warmup: Math.min(1, warmup),
        connections,
        smoke,
      });
      return { ok: errorsIn(results) === 0, loops: results };
    },
    describe: describeLoops,
  });
  return { load: { rounds, duration, connections }, servers, figures: [], ok: inOrder(servers) };
}

/**
 * A table of answers a second: a row for each server, a column for each loop.
 * @param {string} title
 * @param {readonly any[]} servers results of measureRounds whose samples have `loops`, the result of closedLoops
 * @param {readonly string[]} names of the loops
 * @param {string} [to] the server that all others are divided by
 */
export function ratesTable(title, servers, names, to) {
  const done = servers.filter((server) => finished(server).length > 0);
  const base = done.find(({ name }) => name === to);
  const rows = done.map((server) => [
    server.name,
    ...names.map((name) => {
      const { median } = spread(finished(server).map(({ loops }) => loops[name].perSecond));
      return number(median, median < 100 ? 1 : 0);
    }),
  ]);
  const ratios = done
    .filter((server) => base !== undefined && server !== base)
    .map((server) => [
      `${server.name} / ${to}`,
      ...names.map((name) => number(median(perRound(server, base, ({ loops }) => loops[name].perSecond)), 2)),
    ]);
  return table([title, ...names], [...rows, ...ratios]);
}

/**
 * What an answer costs a server, in microseconds of CPU: all its threads, and of those the main one, which has the sockets.
 * @param {readonly any[]} servers
 * @param {readonly string[]} names
 */
export function cpuTable(servers, names) {
  const done = servers.filter((server) => finished(server).length > 0);
  const micros = (server, name, clock) => {
    const known = finished(server).flatMap(({ loops }) => loops[name][clock] ?? []);
    return number(known.length > 0 ? median(known) * 1e6 : null, 1);
  };
  return table(
    ['CPU us/answer, main thread', ...names],
    done.map((server) => [
      server.name,
      ...names.map((name) => `${micros(server, name, 'cpuSeconds')}, ${micros(server, name, 'ioSeconds')}`),
    ]),
  );
}

/**
 * Answers a second as bars.
 * @param {string} title
 * @param {readonly any[]} servers
 * @param {readonly string[]} names
 */
export function ratesChart(title, servers, names) {
  const done = servers.filter((server) => finished(server).length > 0);
  return bars({
    title,
    unit: 'answers/s',
    rows: names.flatMap((group) =>
      done.map((server) => ({
        group,
        name: server.name,
        ...fromSpread(spread(finished(server).map(({ loops }) => loops[group].perSecond))),
      })),
    ),
  });
}

/** One line of progress. */
const describeLoops = ({ loops }) =>
  Object.entries(loops)
    .map(
      ([name, { perSecond, errors }]) =>
        `${name}: ${number(perSecond)}/s${errors > 0 ? ` WITH ${errors} ERRORS` : ''}`,
    )
    .join(', ');
