// What a server can tell the driver about itself. On its main thread.
import { inspect } from 'node:util';

/** Far more than an orderly run has; a flood must not fill the memory that is measured. */
const LINES_KEPT = 1000;

/** Loggers that keep what they are told instead of printing it, and the log they write. */
export function keepLog() {
  const log = { count: 0, lines: [] };
  const note = (message, error) => {
    if (log.count++ < LINES_KEPT) log.lines.push(error == null ? message : `${message} ${inspect(error)}`);
  };
  return { log, loggers: { errorLogger: note, warnLogger: note } };
}

/** Answers to the driver's questions, see `answerDriver`. */
export function about(server, log) {
  return { stats: () => server.stats(), rssMb: () => process.memoryUsage.rss() / 2 ** 20, log: () => log };
}

/**
 * Looks again and again how many workers are ready, and notes how long it takes after each kill until there are
 * `size` of them.
 * @param {any} server
 * @param {{ size: number, everyMs: number }} how
 */
export function watchReplacements(server, { size, everyMs }) {
  const backAfterMs = [];
  let killed = 0;
  let since;
  setInterval(() => {
    const { pool } = server.stats();
    const now = performance.now();
    if (pool.killed > killed) since ??= now;
    killed = pool.killed;
    if (since !== undefined && pool.workers.filter(({ state }) => state === 'ready').length >= size) {
      backAfterMs.push(now - since);
      since = undefined;
    }
  }, everyMs).unref();
  return () => ({ killed, backAfterMs, missing: since !== undefined });
}
