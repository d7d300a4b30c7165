/** `offloop routes`: what would be served where. */
import { loadModule } from '../handlers/module.js';
import { placeOf } from './banner.js';
import type { Plan } from './plan.js';

/** Loads every module, so that one that cannot be served is known before it is. */
export async function routes(plan: Plan): Promise<string> {
  const rows: string[][] = [['PLACE', 'RUNS', 'MODULE']];
  // In the order in which they are looked at: hosts first, then the longer path.
  const sorted = [...plan.mounts].sort(
    (a, b) =>
      Number(b.virtualHost !== undefined) - Number(a.virtualHost !== undefined) ||
      b.path.length - a.path.length,
  );
  for (const mount of sorted) {
    await loadModule(mount.url);
    rows.push([placeOf(mount), mount.dispatch ? 'threads' : 'inline', mount.file]);
  }
  for (const path of [plan.own.readyPath, plan.own.statsPath])
    if (path !== undefined) rows.push([path, 'inline', '-']);
  const widths = [0, 1].map((i) => Math.max(...rows.map((row) => String(row[i]).length)));
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')).join('\n');
}
