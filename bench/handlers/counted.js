import { getEnvironmentData } from 'node:worker_threads';
import burn from './burn.js';

// One byte a request, shared with the server: how often its handler was called.
const starts = new Uint8Array(getEnvironmentData('bench.starts'));

/** `/name/ms/id`: counts, works, repeats the id. */
export default (req) => {
  const [, , ms, id] = req.path.split('/');
  Atomics.add(starts, Number(id), 1);
  return { ...burn({ query: ms }), body: id };
};
