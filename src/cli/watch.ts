/** Tells when something in folders changes. */
import { type FSWatcher, readdirSync, watch } from 'node:fs';
import { join } from 'node:path';

/** Ms without a further change until changes are told: an editor writes more than once, a checkout many files. */
const SETTLE = 100;
/** Folders that are watched at most. */
const MOST = 4096;
const PASSED_OVER = /^(node_modules|\..*)$/;

export interface Watching {
  /** Folders that are being watched. */
  readonly size: number;
  close(): void;
}

/** Calls `changed` behind every burst of changes in these folders and those below, but for node_modules and hidden ones. */
export function watchFolders(roots: readonly string[], changed: () => void): Watching {
  const watchers = new Map<string, FSWatcher>();
  let timer: NodeJS.Timeout | undefined;

  const drop = (folder: string): void => {
    watchers.get(folder)?.close();
    watchers.delete(folder);
  };
  // One watcher for each: the recursive kind of Linux is emulated, and would look into node_modules.
  const add = (folder: string): void => {
    if (watchers.has(folder) || watchers.size >= MOST) return;
    try {
      const watcher = watch(folder, (_, name) => {
        if (name !== null && PASSED_OVER.test(name)) return;
        clearTimeout(timer);
        timer = setTimeout(tell, SETTLE);
      });
      watcher.on('error', () => drop(folder));
      watchers.set(folder, watcher);
      for (const entry of readdirSync(folder, { withFileTypes: true }))
        if (entry.isDirectory() && !PASSED_OVER.test(entry.name)) add(join(folder, entry.name));
    } catch {
      // It has gone meanwhile.
      drop(folder);
    }
  };
  const tell = (): void => {
    timer = undefined;
    // Folders that are new, or have come back.
    for (const folder of [...watchers.keys()]) {
      try {
        for (const entry of readdirSync(folder, { withFileTypes: true }))
          if (entry.isDirectory() && !PASSED_OVER.test(entry.name)) add(join(folder, entry.name));
      } catch {
        drop(folder);
      }
    }
    changed();
  };
  for (const root of roots) add(root);
  return {
    get size() {
      return watchers.size;
    },
    close: () => {
      clearTimeout(timer);
      for (const folder of [...watchers.keys()]) drop(folder);
    },
  };
}
