// What is in a drawing: whether it shows anything, and whether that is of the right process and thread.
import { readFileSync } from 'node:fs';

/** A drawing that must not pass for a result. */
export class DrawingError extends Error {}

/**
 * Reads what a tool has drawn back out of its page.
 * @type {Record<string, (html: string) => string>} a sentence about it; throws when there is nothing to see
 */
const READERS = {
  doctor: (html) => {
    const { processStat, analysis } = clinicData(html);
    const busy = processStat.filter(({ cpu }) => cpu > 0).length;
    need(processStat.length > 0 && busy > 0, 'there are no samples of the process');
    const found = analysis.issueCategory === 'none' ? 'no issue' : `a hint: ${analysis.issueCategory}`;
    return `${processStat.length} samples of the process, ${found}`;
  },
  bubbleprof: (html) => {
    const { data } = clinicData(html);
    const nodes = data.flatMap((cluster) => cluster.nodes);
    const operations = nodes.reduce((sum, { sources }) => sum + sources.length, 0);
    need(operations > 0, 'there are no asynchronous operations');
    const ours = nodes.filter(({ frames }) => frames.some((frame) => frame.functionName === 'runServer'));
    need(ours.length > 0, 'none of the operations is of the server');
    return `${operations} asynchronous operations in ${data.length} groups`;
  },
  flame: (html) => {
    const { merged } = bundledData(html);
    const frames = framesOf(merged, ({ onStackTop }) => onStackTop.base);
    return onTheIoThread(frames, sum(frames, 'own'), 'samples');
  },
  heapprofiler: (html) => {
    const tree = Object.values(bundledData(html)).find((value) => value?.children && value.value > 0);
    need(tree !== undefined, 'there are no allocations');
    const frames = framesOf(tree, ({ selfValue }) => selfValue);
    return onTheIoThread(frames, sum(frames, 'own'), 'bytes allocated');
  },
};

/** @param {string} tool @param {string} file */
export function checkDrawing(tool, file) {
  return READERS[tool](readFileSync(file, 'utf8'));
}

/**
 * What there is to see in a profile of a thread, and whether it has run code of the server.
 * @param {import('node:inspector').Profiler.Profile} profile
 */
export function checkCpuProfile({ nodes, samples }) {
  need(samples.length > 0, 'there are no samples');
  const idle = new Set(
    nodes.filter(({ callFrame }) => callFrame.functionName === '(idle)').map(({ id }) => id),
  );
  const busy = samples.filter((id) => !idle.has(id)).length;
  return {
    about: `${samples.length} samples, ${Math.round((busy / samples.length) * 100)} % of them busy`,
    served: nodes.some(({ callFrame, hitCount }) => hitCount > 0 && callFrame.url.includes('/dist/')),
  };
}

function need(condition, message) {
  if (!condition) throw new DrawingError(message);
}

/** Only there is dist/index.js run, and only in workers handlers/entry.js. */
function onTheIoThread(frames, total, what) {
  const inFile = (part) => frames.filter(({ file }) => file.includes(part));
  need(total > 0, `there are no ${what}`);
  need(inFile('/dist/handlers/entry').length === 0, 'it is a worker that was drawn, not the I/O thread');
  need(inFile('/dist/').length > 0, `none of the ${total} ${what} is of the server`);
  return `${total} ${what} on the I/O thread, in ${frames.length} functions`;
}

const sum = (list, key) => list.reduce((total, item) => total + item[key], 0);

function framesOf(tree, own) {
  const frames = [];
  const visit = (node) => {
    frames.push({
      name: node.functionName ?? '',
      file: (node.fileName ?? '').replaceAll('\\', '/'),
      own: own(node),
    });
    for (const child of node.children ?? []) visit(child);
  };
  visit(tree);
  return frames;
}

/** doctor and bubbleprof put their data beside the program of the page. */
function clinicData(html) {
  const text = /<script type="application\/json" id="clinic-data">([\s\S]*?)<\/script>/.exec(html)?.[1];
  need(text !== undefined, 'the page has no data');
  return JSON.parse(text);
}

/** flame and heapprofiler put it into the program, as the module data.json. */
function bundledData(html) {
  const text = /data\.json":\[function\(require,module,exports\)\{\s*module\.exports=(\{.*\})/.exec(
    html,
  )?.[1];
  need(text !== undefined, 'the page has no data');
  return JSON.parse(text);
}
