import { extname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { check, plainObject, type Rule, refuse } from '../check.js';
import { isEntityTag } from './file/conditions.js';
import { ENDINGS, type Encoding } from './file/encodings.js';
import type { Dotfiles } from './file/path.js';
import { typeOf } from './lazy.js';
import type { HeaderValue } from './types.js';

/** Options of {@link file}. Times are milliseconds. */
export interface FileOptions {
  /**
   * A folder the file must lie in. With it, `path` may come from a client: it is taken as the undecoded path of a URL, decoded
   * once, and leads nowhere else, not by `..`, not by a symlink; what tries to is a 404. A relative root is resolved against the
   * working directory. Default: none, the path is used as it is.
   */
  root?: string | URL;
  /** With `root`: whether files and folders whose names begin with a dot are a 404, served, or a 403. Default 'ignore', a 404. */
  dotfiles?: Dotfiles;
  /** Content-Type. Default: by the extension, else application/octet-stream. */
  contentType?: string;
  /** More header fields, sent with the file and not with a 404. null = not even the one that would be sent by itself. */
  headers?: Record<string, HeaderValue>;
  /** Ms for which caches may use the file without asking: `Cache-Control: public, max-age` in seconds. Default: no Cache-Control. */
  maxAge?: number;
  /** With `maxAge`: the file under this URL never changes, so browsers need not ask even on a reload (RFC 8246). Default false. */
  immutable?: boolean;
  /** The ETag: made of size and time of change (true), none (false), or one of your own with its quotes. Default true. */
  etag?: boolean | string;
  /** Whether parts of the file are sent to those who ask for them with Range. Default true. */
  acceptRanges?: boolean;
  /**
   * Send `path.br`, `.zst` or `.gz`, made beforehand, to clients that accept it, if it is there and not older than the file
   * itself. An array says which, the best first. Default false; true = `['br', 'zstd', 'gzip']`.
   */
  precompressed?: boolean | readonly Encoding[];
  /** Have browsers save the file instead of showing it: true under its own name, or under another. Default false. */
  download?: boolean | string;
}

const boolean: Rule = { allowed: 'true or false', ok: (v) => typeof v === 'boolean' };
const ENCODINGS = Object.keys(ENDINGS);
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
const NO_NAME = /[\0-\x1f\x7f/\\]/;

export const FILE_RULES: Record<keyof FileOptions, Rule> = {
  root: {
    allowed: 'the path or file: URL of a folder',
    ok: (v) => (typeof v === 'string' && v !== '' && !v.includes('\0')) || isFileUrl(v),
  },
  dotfiles: {
    allowed: "'ignore', 'allow' or 'deny'",
    ok: (v) => v === 'ignore' || v === 'allow' || v === 'deny',
  },
  contentType: { allowed: 'a media type', ok: (v) => typeof v === 'string' && /^[\t\x20-\x7e]+$/.test(v) },
  headers: { allowed: 'an object of header values', ok: plainObject },
  maxAge: {
    allowed: 'milliseconds, 0 or more',
    ok: (v) => typeof v === 'number' && v >= 0 && v <= Number.MAX_SAFE_INTEGER,
  },
  immutable: boolean,
  etag: {
    allowed: `true, false, or an entity tag with its quotes, such as '"v1"'`,
    ok: (v) => typeof v === 'boolean' || (typeof v === 'string' && isEntityTag(v)),
  },
  acceptRanges: boolean,
  precompressed: {
    allowed: `true, false, or an array of ${ENCODINGS.map((name) => `'${name}'`).join(', ')}`,
    ok: (v) => typeof v === 'boolean' || (Array.isArray(v) && v.every((one) => ENCODINGS.includes(one))),
  },
  download: {
    allowed: 'true, false, or a file name',
    ok: (v) => typeof v === 'boolean' || (typeof v === 'string' && v !== '' && !NO_NAME.test(v)),
  },
};

const isFileUrl = (v: unknown): boolean => v instanceof URL && v.protocol === 'file:';

/** A file as response body; made by {@link file}. */
export class FileBody {
  /** As it was given. With `root` the path of a URL, not decoded. */
  readonly path: string;
  /** Absolute. */
  readonly root: string | undefined;
  readonly options: Readonly<FileOptions>;
  constructor(path: string, options: FileOptions) {
    this.path = path;
    const { root } = options;
    this.root =
      root === undefined ? undefined : resolve(typeof root === 'string' ? root : fileURLToPath(root));
    this.options = options;
  }
}

/**
 * A file as response body. Nothing is done before the response is encoded, on the thread of the handler.
 *
 * The answer to a GET or HEAD, if the handler gives no status or 200, is what RFC 9110 asks for: ETag, Last-Modified, a 304 or 412 for
 * conditional requests, a 206 or 416 for ranges. With another status or method it is the whole file. A path where there is no
 * regular file is answered 404; one that may not be read is an error like a throw.
 *
 * `path` is a path or file: URL and used as it is, so never build it from a request, unless `root` says where it has to stay.
 * Throws OFFLOOP_BAD_OPTION.
 */
export function file(path: string | URL, options: FileOptions = {}): FileBody {
  check('file', options, FILE_RULES);
  const given = options as FileOptions;
  if (given.root !== undefined) {
    if (typeof path !== 'string') refuse('file', 'path', path, 'a string beside root');
  } else if (given.dotfiles !== undefined) {
    refuse('file', 'dotfiles', given.dotfiles, 'nothing without root: the path is used as it is');
  }
  if (given.immutable === true && given.maxAge === undefined) {
    refuse('file', 'immutable', true, 'nothing without maxAge');
  }
  if (typeof path === 'string') return new FileBody(path, given);
  if (!isFileUrl(path)) refuse('file', 'path', path, 'a path or a file: URL');
  return new FileBody(fileURLToPath(path), given);
}

/** By the extension of a name. */
export function contentTypeOf(name: string): string {
  const type = typeOf(extname(name)) ?? 'application/octet-stream';
  return type.startsWith('text/') || type === 'application/json' ? `${type}; charset=utf-8` : type;
}
