/** Where sessions are kept that do not travel in their cookie. */
import { integer } from '../check.js';
import { refuseInWorker } from './request.js';
import { checkOptions } from './rules.js';

/**
 * Keeps sessions for all workers. The key is derived from the id in the cookie, so that who reads the store cannot use the
 * sessions in it. What is thrown or rejected here makes the request fail.
 */
export interface SessionStore {
  /** The data under this key, or null or undefined when there is none or its time is up. */
  get(key: string): Promise<string | null | undefined> | string | null | undefined;
  /** Keep `data` under this key for `ms` milliseconds, in place of what was there. */
  set(key: string, data: string, ms: number): unknown;
  delete(key: string): unknown;
}

export interface MemoryStoreOptions {
  /** Sessions at most; beyond it the one that has not been used for longest goes. Default 10000. */
  max?: number;
}

/**
 * Keeps sessions in the memory of this process, for handlers that run inline. @throws OFFLOOP_NOT_SHARED in a worker,
 * OFFLOOP_BAD_OPTION.
 */
export function memoryStore(options: MemoryStoreOptions = {}): SessionStore {
  checkOptions('memoryStore', options, { max: integer(1, 2 ** 24, 'a whole number from 1 to 2^24') });
  refuseInWorker('memoryStore', 'sessions');
  const max = options.max ?? 10_000;
  // In the order of use: the first is the one that has not been used for longest.
  const sessions = new Map<string, { data: string; ends: number }>();
  return {
    get(key) {
      const found = sessions.get(key);
      if (found === undefined) return undefined;
      sessions.delete(key);
      if (found.ends <= Date.now()) return undefined;
      sessions.set(key, found);
      return found.data;
    },
    set(key, data, ms) {
      sessions.delete(key);
      sessions.set(key, { data, ends: Date.now() + ms });
      if (sessions.size > max) sessions.delete(sessions.keys().next().value as string);
    },
    delete(key) {
      sessions.delete(key);
    },
  };
}
