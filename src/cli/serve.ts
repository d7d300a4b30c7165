/** `offloop serve`: one process, or several. */
import { availableParallelism } from 'node:os';
import { startApp } from './app.js';
import { banner } from './banner.js';
import { UsageError } from './errors.js';
import type { Plan } from './plan.js';
import { Supervisor } from './supervisor.js';
import { endOnSignals, news } from './terminal.js';

export async function serve(plan: Plan): Promise<void> {
  const log = news(plan.own.quiet);
  const ending = endOnSignals(log);
  const { server, drain } = await startApp(plan);
  ending.runs({ drain });
  process.on('SIGHUP', () => {
    if (plan.server.tls !== undefined)
      server.reloadTls().then(
        () => log('new connections get the certificates that are in the files now'),
        (error: unknown) =>
          console.error('[offloop] the new certificates cannot be used, the old ones go on:', error),
      );
    if (!plan.mounts.some(({ dispatch }) => dispatch)) {
      log('SIGHUP: nothing to reload, since handlers that run inline stay as they are');
      return;
    }
    const begin = performance.now();
    server.reload().then(
      () => log(`reloaded in ${Math.round(performance.now() - begin)} ms`),
      (error: unknown) => console.error('[offloop] the new code does not start, the old one goes on:', error),
    );
  });
  if (!plan.own.quiet) console.log(banner(server.url, plan, [process.pid]));
}

/** `args`: those of the command line, which each process reads for itself. */
export async function serveWithProcesses(plan: Plan, args: readonly string[]): Promise<void> {
  const shared = shareOut(plan);
  const log = news(plan.own.quiet);
  const supervisor = new Supervisor(shared, args, (line) => log(line));
  const ending = endOnSignals(log);
  const cut = (): Promise<void> => supervisor.kill();
  ending.cuts(cut);
  await supervisor.start();
  ending.runs({ drain: () => supervisor.stop(), cut });
  process.on('SIGHUP', () => void supervisor.roll());
  if (!plan.own.quiet) console.log(banner(supervisor.url, shared, supervisor.pids));
}

/** The plan of one of several processes: they share the port, and unless told otherwise the cores. */
export function shareOut(plan: Plan): Plan {
  const { processes } = plan.own;
  if (process.platform !== 'linux')
    throw new UsageError(
      `--processes is ${processes}, and the kernel of this platform (${process.platform}) does not share a port out among processes: leave it out, or run them on different ports behind a proxy.`,
    );
  if (plan.server.unix !== undefined)
    throw new UsageError(
      '--unix goes with one process: a Unix domain socket cannot be shared. Leave out --processes, or use --port.',
    );
  const cores = availableParallelism();
  const nMax = plan.pool.nMax ?? Math.max(plan.pool.nMin ?? 1, Math.ceil(cores / processes));
  const nMin = plan.pool.nMin ?? Math.min(nMax, Math.max(1, Math.floor((cores - 1) / processes)));
  return { ...plan, server: { ...plan.server, reusePort: true }, pool: { ...plan.pool, nMin, nMax } };
}
