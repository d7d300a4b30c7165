/** Conditional requests (RFC 9110, 13). */
import { parseDate } from './dates.js';

/** What a representation is known by. */
export interface Validators {
  /** Entity tag with its quotes, and `W/` before it if it is weak; undefined = it has none. */
  readonly etag: string | undefined;
  /** Last-Modified in whole seconds since 1970; undefined = unknown. */
  readonly modified: number | undefined;
  /** Whether the date is a strong validator too (8.8.2.2): the second it stands for is over. */
  readonly settled: boolean;
}

export type Headers = Readonly<Record<string, string | undefined>>;

/** Which answer the preconditions of a GET or HEAD lead to, in the order of 13.2.2; 200 = what there would be without. */
export function evaluate(headers: Headers, { etag, modified }: Validators): 200 | 304 | 412 {
  const ifMatch = headers['if-match'];
  if (ifMatch !== undefined) {
    if (!anyMatches(ifMatch, etag, true)) return 412;
  } else if (modified !== undefined) {
    const since = dateOf(headers['if-unmodified-since']);
    if (since !== undefined && modified > since) return 412;
  }
  const ifNoneMatch = headers['if-none-match'];
  if (ifNoneMatch !== undefined) return anyMatches(ifNoneMatch, etag, false) ? 304 : 200;
  if (modified !== undefined) {
    const since = dateOf(headers['if-modified-since']);
    if (since !== undefined && modified <= since) return 304;
  }
  return 200;
}

/** Whether the Range of a request counts (13.1.5): it does without If-Range. */
export function rangeApplies(headers: Headers, { etag, modified, settled }: Validators): boolean {
  const ifRange = headers['if-range'];
  if (ifRange === undefined) return true;
  if (ifRange.includes('"')) return etag !== undefined && isStrong(etag) && ifRange === etag;
  // An exact match: a range of something older, or newer, would not fit what the client has.
  return settled && modified !== undefined && parseDate(ifRange) === modified;
}

const dateOf = (text: string | undefined): number | undefined =>
  text === undefined ? undefined : parseDate(text);

const isStrong = (etag: string): boolean => !etag.startsWith('W/');
const opaque = (etag: string): string => (isStrong(etag) ? etag : etag.slice(2));

/** An entity tag (8.8.3). A comma may be part of one. */
const TAG = /(?:W\/)?"[\x21\x23-\x7e\x80-\uffff]*"/y;
const BETWEEN = /[ \t]*(?:,[ \t]*)*/y;

/** Whether `etag` is in the list; `strong`: neither may be weak (8.8.3.2). What stands behind a broken tag is not looked at. */
function anyMatches(list: string, etag: string | undefined, strong: boolean): boolean {
  if (list === '*') return true;
  if (etag === undefined || (strong && !isStrong(etag))) return false;
  let at = 0;
  for (;;) {
    BETWEEN.lastIndex = at;
    at += (BETWEEN.exec(list) as RegExpExecArray)[0].length;
    TAG.lastIndex = at;
    const tag = TAG.exec(list)?.[0];
    if (tag === undefined) return false;
    if (strong ? tag === etag : opaque(tag) === opaque(etag)) return true;
    at += tag.length;
  }
}

/** Whether this may be sent as an ETag. */
export function isEntityTag(text: string): boolean {
  return /^(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"$/.test(text);
}
