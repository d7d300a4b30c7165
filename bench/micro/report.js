import { number, table } from '../lib/table.js';

const nanoseconds = (ns) => number(ns, ns < 100 ? 1 : 0);

/** The pieces, for those who print and keep results of scenarios. */
export const micro = {
  name: 'micro',
  title: 'What the pieces of the way of a request cost, each alone',
  report: ({ rows, load }) => [
    ...[...new Set(rows.map(({ group }) => group))].map((group) => {
      const these = rows.filter((row) => row.group === group);
      return these.some(({ of }) => of !== undefined) ? byNumber(group, these) : plain(group, these);
    }),
    `Nanoseconds: medians, and of the plain ones the slowest of a hundred too, of means over ${load.calls} calls; trips to another thread one by one. Everything is` +
      ' compiled and in the cache here, so a piece is cheaper than it is in a server: the numbers are good for comparing it with itself.',
  ],
};

function plain(group, rows) {
  return table(
    [group, 'ns', 'p99'],
    rows.map(({ name, ns }) => [name, nanoseconds(ns.p50), nanoseconds(ns.p99)]),
  );
}

/** One line for each name, one column for each number that there are. */
function byNumber(group, rows) {
  const all = (field) => [...new Set(rows.map((row) => row[field]))];
  const counts = all('of');
  return table(
    [`${group}, ns by the number of mounts`, ...counts.map((count) => number(count))],
    all('name').map((name) => [
      name,
      ...counts.map((count) =>
        nanoseconds(rows.find((row) => row.name === name && row.of === count)?.ns.p50),
      ),
    ]),
  );
}
