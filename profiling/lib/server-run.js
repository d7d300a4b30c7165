// One run of server.js: under a tool, with load, to its end.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { SCENARIOS } from '../scenarios.js';

const file = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));

/** Ms until the server listens, and until tool and server have ended after it was told to. */
const READY_WITHIN = 60_000;
const ENDED_WITHIN = 300_000;

/**
 * Starts the server behind the words of `tool`, lets `during` happen, has it stop, and waits for its end.
 * @param {string} scenario
 * @param {{ tool?: readonly string[], cwd: string, during: (server: { url: string, ask: (what: string, about?: object) => Promise<any> }) => Promise<void> }} run
 * @returns {Promise<{ pid: number, output: string }>}
 */
export async function runServerFor(scenario, { tool = [], cwd, during }) {
  const [command, ...args] = [...tool, process.execPath, file('server.js'), scenario];
  // A group of its own, so that nothing outlives this program whatever happens to the tool.
  const child = spawn(command, args, {
    cwd,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      // Without a word about it Clinic.js asks, finds nobody to answer, does nothing, and calls that success.
      NO_INSIGHT: '1',
      NO_UPDATE_NOTIFIER: '1',
      ...SCENARIOS[scenario].env,
    },
  });
  const kill = () => {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
  };
  process.once('exit', kill);
  const ended = once(child, 'close');
  ended.catch(() => {});
  let output = '';
  const found = new Promise((resolve) => {
    const take = (text) => {
      output = (output + text).slice(-20_000);
      const said = /^profiling: (\{.*\})$/m.exec(output)?.[1];
      if (said) resolve(JSON.parse(said));
    };
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
  });
  const early = ended.then(([code, signal]) => {
    throw new Error(`it ended with ${signal ?? code} before it listened`);
  });
  early.catch(() => {});
  try {
    const { port, pid } = await within(
      Promise.race([found, early]),
      READY_WITHIN,
      'it did not listen in time',
    );
    const url = `http://127.0.0.1:${port}`;
    const ask = async (what, about) => {
      const answer = await fetch(`${url}/profiling`, {
        method: 'POST',
        body: JSON.stringify({ what, ...about }),
      });
      if (!answer.ok) throw new Error(`the server answered ${answer.status} when it was asked for ${what}`);
      return await answer.json();
    };
    await during({ url, ask });
    await ask('stop');
    const [code, signal] = await within(ended, ENDED_WITHIN, 'it did not end in time');
    if (code !== 0) throw new Error(`it ended with ${signal ?? code}`);
    return { pid, output };
  } catch (cause) {
    throw new Error(
      `${[...tool.slice(0, 4), 'server.js', scenario].join(' ')}: ${cause.message}\n${output}`,
      { cause },
    );
  } finally {
    kill();
    process.off('exit', kill);
  }
}

/** Asks the server for so many seconds. Returns how many answers there were. */
export async function load(about) {
  const child = spawn(process.execPath, [file('load.js'), JSON.stringify(about)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    errors += text;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`the load failed: ${errors}`);
  const { answers } = JSON.parse(out);
  if (!(answers > 0)) throw new Error('the server answered nothing');
  return answers;
}

async function within(promise, ms, message) {
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(message)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
