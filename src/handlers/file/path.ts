/** From a path that a client may have chosen to a path on disk below a root. Looks at nothing but the text. */
import { sep } from 'node:path';

/** What becomes of names that begin with a dot: no such file, as any other, or 403. */
export type Dotfiles = 'ignore' | 'allow' | 'deny';

/**
 * What no segment may hold once it is decoded. A slash that was written %2F is none to whoever routed the request, so it must
 * be none here; NUL ends a path for the system; backslash and colon are Windows' separator, drives and alternate streams,
 * refused everywhere so that what is safe on one system is safe on all.
 */
const REFUSED = /[\0/\\:]/;

/** On Windows: names of devices, and a dot or space at the end, which it drops: `secret.txt.` is `secret.txt` there. */
const REFUSED_ON_WINDOWS = /^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\.|$)|[. ]$/i;

/**
 * The path on disk of `asked`, the undecoded path of a URL, below the folder `root`; or the status that says there is none.
 * Each segment is percent-decoded once: what is still encoded then is a name like any other. Segments that are empty or `.`
 * are left out, one that is `..` is refused even where it would stay below the root. Symlinks are the opener's business.
 */
export function pathBelow(
  root: string,
  asked: string,
  dotfiles: Dotfiles,
  windows = sep === '\\',
): string | 403 | 404 {
  // `//host/share` is a name on another machine where Windows reads it.
  if (asked.startsWith('//')) return 404;
  let path = root.endsWith(sep) ? root.slice(0, -1) : root;
  let last = '';
  let hidden = false;
  for (const raw of asked.split('/')) {
    last = raw.includes('%') ? decode(raw) : raw;
    if (last === '' || last === '.') continue;
    if (last === '..' || REFUSED.test(last) || (windows && REFUSED_ON_WINDOWS.test(last))) return 404;
    hidden ||= last.startsWith('.');
    path += sep + last;
  }
  // Written as a folder, and a folder is no file.
  if (last === '' || last === '.') return 404;
  if (hidden && dotfiles !== 'allow') return dotfiles === 'deny' ? 403 : 404;
  return path;
}

/** What is no percent-encoded UTF-8 comes back as a name that is refused. */
function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return '..';
  }
}
