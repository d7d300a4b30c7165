/** What a file is known by: its ETag and Last-Modified (RFC 9110, 8.8). */
import type { FileOptions } from '../file.js';
import { isEntityTag, type Validators } from './conditions.js';
import { formatDate, parseDate } from './dates.js';
import type { Encoding } from './encodings.js';
import type { Fields } from './fields.js';
import type { FoundFile } from './find.js';

/** Ms after which a file cannot change any more without its time of change telling: the systems' clocks tick every 10 ms at worst. */
const TICK = 50;
/** The same where that time is in whole seconds: FAT knows even ones only. */
const COARSE_TICK = 2000;

/**
 * Size and time of change make a strong validator (8.8.1), which If-Range asks for, once that time lies so far back that another
 * change would show. Until then the same tag is weak. Neither inode nor time of status change is in it, so that servers with
 * copies of the same files give the same tags.
 */
export function validate(
  { file, encoding }: FoundFile,
  fields: Fields,
  own: FileOptions['etag'],
): Validators {
  const { size, mtimeMs } = file.stat;
  const now = Date.now();
  const age = now - mtimeMs;
  const isCoarse = mtimeMs % 1000 === 0;
  const isStrong = age > (isCoarse ? COARSE_TICK : TICK);
  if (own !== false) fields.offer('etag', etagOf(size, mtimeMs, isStrong, encoding, own));
  const given = fields.has('last-modified') ? (fields.get('last-modified') ?? '') : undefined;
  // 8.8.2.1: never later than Date.
  const modified = given === undefined ? Math.floor(Math.min(mtimeMs, now) / 1000) : parseDate(given);
  if (given === undefined && modified !== undefined) fields.set('last-modified', formatDate(modified));
  const etag = fields.get('etag');
  return {
    etag: etag !== undefined && isEntityTag(etag) ? etag : undefined,
    modified,
    settled: age > (isCoarse ? COARSE_TICK : 1000),
  };
}

function etagOf(
  size: number,
  mtimeMs: number,
  isStrong: boolean,
  encoding: Encoding | undefined,
  own: string | true = true,
): string {
  // 8.8.3.3: the same content in another coding is another representation, with a tag of its own.
  const suffix = encoding === undefined ? '' : `-${encoding}`;
  if (own !== true) return `${own.slice(0, -1)}${suffix}"`;
  // Clocks of file systems are finer than milliseconds.
  const tag = `"${size.toString(36)}-${Math.floor(mtimeMs * 1000).toString(36)}${suffix}"`;
  return isStrong ? tag : `W/${tag}`;
}
