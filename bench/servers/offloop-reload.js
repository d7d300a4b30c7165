// offloop with a handler that is written anew before each reload.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runServer } from '../../dist/index.js';
import { answerDriver, ip, options, ready } from '../lib/serve.js';
import { about, keepLog } from '../lib/watched.js';

const folder = mkdtempSync(join(tmpdir(), 'offloop-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, 'handler.mjs');

function write(version) {
  const answer = { status: 200, headers: { 'content-type': 'text/plain' }, body: `version ${version}` };
  writeFileSync(file, `export default () => (${JSON.stringify(answer)});\n`);
}
write(0);

const { handler: _, ...asked } = options;
const { log, loggers } = keepLog();
const server = await runServer(file, { ip, port: 0, ...asked, ...loggers });

answerDriver({
  ...about(server, log),
  /** How long the reload took, in ms. */
  reload: async (version) => {
    write(version);
    const before = performance.now();
    await server.reload();
    return performance.now() - before;
  },
});
ready(server.port, () => server.stop({ timeout: 1000 }));
