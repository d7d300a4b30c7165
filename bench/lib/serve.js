// The server's half of lib/server-process.js: what every file in servers/ shares.

/**
 * What the driver asked for; by hand: `node bench/servers/node-http.js '{"handler":"hello"}'`.
 * @type {{ handler: string, ping?: boolean, nMin?: number, nMax?: number, queueSize?: number }}
 */
export const options = { handler: 'hello', ...JSON.parse(process.argv[2] ?? '{}') };

export const ip = '127.0.0.1';

export const handlerUrl = new URL(`../handlers/${options.handler}.js`, import.meta.url);

/**
 * Says where the server listens, and ends the process when the driver lets go of it or is gone.
 * @param {number} port
 * @param {() => unknown} [stop]
 */
export function ready(port, stop) {
  let ending = false;
  const end = async () => {
    if (ending) return;
    ending = true;
    await stop?.();
    process.exit(0);
  };
  process.stdin.on('end', () => void end()).resume();
  process.on('SIGTERM', () => void end());
  process.stdout.write(`${JSON.stringify({ port })}\n`);
}
