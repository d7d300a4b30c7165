import { getEnvironmentData } from 'node:worker_threads';
import burn from './burn.js';

// One byte a request, shared with the server: how often its handler was called.
const starts = new Uint8Array(getEnvironmentData('bench.starts'));
/** How often any was, and how often it got as far as to count that. */
const calls = new Int32Array(getEnvironmentData('bench.calls'));

/** `/name/ms/id`: counts, works, repeats the id. */
export default (req) => {
  Atomics.add(calls, 0, 1);
  const [, , ms, id] = req.path.split('/');
  Atomics.add(starts, Number(id), 1);
  Atomics.add(calls, 1, 1);
  return { ...burn({ query: ms }), body: id };
};
