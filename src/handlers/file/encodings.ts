/** Which of several encoded forms a client wants (RFC 9110, 12.5.3). */

/** A content coding that a file may lie beside itself in, with the ending of its name. */
export const ENDINGS = { br: '.br', gzip: '.gz', zstd: '.zst' } as const;
export type Encoding = keyof typeof ENDINGS;

/** Accept-Encoding is a short header; what stands behind so many elements is not looked at. */
const MAX_ELEMENTS = 32;
const ELEMENT = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:[ \t]*;[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?$/i;

/**
 * Those of `offered` that are better for this client than no encoding, best first; `offered` decides between equals. Without
 * the header any would be acceptable, but a client that says nothing more likely understands none.
 */
export function acceptable(header: string | undefined, offered: readonly Encoding[]): Encoding[] {
  if (header === undefined || header === '') return [];
  const weights = new Map<string, number>();
  for (const element of header.split(',', MAX_ELEMENTS)) {
    const match = ELEMENT.exec(element.trim());
    if (match === null) continue;
    const name = (match[1] as string).toLowerCase();
    // 8.4.1.3
    const coding = name === 'x-gzip' ? 'gzip' : name;
    const weight = match[2] === undefined ? 1 : Number(match[2]);
    // Named twice: the kinder one.
    weights.set(coding, Math.max(weight, weights.get(coding) ?? 0));
  }
  const others = weights.get('*') ?? 0;
  // Not named, it is acceptable, and less so than what is.
  const plain = weights.get('identity') ?? 0;
  const weightOf = (encoding: Encoding): number => weights.get(encoding) ?? others;
  return offered
    .filter((encoding) => weightOf(encoding) > 0 && weightOf(encoding) >= plain)
    .sort((a, b) => weightOf(b) - weightOf(a));
}
