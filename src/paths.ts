/**
 * URLs of the built worker files. Bundling moves `import.meta.url`: this file must lie directly under src/, because
 * everything it is bundled into lies directly under dist/.
 */
import { fileURLToPath } from 'node:url';

/** What Piscina loads in every worker. A file path, as Piscina wants it. */
export const workerEntry: string = fileURLToPath(new URL('./handlers/thread.cjs', import.meta.url));

/** The command line. A server of several processes starts it again for each. */
export const cliEntry: string = fileURLToPath(new URL('./cli/main.js', import.meta.url));
/** What is loaded in place of this handler module to have an error page around it. */
export function devHandlerOf(url: string): URL {
  const wrapper = new URL('./web/dev-handler.js', import.meta.url);
  wrapper.searchParams.set('module', url);
  return wrapper;
}
