/** Handler code that changes on disk while a server runs. */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ask, log, scratch } from './pool-client.js';
import { fixture } from './server.js';

/** What the handler in version.mjs says of itself. */
export interface Said {
  readonly version: string;
  readonly threadId: number;
  readonly id: string | null;
}

interface VersionOptions {
  readonly startWhen?: string;
  readonly stopWhen?: string;
}

/** A handler module on disk, of which one version after the other can be written. */
export interface Code {
  readonly path: string;
  /** Put this version of version.mjs in its place. */
  write(name: string, options?: VersionOptions): void;
  /** Put any text in its place. */
  writeText(text: string): void;
  /** What its workers have noted: `begin`, `start`, `block` or `stop`, the version and the thread. */
  lines(): string[];
  /** How many of these notes there are. */
  count(note: string): number;
}

export function code(first = 'one', options: VersionOptions = {}): Code {
  const path = join(scratch(), 'handler.mjs');
  const notes = log();
  const writeText = (text: string): void => {
    // In one step: a thread that is just reading sees the one or the other.
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
  };
  const write = (name: string, { startWhen, stopWhen }: VersionOptions = {}): void =>
    writeText(
      `import { version } from ${JSON.stringify(pathToFileURL(fixture('pool/version.mjs')).href)};\n` +
        `const about = ${JSON.stringify({ log: notes.path, startWhen, stopWhen })};\n` +
        `const { handler, onWorkerStart, onWorkerStop } = version(${JSON.stringify(name)}, about);\n` +
        'export { handler as default, onWorkerStart, onWorkerStop };\n',
    );
  write(first, options);
  const count = (note: string): number => notes.lines().filter((line) => line.startsWith(`${note} `)).length;
  return { path, write, writeText, lines: notes.lines, count };
}

/** Ask version.mjs. The caller may look at the outcome later. */
export function say(url: string, query: Record<string, string | number> = {}): Promise<Said> {
  const said = ask(url, query).then(({ status, text }) => {
    if (status !== 200) throw new Error(`${status}: ${text}`);
    return JSON.parse(text) as Said;
  });
  said.catch(() => undefined);
  return said;
}
