/**
 * Tells when one of a set of files changes, comes or goes. Folders are watched, not files: a file that is saved by putting
 * another in its place, as editors do, would be lost. Node's own watching of one folder does that on all systems, so no library is needed.
 */
import { type FSWatcher, readdirSync, statSync, watch } from 'node:fs';
import { dirname, join } from 'node:path';

/** Ms between looks for folders that are not there: nobody tells when they come. */
const LOOK_EVERY = 500;
const PASSED_OVER = /^(?:node_modules|\..*)$/;

export class WatchedFiles {
  private readonly watchers = new Map<string, FSWatcher>();
  private readonly missing = new Set<string>();
  private files: ReadonlySet<string> = new Set();
  /** Folders of which every file counts. */
  private whole: ReadonlySet<string> = new Set();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly changed: (path: string) => void) {}

  /** Watch these files, and all in these places, from now on, and no others. */
  set(files: ReadonlySet<string>, places: readonly string[]): void {
    const whole = new Set<string>();
    const single = new Set(files);
    for (const place of places) {
      if (statSync(place, { throwIfNoEntry: false })?.isDirectory() === true) addFolders(place, whole);
      else single.add(place);
    }
    this.files = single;
    this.whole = whole;
    const folders = new Set([...whole, ...[...single].map((file) => dirname(file))]);
    for (const folder of this.watchers.keys()) if (!folders.has(folder)) this.drop(folder);
    this.missing.clear();
    for (const folder of folders) if (!this.watchers.has(folder)) this.add(folder);
  }

  close(): void {
    this.missing.clear();
    clearInterval(this.timer);
    for (const folder of this.watchers.keys()) this.drop(folder);
  }

  private add(folder: string): boolean {
    try {
      const watcher = watch(folder, { persistent: false }, (_, name) => this.heard(folder, name));
      watcher.on('error', () => this.lost(folder));
      this.watchers.set(folder, watcher);
      return true;
    } catch {
      this.lost(folder);
      return false;
    }
  }

  private heard(folder: string, name: string | null): void {
    if (name !== null) {
      const path = join(folder, name);
      if (this.files.has(path) || (this.whole.has(folder) && !PASSED_OVER.test(name))) this.changed(path);
    } else this.changed(folder);
    // The last that is heard of a folder is that it has gone.
    if (statSync(folder, { throwIfNoEntry: false }) === undefined) this.lost(folder);
  }

  private drop(folder: string): void {
    this.watchers.get(folder)?.close();
    this.watchers.delete(folder);
  }

  private lost(folder: string): void {
    this.drop(folder);
    this.missing.add(folder);
    this.timer ??= setInterval(this.look, LOOK_EVERY).unref();
  }

  private readonly look = (): void => {
    for (const folder of this.missing) {
      if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) continue;
      this.missing.delete(folder);
      if (this.add(folder)) this.changed(folder);
    }
    if (this.missing.size > 0) return;
    clearInterval(this.timer);
    this.timer = undefined;
  };
}

function addFolders(folder: string, to: Set<string>): void {
  to.add(folder);
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      if (entry.isDirectory() && !PASSED_OVER.test(entry.name)) addFolders(join(folder, entry.name), to);
  } catch {
    // It has gone meanwhile.
  }
}
