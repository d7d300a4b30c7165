/** What the command line says while a server runs, and the signals it listens to. */
import { constants } from 'node:os';

/** News go to standard error, so that standard output is for what was asked for. */
export function news(quiet: boolean): (line: string) => void {
  return quiet ? () => undefined : (line) => console.error(`[offloop] ${line}`);
}

export interface Ending {
  /** Finish what is under way, and end. */
  readonly drain: () => Promise<void>;
  /** End at once what would outlive this process. */
  readonly cut?: () => Promise<void>;
}

/**
 * From now on SIGTERM and SIGINT end the process. Until `runs` is called at once: there is nothing to finish yet. From then on the first
 * drains, and the process ends with 0; the second ends it with 128 and the number of the signal.
 */
export function endOnSignals(log: (line: string) => void): {
  runs(ending: Ending): void;
  cuts(cut: () => Promise<void>): void;
} {
  let drain: Ending['drain'] | undefined;
  let cut: Ending['cut'];
  let ending = false;
  const on = (signal: 'SIGINT' | 'SIGTERM'): void => {
    if (!ending && drain !== undefined) {
      ending = true;
      log(`${signal}: finishing what is under way; once more ends at once`);
      drain().then(
        () => process.exit(0),
        (error: unknown) => {
          console.error('[offloop] could not be stopped in an orderly way:', error);
          process.exit(1);
        },
      );
      return;
    }
    const code = 128 + constants.signals[signal];
    if (cut === undefined) process.exit(code);
    void cut().finally(() => process.exit(code));
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, on);
  return {
    cuts: (now) => {
      cut = now;
    },
    runs: (given) => {
      drain = given.drain;
      cut = given.cut ?? cut;
    },
  };
}

/** Lines of names and values, one below the other. */
export function table(rows: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join('\n');
}
