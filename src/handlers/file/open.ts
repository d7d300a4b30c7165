/** Opens files, and makes sure of what has been opened. */
import { fstat, readlinkSync, type Stats, stat } from 'node:fs';
import { sep } from 'node:path';
import { promisify } from 'node:util';
import type { Disk } from './disk.js';

/** There is no file of that name, or nothing that could be read like one. */
const MISSING = new Set(['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'ELOOP', 'EISDIR', 'ENXIO', 'ENODEV']);
const isMissing = (error: unknown): boolean => MISSING.has(String((error as NodeJS.ErrnoException).code));

/** An open regular file. Whoever has it closes it, once or more often. */
export class OpenFile {
  private open = true;

  constructor(
    private readonly disk: Disk,
    readonly fd: number,
    readonly path: string,
    /** As it was when the file was opened; the file may have changed since. */
    readonly stat: Stats,
  ) {}

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.disk.close(this.fd);
  }
}

/**
 * Open a regular file, below `root` unless that is undefined. null = there is none: no such name, a folder, a FIFO, a device,
 * or a way that leads out of the root. Rejects with the system's error for one that is there but cannot be opened.
 */
export async function openFile(path: string, root: string | undefined, disk: Disk): Promise<OpenFile | null> {
  // A second time: a root that is a symlink may have been switched to another folder between opening and looking.
  for (let tries = 0; tries < 2; tries++) {
    const file = await openRegular(path, disk);
    if (file === null || root === undefined) return file;
    try {
      if (await isBelow(file, root, disk)) return file;
    } catch (error) {
      file.close();
      throw error;
    }
    file.close();
  }
  return null;
}

async function openRegular(path: string, disk: Disk): Promise<OpenFile | null> {
  let fd: number;
  try {
    fd = await disk.open(path);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  try {
    const stat = await disk.stat(fd);
    if (stat.isFile()) return new OpenFile(disk, fd, path, stat);
  } catch (error) {
    disk.close(fd);
    throw error;
  }
  disk.close(fd);
  return null;
}

/**
 * Whether what has been opened lies below `root`, all symlinks followed. Looking at the path first and opening it then would
 * leave time to put a symlink there in between. So the file is opened first, and the kernel is asked for the name of what the
 * descriptor holds: whatever becomes of the path from now on, that file is the one that is sent.
 *
 * A hard link is as good a name as any other, so one that somebody has put below the root is not seen through.
 * `kernelTells`: for tests.
 */
export async function isBelow(
  { fd, path }: OpenFile,
  root: string,
  disk: Disk,
  kernelTells = process.platform === 'linux',
): Promise<boolean> {
  try {
    const from = await disk.realpath(root);
    if (kernelTells) {
      const name = nameOf(fd);
      if (name !== undefined) return isIn(name, from);
    }
    // The path is resolved again, and the file there has to be the opened one. To get past this a folder has to be exchanged
    // for a symlink, back, and for the symlink again, each in the right instant.
    const real = await disk.realpath(path);
    return isIn(real, from) && (await identity(fd)) === (await identity(Buffer.from(real, 'latin1')));
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/** Where the file that a descriptor holds is now; undefined = there is no /proc. No disk is asked, so this never blocks. */
function nameOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`, 'latin1');
  } catch {
    return undefined;
  }
}

const isIn = (path: string, folder: string): boolean =>
  path.startsWith(folder.endsWith(sep) ? folder : folder + sep);

const statSoon = promisify(stat);
const fstatSoon = promisify(fstat);

async function identity(file: number | Buffer): Promise<string> {
  const { dev, ino } =
    typeof file === 'number'
      ? await fstatSoon(file, { bigint: true })
      : await statSoon(file, { bigint: true });
  return `${dev}:${ino}`;
}
