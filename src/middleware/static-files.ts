/** Files of a folder, after Ring's wrap-file. */
import { type Stats, stat, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { type Rule, refuse } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { pathBelow } from '../handlers/file/path.js';
import { FILE_RULES, type FileOptions, file } from '../handlers/file.js';
import type { HttpRequest, HttpResponse } from '../handlers/types.js';
import { after } from './response.js';
import { checkOptions } from './rules.js';

export interface StaticFilesOptions
  extends Pick<
    FileOptions,
    'dotfiles' | 'headers' | 'maxAge' | 'immutable' | 'etag' | 'acceptRanges' | 'precompressed'
  > {
  /** The file that stands for its folder; null = folders are not there. Default 'index.html'. */
  index?: string | null;
}

const { dotfiles, headers, maxAge, immutable, etag, acceptRanges, precompressed } = FILE_RULES;
const RULES: Record<keyof StaticFilesOptions, Rule> = {
  index: {
    allowed: 'a file name, or null for none',
    ok: (v) => v === null || (typeof v === 'string' && /^[^/\\:%\0]+$/.test(v) && v !== '.' && v !== '..'),
  },
  dotfiles,
  headers,
  maxAge,
  immutable,
  etag,
  acceptRanges,
  precompressed,
};

/**
 * Answers GET and HEAD with the file of `root` at the path behind the mount's prefix, as `file` does with that root; whatever
 * is not there is for the handler. A folder is answered with its index, and redirected to its name with a slash before, so
 * that relative links in the page lead where they should. @throws OFFLOOP_BAD_OPTION.
 */
export function staticFiles(root: string | URL, options: StaticFilesOptions = {}): Middleware {
  if (!FILE_RULES.root.ok(root)) refuse('staticFiles', 'root', root, FILE_RULES.root.allowed);
  checkOptions('staticFiles', options, RULES);
  const { index = 'index.html', ...rest } = options;
  const fileOptions: FileOptions = { ...rest, root };
  // Absolute from now on; and what does not go together is refused now.
  const folder = file('index.html', fileOptions).root as string;
  const mode = options.dotfiles ?? 'ignore';

  const below = (asked: string): string | 403 | 404 => pathBelow(folder, asked, mode);
  const find = (req: HttpRequest): HttpResponse | null | Promise<HttpResponse | null> => {
    const asked = req.pathInfo;
    const send = (path: string): HttpResponse => ({ body: file(path, fileOptions) });
    if (asked.endsWith('/')) {
      if (index === null) return null;
      const path = below(asked + index);
      if (typeof path === 'number') return path === 403 ? send(asked + index) : null;
      return after(kindOf(path), (kind) => (kind === 'file' ? send(asked + index) : null));
    }
    const path = below(asked);
    if (typeof path === 'number') return path === 403 ? send(asked) : null;
    return after(kindOf(path), (kind) => {
      if (kind === 'file') return send(asked);
      if (kind !== 'folder' || index === null) return null;
      const page = below(`${asked}/${index}`);
      if (typeof page === 'number') return null;
      return after(kindOf(page), (found) => (found === 'file' ? withSlash(req) : null));
    });
  };

  return (handler) => (req) => {
    if (req.method !== 'GET' && req.method !== 'HEAD') return handler(req);
    return after(find(req), (found) => found ?? handler(req));
  };
}

function withSlash({ path, query }: HttpRequest): HttpResponse {
  // It begins with one slash, or pathBelow would have refused it: with two it would lead to another host.
  return { status: 301, headers: { location: `${path}/${query === null ? '' : `?${query}`}` }, body: null };
}

type Kind = 'file' | 'folder' | null;

const statSoon = promisify(stat);

/** In a worker without libuv's threads: the answer is in memory more often than not. */
function kindOf(path: string): Kind | Promise<Kind> {
  if (isMainThread) return statSoon(path).then(kind, failed);
  try {
    return kind(statSync(path));
  } catch (error) {
    return failed(error);
  }
}

function kind(found: Stats): Kind {
  return found.isFile() ? 'file' : found.isDirectory() ? 'folder' : null;
}

/** One that is there and cannot be looked at is for `file` to complain about. */
function failed(error: unknown): Kind {
  return (error as NodeJS.ErrnoException).code === 'EACCES' ? 'file' : null;
}
