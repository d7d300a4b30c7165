/** Content-Disposition of a download (RFC 6266). */

/** What a quoted string may hold; the rest of what is no letter could confuse old clients, and %XX some more of them. */
const PLAIN = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/;
const ENCODED = /%[0-9A-Fa-f]{2}/;

/**
 * `attachment` under this name. Where the name is not plain ASCII it is given twice: as well as ASCII can for old clients, and
 * as it is in the form of RFC 8187, which all others prefer.
 */
export function attachment(name: string): string {
  if (PLAIN.test(name) && !ENCODED.test(name)) return `attachment; filename="${name}"`;
  const ascii = name.replace(/[^\x20-\x7e]+/g, '?').replace(/["\\]/g, '\\$&');
  // RFC 8187, 3.2.1: attr-char. encodeURIComponent leaves these alone, and throws for what has no UTF-8.
  const encoded = encodeURIComponent(Buffer.from(name).toString()).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii.replace(/%/g, '_')}"; filename*=UTF-8''${encoded}`;
}
