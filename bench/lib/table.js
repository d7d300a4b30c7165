/**
 * A table that can be read as it is, and is one in Markdown too.
 * @param {readonly string[]} head
 * @param {readonly (readonly string[])[]} rows the first column is text, the rest numbers
 */
export function table(head, rows) {
  const widths = head.map((title, i) => Math.max(title.length, 3, ...rows.map((row) => row[i].length)));
  const line = (cells) =>
    `| ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(' | ')} |`;
  const rule = widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  return [line(head), line(rule), ...rows.map(line)].join('\n');
}

/** @param {number | null | undefined} value */
export function number(value, digits = 0) {
  if (typeof value !== 'number' || !Number.isFinite(value)) return '-';
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** @param {readonly any[]} servers results of measureThroughput */
export function throughputTable(servers) {
  const head = [
    ...['server', 'requests/s', 'min', 'max', 'p50 ms', 'p99 ms', 'p99.9 ms', 'max ms'],
    ...['CPU us/request', 'peak MB', 'errors'],
  ];
  const rows = servers.map((server) => [
    server.name,
    number(server.requestsPerSecond?.median),
    number(server.requestsPerSecond?.min),
    number(server.requestsPerSecond?.max),
    number(server.latencyMs?.p50.median, 2),
    number(server.latencyMs?.p99.median, 2),
    number(server.latencyMs?.p999.median, 2),
    // The worst of all rounds.
    number(server.latencyMs?.max.max, 1),
    number(server.cpuSecondsPerRequest && server.cpuSecondsPerRequest.median * 1e6, 1),
    number(server.peakMb?.max),
    server.failures.length > 0 ? 'FAILED' : server.errorCount > 0 ? `${server.errorCount} ERRORS` : '0',
  ]);
  const pools = poolTable(servers);
  return [table(head, rows), ...(pools ? [pools] : []), ...failures(servers)].join('\n\n');
}

/** What the pools of those servers did that have one. @param {readonly any[]} servers results of measureThroughput */
function poolTable(servers) {
  const rows = servers.flatMap(({ name, pool }) =>
    pool
      ? [
          [
            name,
            number(pool.queueWaitMs.p50?.median, 2),
            number(pool.queueWaitMs.p99?.median, 2),
            number(pool.batchSize?.median, 1),
            number(pool.refused),
          ],
        ]
      : [],
  );
  if (rows.length === 0) return '';
  return table(['pool of', 'queue wait p50 ms', 'p99 ms', 'requests a batch', 'refused'], rows);
}

/** @param {readonly import('./figures.js').Figure[]} figures */
export function figuresTable(figures) {
  if (figures.length === 0) return '';
  const verdict = { true: 'reached', false: 'MISSED', null: 'not judged' };
  return table(
    ['figure', 'this run', 'target', ''],
    figures.map(({ figure, value, unit, target, reached }) => [
      figure,
      // Without a unit it is a count.
      `${number(value, unit === '' ? 0 : 2)} ${unit}`,
      `${target} ${unit}`,
      verdict[String(reached)],
    ]),
  );
}

/** @param {readonly { name: string, failures: readonly string[] }[]} servers */
export function failures(servers) {
  return servers.flatMap(({ name, failures }) => failures.map((failure) => `${name}: ${failure}`));
}
