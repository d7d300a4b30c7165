/** Content-Type by extension, after Ring's wrap-content-type. */
import { plainObject } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { contentTypeOf, FileBody } from '../handlers/file.js';
import { typeOf } from '../handlers/lazy.js';
import type { Returns } from '../handlers/types.js';
import { after, Draft, type Result } from './response.js';
import { checkOptions } from './rules.js';

export interface ContentTypeOptions {
  /** Types by extension, beside those that are known or instead of them: `{ map: 'application/json' }`. */
  types?: Record<string, string>;
}

/**
 * Gives responses with a body and without Content-Type the one of the extension in the path, if there is a known one. Files
 * have theirs already. @throws OFFLOOP_BAD_OPTION.
 */
export function contentType(options: ContentTypeOptions = {}): Middleware {
  checkOptions('contentType', options, {
    types: {
      allowed: 'an object of media types by extension, without its dot',
      ok: (v) =>
        plainObject(v) &&
        Object.entries(v).every(
          ([extension, type]) =>
            /^\w[\w-]*$/.test(extension) && typeof type === 'string' && type.includes('/'),
        ),
    },
  });
  const types = new Map(Object.entries(options.types ?? {}));
  return (handler) => (req) =>
    after(handler(req) as Returns | Promise<Returns>, (result) => withType(result, req.path, types));
}

function withType(result: Result, path: string, types: ReadonlyMap<string, string>): Result {
  const extension = /\.(\w[\w-]{0,31})$/.exec(path)?.[1]?.toLowerCase();
  if (extension === undefined) return result;
  const draft = Draft.of(result);
  if (draft === null || draft.headers.has('content-type')) return result;
  const { body } = draft;
  if (body === null || body === undefined || body instanceof FileBody) return result;
  const type = types.get(extension) ?? (typeOf(extension) && contentTypeOf(`x.${extension}`));
  if (type === undefined) return result;
  draft.headers.set('Content-Type', type);
  return draft.finish();
}
