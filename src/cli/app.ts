/** A server as the command line runs it: modules loaded before it listens, a path for load balancers, an orderly end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { loadModule } from '../handlers/module.js';
import type { Handler, Returns } from '../handlers/types.js';
import { createWorkerPool, runServer, type Server, type WorkerPool } from '../index.js';
import type { Plan, PlannedMount } from './plan.js';

export interface App {
  readonly server: Server;
  readonly pool: WorkerPool | undefined;
  /**
   * Not ready, then no longer listening, then what is under way, then the end. With `grace`, as in `server.stop`, another has taken
   * its place: nobody outside is to notice.
   */
  drain(grace?: number): Promise<void>;
}

/** `stats`: what is answered under --stats-path; by default the numbers of this server. */
export async function startApp(plan: Plan, stats?: () => Promise<unknown>): Promise<App> {
  const { mounts, own } = plan;
  const pooled = mounts.filter(({ dispatch }) => dispatch);
  const pool = pooled.length > 0 ? createWorkerPool(plan.pool) : undefined;
  let server: Server | undefined;
  try {
    // All of it before anything listens: the first request finds every mount in its place.
    const inline = new Map<PlannedMount, Handler>();
    for (const mount of mounts) if (!mount.dispatch) inline.set(mount, (await loadModule(mount.url)).handler);
    if (pool !== undefined) for (const { url } of pooled) await pool.load(url);

    const [first, ...others] = mounts;
    const home = inline.get(first);
    server = await runServer(home ?? new URL(first.url), {
      ...plan.server,
      ...(pool !== undefined && { workerPool: pool }),
      dispatch: first.dispatch,
    });
    for (const mount of others) {
      const { path, virtualHost, url } = mount;
      const where = { path, ...(virtualHost !== undefined && { virtualHost }) };
      await server.mount(inline.get(mount) ?? new URL(url), { ...where, dispatch: mount.dispatch });
    }
    const running = server;
    let ready = true;
    if (own.readyPath !== undefined) {
      const answer = (): Returns => ({
        status: ready ? 200 : 503,
        headers: { 'cache-control': 'no-store', 'content-type': 'text/plain; charset=utf-8' },
        body: ready ? 'ready\n' : 'stopping\n',
      });
      await server.mount(answer, { path: own.readyPath, dispatch: false });
    }
    if (own.statsPath !== undefined) {
      const answer = async (): Promise<Returns> => ({
        headers: { 'cache-control': 'no-store', 'content-type': 'application/json' },
        body: JSON.stringify(stats === undefined ? running.stats() : await stats()),
      });
      await server.mount(answer, { path: own.statsPath, dispatch: false });
    }
    return {
      server,
      pool,
      drain: async (grace = 0) => {
        ready = grace > 0;
        if (!ready && own.drainDelay > 0) await sleep(own.drainDelay);
        const deadline = performance.now() + grace + own.stopTimeout;
        await running.stop({ timeout: own.stopTimeout, grace });
        // Handlers whose clients are gone get what is left of the time.
        const left = Math.max(0, Math.ceil(deadline - performance.now()));
        await pool?.close({ timeout: Math.min(own.stopTimeout, left) });
      },
    };
  } catch (error) {
    await server?.stop({ timeout: 0 });
    await pool?.close({ timeout: 0 });
    throw error;
  }
}
