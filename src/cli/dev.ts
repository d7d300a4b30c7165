/** `offloop dev`: errors shown to the client, and new code in service as soon as it is saved. */

import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { devHandlerOf } from '../paths.js';
import { Reloader } from '../web/reloader.js';
import { startApp } from './app.js';
import { banner } from './banner.js';
import { UsageError } from './errors.js';
import type { Plan, PlannedMount } from './plan.js';
import { endOnSignals, news } from './terminal.js';

export async function dev(given: Plan): Promise<void> {
  const plan = {
    ...given,
    mounts: (given.server.development === false
      ? given.mounts
      : given.mounts.map(withErrorPage)) as Plan['mounts'],
    server: { ip: '127.0.0.1', development: true, ...given.server },
  };
  // Where it listens is said by unix.
  if (plan.server.unix !== undefined) delete (plan.server as { ip?: string }).ip;
  if (plan.own.processes > 1) throw new UsageError('offloop dev runs in one process: leave out --processes.');
  const inline = plan.mounts.filter(({ dispatch }) => !dispatch);
  if (inline.length === plan.mounts.length)
    throw new UsageError(
      'offloop dev reloads worker threads, and a handler that runs inline has none: leave out --dispatch inline, or let Node start the process again: node --watch node_modules/.bin/offloop serve ...',
    );
  const folders = plan.own.watch.map((folder) => resolve(folder));
  for (const folder of folders)
    if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true)
      throw new UsageError(`--watch ${folder} is no folder: give one that exists, or leave it out.`);

  const log = news(plan.own.quiet);
  const ending = endOnSignals(log);
  const { server, drain } = await startApp(plan);
  const entries = plan.mounts.filter(({ dispatch }) => dispatch).map(({ file }) => file);
  const reloader = new Reloader(entries, folders, (error, _file, ms) => {
    if (error === null) log(`reloaded in ${ms} ms`);
    else console.error('[offloop] the new code does not start, the old one goes on:', error);
  });
  reloader.attach({ instance: server });
  ending.runs({
    drain: () => {
      reloader.close();
      return drain();
    },
  });
  if (plan.own.quiet) return;
  console.log(banner(server.url, plan, [process.pid]));
  log(`watching ${[...entries, ...folders].join(', ')} and what is imported`);
  for (const { module } of inline)
    log(`${module} runs inline and stays as it is: restart to see changes of it`);
}

/** What handlers throw is shown as a page, as `runDev` does. */
function withErrorPage(mount: PlannedMount): PlannedMount {
  if (!mount.dispatch) return mount;
  return { ...mount, url: devHandlerOf(mount.url).href };
}
