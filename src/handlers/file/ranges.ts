/** Range requests (RFC 9110, 14). */

/** Bytes `from` up to and without `to`. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** A request for more ranges than this is answered with the whole file: it costs less than their heads (17.15). */
export const MAX_RANGES = 50;

const SPEC = /^(?:(\d+)-(\d*)|-(\d+))$/;

/**
 * The parts of `size` bytes that a Range header asks for, in its order, those that overlap put together. null = to be ignored:
 * another unit than bytes, a syntax that is none, too many ranges. Empty = none of them is there (416).
 */
export function parseRange(header: string, size: number): Span[] | null {
  const match = /^bytes=(.*)$/i.exec(header);
  if (match === null) return null;
  const specs = (match[1] as string)
    .split(',')
    .map((spec) => spec.trim())
    // 5.6.1.2: a list may have empty elements.
    .filter((spec) => spec !== '');
  if (specs.length === 0 || specs.length > MAX_RANGES) return null;
  const spans: Span[] = [];
  for (const spec of specs) {
    const parts = SPEC.exec(spec);
    if (parts === null) return null;
    const [, first, last, suffix] = parts;
    if (first === undefined) {
      const length = Math.min(Number(suffix), size);
      // A suffix of nothing is all there is: the whole of it, and no part has a name for that.
      if (size === 0 && Number(suffix) > 0) return null;
      if (length > 0) spans.push({ from: size - length, to: size });
      continue;
    }
    const from = Number(first);
    const end = last === '' || last === undefined ? Number.POSITIVE_INFINITY : Number(last);
    if (end < from) return null;
    if (from < size) spans.push({ from, to: Math.min(end + 1, size) });
  }
  return coalesce(spans);
}

/** 15.3.7.2: in the order they were asked for; what was put together stands where its first was. */
function coalesce(spans: Span[]): Span[] {
  if (spans.length < 2) return spans;
  const rows = spans.map(({ from, to }, order) => ({ from, to, order })).sort((a, b) => a.from - b.from);
  const merged: typeof rows = [];
  for (const row of rows) {
    const before = merged.at(-1);
    if (before === undefined || row.from >= before.to) {
      merged.push(row);
    } else {
      before.to = Math.max(before.to, row.to);
      before.order = Math.min(before.order, row.order);
    }
  }
  return merged.sort((a, b) => a.order - b.order).map(({ from, to }) => ({ from, to }));
}

export const contentRange = ({ from, to }: Span, size: number): string => `bytes ${from}-${to - 1}/${size}`;
