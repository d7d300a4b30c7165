/** What a server says when it listens. */
import { loadEngine } from '../io/uws-loader.js';
import { resolvePoolOptions } from '../options.js';
import type { Plan, PlannedMount } from './plan.js';
import { table } from './terminal.js';

export function banner(url: string, plan: Plan, pids: readonly number[]): string {
  const { nMin, nMax, queueSize } = resolvePoolOptions(plan.pool);
  const each = plan.own.processes > 1 ? ' in each process' : '';
  const pooled = plan.mounts.some(({ dispatch }) => dispatch);
  const rows: [string, string][] = plan.mounts.map((mount) => [placeOf(mount), whatOf(mount)]);
  if (pooled) {
    rows.push(['threads', `${nMin === nMax ? nMin : `${nMin} to ${nMax}`}${each}`]);
    rows.push(['queue', `${queueSize}${each}`]);
  }
  if (plan.own.readyPath !== undefined) rows.push(['ready', plan.own.readyPath]);
  if (plan.own.statsPath !== undefined) rows.push(['stats', plan.own.statsPath]);
  rows.push([pids.length > 1 ? 'processes' : 'process', pids.join(', ')]);
  rows.push(['running on', `Node ${process.version}, ${loadEngine().name}`]);
  return `offloop is listening on ${url}\n${table(rows)}`;
}

/** Where a module is mounted: 'api.example.com/v1'. */
export const placeOf = ({ path, virtualHost = '' }: PlannedMount): string => `${virtualHost}${path}`;

const whatOf = ({ module, dispatch }: PlannedMount): string => `${module}${dispatch ? '' : ', inline'}`;
