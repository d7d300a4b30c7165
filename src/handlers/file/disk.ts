/**
 * How files are reached from this thread. A worker is there to block: a file that the system has in memory is opened, read and
 * closed in less time than it takes to wake one of libuv's threads for the first of these, and one on a disk that hangs holds
 * up this worker, not the four threads that the whole process has for its files. Inline nothing may block.
 */
import {
  close,
  closeSync,
  constants,
  existsSync,
  fstat,
  fstatSync,
  open,
  openSync,
  read,
  readSync,
  readv,
  realpath,
  realpathSync,
  type Stats,
  stat,
} from 'node:fs';
import { promisify } from 'node:util';

type Soon<T> = T | Promise<T>;

/** As the functions of node:fs they are named after. */
export interface Disk {
  open(path: string): Soon<number>;
  stat(fd: number): Soon<Stats>;
  /** Up to `length` bytes of the file from `position` on; fewer where it ends. */
  read(fd: number, into: Uint8Array, at: number, length: number, position: number): Soon<number>;
  /** Never fails: nothing was written that could be lost. */
  close(fd: number): void;
  exists(path: string): Soon<boolean>;
  /** Bytes as latin1, so that two names are equal only if their bytes are. */
  realpath(path: string): Soon<string>;
}

// Windows has no FIFOs, terminals or flags for them. A FIFO without a writer would hold up whoever opens it; a terminal would
// become that of the process.
const { O_RDONLY, O_NONBLOCK = 0, O_NOCTTY = 0 } = constants;
const FLAGS = O_RDONLY | O_NONBLOCK | O_NOCTTY;

const blocking: Disk = {
  open: (path) => openSync(path, FLAGS),
  stat: (fd) => fstatSync(fd),
  read: readSync,
  close: (fd) => {
    try {
      closeSync(fd);
    } catch {}
  },
  exists: existsSync,
  realpath: (path) => realpathSync.native(path, 'latin1'),
};

const openSoon = promisify(open);
const fstatSoon = promisify(fstat);

/** With libuv's threads. */
export const threaded: Disk & {
  /** Several buffers at once: waking a thread costs more than reading what one of them takes. */
  readAll(fd: number, into: readonly Uint8Array[], position: number): Promise<number>;
} = {
  open: (path) => openSoon(path, FLAGS),
  stat: (fd) => fstatSoon(fd),
  read: (fd, into, at, length, position) =>
    new Promise((resolve, reject) => {
      read(fd, into, at, length, position, (error, count) => (error ? reject(error) : resolve(count)));
    }),
  readAll: (fd, into, position) =>
    new Promise((resolve, reject) => {
      readv(fd, into, position, (error, count) => (error ? reject(error) : resolve(count)));
    }),
  close: (fd) => close(fd, () => undefined),
  exists: (path) => new Promise((resolve) => stat(path, (error) => resolve(error === null))),
  realpath: (path) =>
    new Promise((resolve, reject) => {
      realpath.native(path, 'latin1', (error, real) => (error ? reject(error) : resolve(real)));
    }),
};

let ours: Disk = threaded;

/** This thread's way. */
export const disk = (): Disk => ours;

/** This thread is a worker of a pool: it may block. */
export function mayBlock(): void {
  ours = blocking;
}
