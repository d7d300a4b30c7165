/** Descriptors of this process, all its threads included. Linux. */
import { readdirSync, readlinkSync } from 'node:fs';
import { until } from './server.js';

/** How many files in `folder` are open; removed ones count too. */
export function openIn(folder: string): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
    } catch {
      // It was the one that the list was read with.
      return false;
    }
  }).length;
}

export const noneOpenIn = (folder: string): Promise<void> =>
  until(() => openIn(folder) === 0, `no file in ${folder} is open`);
