/**
 * URLs of the built worker files. Bundling moves `import.meta.url`: this file must lie directly under src/, because
 * everything it is bundled into lies directly under dist/.
 */
import { fileURLToPath } from 'node:url';

/** What Piscina loads in every worker. A file path, as Piscina wants it. */
export const workerEntry: string = fileURLToPath(new URL('./handlers/thread.cjs', import.meta.url));

/** The command line. A server of several processes starts it again for each. */
export const cliEntry: string = fileURLToPath(new URL('./cli/main.js', import.meta.url));
/** What runDev loads in place of a handler module. */
export const devHandler: string = new URL('./web/dev-handler.js', import.meta.url).href;
