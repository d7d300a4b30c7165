import { type FileHandle, open } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { lookup } from 'mrmime';
import type { SizedSource } from './source.js';

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

/** Bytes of a file that are read at once. */
const CHUNK = 64 * 1024;

/** Open a file to be read as a body. undefined = there is no such file. Rejects when it is there but cannot be opened. */
export async function openFile({ path }: FileBody): Promise<SizedSource | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG') return undefined;
    throw error;
  }
  try {
    const stat = await handle.stat();
    if (stat.isFile()) return new FileSource(handle, stat.size);
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  return undefined;
}

/** So many bytes of an open file. */
class FileSource implements SizedSource {
  constructor(
    private readonly handle: FileHandle,
    readonly length: number,
  ) {}

  async *chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < this.length; ) {
      // Fresh for each chunk, since that is given away.
      const bytes = new Uint8Array(Math.min(CHUNK, this.length - at));
      const { bytesRead } = await this.handle.read(bytes, 0, bytes.byteLength, at);
      // It has become shorter meanwhile: whoever reads counts.
      if (bytesRead === 0) return;
      at += bytesRead;
      yield bytesRead === bytes.byteLength ? bytes : bytes.slice(0, bytesRead);
    }
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}
