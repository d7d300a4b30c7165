/** Places to listen at: whether one can, and why not. */
import { lstatSync, rmSync, type Stats } from 'node:fs';
import { connect, createServer } from 'node:net';
import { OffloopError } from '../errors.js';
import type { Address } from './engine.js';

const where = (address: Address): string =>
  address.kind === 'unix' ? address.path : `${address.ip} port ${address.port}`;

export function cannotListen(address: Address, code: string, advice: string, cause?: unknown): OffloopError {
  return new OffloopError(code, `offloop cannot listen on ${where(address)}: ${code}; ${advice}`, { cause });
}

const ADVICE: Record<string, string> = {
  EADDRINUSE:
    'something is listening there already: stop it, or choose another port (port: 0 takes any free one)',
  EADDRNOTAVAIL: 'this machine has no such address: check ip',
  ENOENT: 'the folder does not exist',
};

export function adviceOn(code: string, address: Address): string {
  if (code !== 'EACCES') return ADVICE[code] ?? 'the engine gave no reason';
  return address.kind === 'unix'
    ? 'this user may not write to the folder: choose another, or give it the right to'
    : 'this user may not take a port this low: choose one from 1024 on, let a proxy listen on this one, or give the process the capability CAP_NET_BIND_SERVICE';
}

/** What gives a new file these permissions, no more and no less, from the first moment. */
export function withMode(mode: number, make: () => void): void {
  const before = process.umask(0o777 & ~mode);
  try {
    make();
  } finally {
    process.umask(before);
  }
}

/** Take the file of a socket away, if it is ours: a successor may have put its own in the place. */
export function takeAway(path: string, bound: Stats | undefined): void {
  if (isStill(path, bound)) rmSync(path, { force: true });
}

function isStill(path: string, bound: Stats | undefined): boolean {
  const now = lstatSync(path, { throwIfNoEntry: false });
  return now !== undefined && bound !== undefined && now.ino === bound.ino && now.dev === bound.dev;
}

/** Node's own listen, which says why it cannot. Resolves with the port if it can. */
export function tryToListen(address: Address): Promise<NodeJS.ErrnoException | number> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', resolve);
    probe.listen(
      address.kind === 'unix' ? { path: address.path } : { host: address.ip, port: address.port },
      () => {
        const bound = probe.address();
        probe.close(() => resolve(bound !== null && typeof bound === 'object' ? bound.port : 0));
      },
    );
  });
}

export async function freePort(address: Address): Promise<number> {
  const found = await tryToListen(address);
  // The engine will not be able to either, and its caller asks why.
  return typeof found === 'number' ? found : 0;
}

/** The engine only says no. */
export async function whyNot(address: Address): Promise<OffloopError> {
  const found = await tryToListen(address);
  const cause = typeof found === 'number' ? undefined : found;
  const code = cause?.code ?? 'OFFLOOP_LISTEN_FAILED';
  return cannotListen(address, code, adviceOn(code, address), cause);
}

/** The engine removes whatever lies at the path. Make sure it is nothing but the socket of a server that has died. */
export async function makeRoom(path: string): Promise<void> {
  const address: Address = { kind: 'unix', path, mode: undefined };
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket())
    throw cannotListen(address, 'EADDRINUSE', 'there is a file of that name that is no socket');
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.once('error', resolve);
  });
  // Only a refusal says that nobody listens. A server that is too busy, or not ours to talk to, is alive.
  if (error?.code === 'ECONNREFUSED' || error?.code === 'ENOENT') return;
  throw cannotListen(address, 'EADDRINUSE', ADVICE['EADDRINUSE'] as string, error);
}
