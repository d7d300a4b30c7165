/** Finds the file to send: the one that was asked for, or an encoded form that lies beside it. */
import type { FileOptions } from '../file.js';
import type { RequestInfo } from '../respond.js';
import { disk } from './disk.js';
import { acceptable, ENDINGS, type Encoding } from './encodings.js';
import type { Fields } from './fields.js';
import { type OpenFile, openFile } from './open.js';

/** An open file, and the coding it is in. */
export interface FoundFile {
  readonly file: OpenFile;
  readonly encoding: Encoding | undefined;
}

const PREFERENCE: readonly Encoding[] = ['br', 'zstd', 'gzip'];

/** The encoded forms to look for, best first. That there may be some is said in Vary. */
export function encodingsFor(options: FileOptions, fields: Fields, { headers }: RequestInfo): Encoding[] {
  const { precompressed = false } = options;
  // A handler that names the coding has chosen the file.
  if (precompressed === false || fields.has('content-encoding')) return [];
  vary(fields);
  return acceptable(headers['accept-encoding'], precompressed === true ? PREFERENCE : precompressed);
}

function vary(fields: Fields): void {
  const given = [fields.value('vary') ?? []].flat();
  const names = given
    .join(',')
    .split(',')
    .map((name) => name.trim().toLowerCase());
  if (!names.includes('accept-encoding') && !names.includes('*'))
    fields.set('vary', [...given, 'accept-encoding'].join(', '));
}

/** The file, or one of its encoded forms that lies beside it: not if that is older, since it is of an older file then. */
export async function findFile(
  path: string,
  root: string | undefined,
  encodings: readonly Encoding[],
): Promise<FoundFile | null> {
  const file = await openFile(path, root, disk());
  if (file === null) return null;
  try {
    for (const encoding of encodings) {
      const beside = path + ENDINGS[encoding];
      // To be told that there is none costs an exception.
      if (!(await disk().exists(beside))) continue;
      // One that cannot be read is none: there is something else to send.
      const encoded = await openFile(beside, root, disk()).catch(() => null);
      if (encoded === null) continue;
      // No coding makes nothing of something: one that is empty has not been written yet.
      if (encoded.stat.mtimeMs >= file.stat.mtimeMs && encoded.stat.size > 0) {
        file.close();
        return { file: encoded, encoding };
      }
      encoded.close();
    }
  } catch (error) {
    file.close();
    throw error;
  }
  return { file, encoding: undefined };
}
