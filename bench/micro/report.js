import { number, table } from '../lib/table.js';

/** The pieces, for those who print and keep results of scenarios. */
export const micro = {
  name: 'micro',
  title: 'What the pieces of the way of a request cost, each alone on one thread',
  report: ({ rows, load }) => [
    ...[...new Set(rows.map(({ group }) => group))].map((group) =>
      table(
        [group, 'ns', 'p99'],
        rows
          .filter((row) => row.group === group)
          .map(({ name, ns }) => [
            name,
            number(ns.p50, ns.p50 < 100 ? 1 : 0),
            number(ns.p99, ns.p99 < 100 ? 1 : 0),
          ]),
      ),
    ),
    `Medians, and the slowest of a hundred, of means over ${load.calls} calls; trips to another thread each for itself. With a clean cache and compiled code` +
      ' every piece is cheaper than in a server, so these numbers are good for comparing a piece with itself.',
  ],
};
