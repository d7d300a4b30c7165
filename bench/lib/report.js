// What is said of a result, to read in a terminal and on a page: every table is one in Markdown too.

/**
 * The readable report of one scenario.
 * @param {import('../run.js').Scenario} scenario
 * @param {any} result of its `run`, or what is kept of it as JSON
 */
export function reportOf(scenario, result) {
  return spaced(scenario.report(result).filter(Boolean).join('\n\n'));
}

/** In Markdown a table is a paragraph of its own. */
function spaced(text) {
  const lines = text.split('\n');
  const isRow = (line) => line?.startsWith('|') ?? false;
  return lines
    .flatMap((line, i) => {
      const before = lines[i - 1];
      return i > 0 && line !== '' && before !== '' && isRow(line) !== isRow(before) ? ['', line] : [line];
    })
    .join('\n');
}

/**
 * The machine and what ran on it, in one sentence or two.
 * @param {any} machine
 */
export function machineText({ cpu, cores, memoryGiB, os, node, engine, offloop, wrk, peers }) {
  const versions = Object.entries({ ...(wrk && { wrk }), ...peers }).map(
    ([name, version]) => `${name} ${version}`,
  );
  return (
    `${cpu}, ${cores} cores, ${memoryGiB} GiB, ${os}, Node ${node.replace('v', '')}; ` +
    `offloop ${offloop ?? '(not built)'}, engine ${engine ?? '(none loads)'}, ${versions.join(', ')}`
  );
}

/** Others that used the machine make figures worthless; null when they did not. */
export function busyText({ busyBefore }) {
  return busyBefore > 0.15
    ? `Others used ${Math.round(busyBefore * 100)} % of the machine before the run: trust it little.`
    : null;
}
