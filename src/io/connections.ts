/** The connections this process holds, as the system counts them: the engine does not say. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

const LISTEN = '0A';

/** Connections to a port of ours, idle ones too. undefined where the system does not say. */
export function openConnections(port: number): number | undefined {
  if (process.platform !== 'linux' || port === 0) return undefined;
  try {
    const ours = new Set<string>();
    for (const fd of readdirSync('/proc/self/fd')) {
      const inode = /^socket:\[(\d+)\]$/.exec(target(fd))?.[1];
      if (inode !== undefined) ours.add(inode);
    }
    // As the table writes it.
    const end = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
    let count = 0;
    for (const file of ['/proc/self/net/tcp', '/proc/self/net/tcp6']) {
      for (const line of read(file).split('\n')) {
        const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/ +/);
        if (local.endsWith(end) && state !== LISTEN && ours.has(inode)) count++;
      }
    }
    return count;
  } catch {
    return undefined;
  }
}

/** The folder itself was open while it was read. */
function target(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}

/** Without IPv6 there is no table of it. */
function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch (error) {
    if (file.endsWith('6')) return '';
    throw error;
  }
}
