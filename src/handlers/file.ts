import { open } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { lookup } from 'mrmime';

export interface FileOptions {
  /** Content-Type of the response, unless its headers name one. Default: by the extension, else application/octet-stream. */
  contentType?: string;
}

/** A file as response body; made by {@link file}. */
export class FileBody {
  readonly path: string;
  readonly contentType: string;
  constructor(path: string, contentType: string) {
    this.path = path;
    this.contentType = contentType;
  }
}

/**
 * A file as response body. It is read when the response is encoded, on the thread of the handler, without blocking it.
 * A file that is not there is answered 404. The path is used as it is: never build it from a request unchecked.
 */
export function file(path: string | URL, options: FileOptions = {}): FileBody {
  const name = typeof path === 'string' ? path : fileURLToPath(path);
  return new FileBody(name, options.contentType ?? defaultContentType(name));
}

function defaultContentType(name: string): string {
  const type = lookup(name) ?? 'application/octet-stream';
  return type.startsWith('text/') || type === 'application/json' ? `${type}; charset=utf-8` : type;
}

/** What reading a file came to. `missing` = there is no such file; `too-large` = more than `limit` bytes. */
export type FileRead =
  | { kind: 'bytes'; bytes: Uint8Array }
  | { kind: 'size'; size: number }
  | { kind: 'missing' }
  | { kind: 'too-large' };

/** Read a file of at most `limit` bytes, or only its size. Rejects when it is there but cannot be read. */
export async function readFileBody(body: FileBody, sizeOnly: boolean, limit: number): Promise<FileRead> {
  let handle: Awaited<ReturnType<typeof open>>;
  try {
    handle = await open(body.path, 'r');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG') return { kind: 'missing' };
    throw error;
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) return { kind: 'missing' };
    if (sizeOnly) return { kind: 'size', size: stat.size };
    if (stat.size > limit) return { kind: 'too-large' };
    return { kind: 'bytes', bytes: await handle.readFile() };
  } finally {
    await handle.close();
  }
}
