// What is drawn of a result, as specifications of Vega-Lite. Nothing is drawn here, so nothing has to be installed.

/**
 * The chart of a result: the scenario's own, else requests a second if that is what was measured. Undefined if there is none.
 * @param {import('../run.js').Scenario} scenario
 * @param {any} result
 */
export function chartOf(scenario, result) {
  if (scenario.chart) return scenario.chart(result);
  const servers = Array.isArray(result.servers) ? result.servers : [];
  if (!servers.some(({ requestsPerSecond }) => requestsPerSecond)) return undefined;
  return bars({ title: scenario.title, unit: 'requests/s', rows: throughputRows(servers) });
}

/**
 * @param {readonly any[]} servers results of measureThroughput
 * @param {string} [group]
 */
export function throughputRows(servers, group) {
  return servers.flatMap(({ name, requestsPerSecond }) =>
    requestsPerSecond ? [{ name, group, ...fromSpread(requestsPerSecond) }] : [],
  );
}

/**
 * Percentiles of servers beside each other, on a logarithmic scale: they lie far apart.
 * @param {{ title: string, rows: readonly { name: string, latency?: Record<string, number> }[], shown?: Record<string, string> }} chart
 *   `shown`: what each is called
 */
export function latencies({ title, rows, shown = { p50: 'p50', p99: 'p99', p999: 'p99.9' } }) {
  return bars({
    title,
    unit: 'ms',
    log: true,
    rows: rows.flatMap(({ name, latency }) =>
      latency ? Object.entries(shown).map(([p, part]) => ({ name, part, value: latency[p] })) : [],
    ),
  });
}

/** Of one row: its value, and from where to where the rounds went. */
export const fromSpread = ({ median, min, max }) => ({ value: median, min, max });

/**
 * Bars from left to right, one for each row, with a line from the lowest round to the highest.
 * @param {object} chart
 * @param {string} chart.title
 * @param {string} chart.unit what the numbers are
 * @param {readonly { name: string, value: number, min?: number, max?: number, group?: string, part?: string }[]} chart.rows rows
 *   of the same `group` stand together under its name; of the same name stand together and are told apart by the colour of `part`
 * @param {boolean} [chart.log] a logarithmic scale
 */
export function bars({ title, unit, rows, log = false }) {
  const names = [...new Set(rows.map(({ name }) => name))];
  const parts = [...new Set(rows.flatMap(({ part }) => part ?? []))];
  const groups = [...new Set(rows.flatMap(({ group }) => group ?? []))];
  const least = Math.min(...rows.map(({ value, min = value }) => min));
  const from = log ? 10 ** Math.floor(Math.log10(least / 2)) : 0;
  const values = rows.map(({ value, ...row }) => ({ ...row, value, from, text: short(value) }));
  const scale = log ? { type: 'log', domainMin: from } : { zero: true };
  const offset = parts.length > 0 ? { yOffset: { field: 'part', sort: parts } } : {};
  const color =
    parts.length > 0
      ? { color: { field: 'part', type: 'nominal', sort: parts, legend: { title: null, orient: 'top' } } }
      : { color: { value: '#0969da' } };
  const place = { y: { field: 'name', type: 'nominal', sort: names, title: null }, ...offset };
  const value = { field: 'value', type: 'quantitative', scale, title: unit };
  const layers = {
    width: 480,
    height: { step: parts.length > 0 ? 16 : 26 },
    encoding: place,
    layer: [
      { mark: { type: 'bar' }, encoding: { x: value, x2: { field: 'from' }, ...color } },
      {
        transform: [{ filter: 'isValid(datum.min)' }],
        mark: { type: 'rule', color: '#1f2328', opacity: 0.55, strokeWidth: 1.5 },
        encoding: { x: { field: 'min', type: 'quantitative', title: unit }, x2: { field: 'max' } },
      },
      {
        mark: { type: 'text', align: 'left', dx: 6, color: '#1f2328', fontSize: 11 },
        encoding: {
          x: { field: 'end', type: 'quantitative', title: unit },
          text: { field: 'text' },
        },
      },
    ],
  };
  for (const row of values) row.end = Math.max(row.value, row.max ?? 0);
  const data = { values };
  if (groups.length === 0) return { title: wrapped(title), data, ...layers };
  const header = { title: null, labelAngle: 0, labelAlign: 'left', labelOrient: 'top', labelAnchor: 'start' };
  return {
    title: wrapped(title),
    data,
    facet: { row: { field: 'group', type: 'nominal', sort: groups, header } },
    spec: layers,
    resolve: { scale: { x: 'independent', y: 'independent' } },
  };
}

/**
 * Lines over a number, in panels beside each other.
 * @param {object} chart
 * @param {string} chart.title
 * @param {string} chart.x what the number is
 * @param {string} chart.unit what the values are
 * @param {readonly { panel: string, line: string, x: number, value: number }[]} chart.rows
 */
export function lines({ title, x, unit, rows }) {
  const all = (field) => [...new Set(rows.map((row) => row[field]))];
  return {
    title: wrapped(title),
    data: { values: rows },
    facet: { field: 'panel', type: 'nominal', sort: all('panel'), header: { title: null } },
    columns: 2,
    spec: {
      width: 300,
      height: 190,
      mark: { type: 'line', point: { size: 28 }, strokeWidth: 2 },
      encoding: {
        x: { field: 'x', type: 'ordinal', title: x, axis: { labelAngle: 0, grid: false } },
        y: { field: 'value', type: 'quantitative', title: unit, scale: { zero: true } },
        color: {
          field: 'line',
          type: 'nominal',
          sort: all('line'),
          legend: { title: null, orient: 'bottom', columns: 3 },
        },
      },
    },
    resolve: { scale: { y: 'independent' } },
  };
}

/** Lines of a title that fit over a chart. */
function wrapped(title) {
  return title.match(/.{1,70}(?= |$)/g).map((line) => line.trim());
}

function short(value) {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
