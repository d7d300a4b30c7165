/** Puts code into service when it is saved, for `runDev` and `offloop dev`. */
import type { Server } from '../server.js';
import { importsOf } from './imports.js';
import { WatchedFiles } from './watched-files.js';

/** Ms without a further change until code is reloaded: an editor writes more than once, a checkout many files. */
const SETTLE = 50;

/** What has code to reload; null while it is not running. */
interface Reloadable {
  readonly instance: Server | null;
}

/**
 * Reloads the code of a server when its files change: modules, what they import, and what else is to be watched. Tells of each time, with
 * null or why the new code does not load.
 */
export class Reloader {
  private server: Reloadable | undefined;
  /** Something has changed while the code was loaded for the first time. */
  private missed = false;
  private readonly files: WatchedFiles;
  private timer: NodeJS.Timeout | undefined;
  private file = '';
  private reloading = false;
  private again = false;
  private closed = false;

  constructor(
    private readonly entries: readonly string[],
    private readonly places: readonly string[],
    private readonly onReload: (error: unknown, file: string, ms: number) => void,
  ) {
    this.files = new WatchedFiles((file) => {
      this.file = file;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => void this.reload(), SETTLE).unref();
    });
    this.look();
  }

  attach(server: Reloadable | undefined): void {
    this.server = server;
    if (this.missed) void this.reload();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    this.files.close();
  }

  private look(): void {
    this.files.set(new Set(this.entries.flatMap((entry) => [...importsOf(entry)])), this.places);
  }

  private async reload(): Promise<void> {
    this.again = true;
    if (this.reloading) return;
    this.reloading = true;
    while (this.again && !this.closed) {
      this.again = false;
      const { file } = this;
      // What is imported now may be other files than before, and may change while it is loaded.
      this.look();
      const begin = performance.now();
      const error = await this.load();
      if (!this.closed && error !== STOPPED) this.tell(error, file, Math.round(performance.now() - begin));
    }
    this.reloading = false;
  }

  private async load(): Promise<unknown> {
    this.missed = this.server === undefined;
    const instance = this.server?.instance;
    // It loads the code that is there when it starts.
    if (!instance) return STOPPED;
    try {
      await instance.reload();
      return null;
    } catch (error) {
      return instance.status === 'running' ? error : STOPPED;
    }
  }

  private tell(error: unknown, file: string, ms: number): void {
    try {
      this.onReload(error, file, ms);
    } catch {
      // As for loggers.
    }
  }
}

const STOPPED = Symbol('stopped');
