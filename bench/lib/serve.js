// The server's half of lib/server-process.js: what every file in servers/ shares.

/**
 * What the driver asked for; by hand: `node bench/servers/node-http.js '{"handler":"hello"}'`.
 * Handlers are files in handlers/, `mounts` more of them by path; what is left are options of the server itself.
 * @type {{ handler: string, mounts?: Record<string, string>, ping?: boolean, [option: string]: unknown }}
 */
export const options = { handler: 'hello', ...JSON.parse(process.argv[2] ?? '{}') };

export const ip = '127.0.0.1';

/** @param {string} name */
export const handlerFile = (name) => new URL(`../handlers/${name}.js`, import.meta.url);

export const handlerUrl = handlerFile(options.handler);

/** What the driver may ask this server. */
const questions = [];

/**
 * Says where the server listens, and ends the process when the driver lets go of it or is gone.
 * @param {number} port
 * @param {() => unknown} [stop]
 * @param {readonly number[]} [pids] of the processes that belong to it besides this one
 */
export function ready(port, stop, pids = []) {
  let ending = false;
  const end = async () => {
    if (ending) return;
    ending = true;
    await stop?.();
    process.exit(0);
  };
  process.stdin.on('end', () => void end()).resume();
  process.on('SIGTERM', () => void end());
  process.stdout.write(`${JSON.stringify({ port, questions, pids })}\n`);
}

/**
 * What the driver may ask while the server runs. A server says so before it is ready.
 * @param {Record<string, (about: any) => unknown>} answers
 */
export function answerDriver(answers) {
  questions.push(...Object.keys(answers));
  const answer = async ({ id, question, about }) => {
    try {
      process.send({ id, value: await answers[question](about) });
    } catch (error) {
      process.send({ id, error: String(error?.stack ?? error) });
    }
  };
  process.on('message', (asked) => void answer(asked));
}
