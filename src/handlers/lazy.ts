/** Packages that few requests need, loaded by the first one: each costs every thread 2 to 5 ms of its start otherwise. */
import { createRequire } from 'node:module';
import type Parse from 'forwarded-parse';
import type * as Mime from 'mrmime';

const load = createRequire(import.meta.url);

let parse: typeof Parse | undefined;
/** The elements of a Forwarded header. Throws when it is none. */
export function parseForwarded(header: string): Record<string, string>[] {
  parse ??= load('forwarded-parse') as typeof Parse;
  return parse(header) as Record<string, string>[];
}

let mime: typeof Mime | undefined;
/** The media type of an extension, if it is known. */
export function typeOf(extension: string): string | undefined {
  mime ??= load('mrmime') as typeof Mime;
  // What the table inherits is a function: `x.constructor` has no type.
  const found: unknown = mime.lookup(extension);
  return typeof found === 'string' && found !== '' ? found : undefined;
}
