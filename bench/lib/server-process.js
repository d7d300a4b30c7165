import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Asking } from './asking.js';
import { log } from './log.js';

const BENCH = new URL('../', import.meta.url);
const READY_WITHIN = 20_000;
const END_WITHIN = 5_000;

let ticksPerSecond;
function clockTicks() {
  ticksPerSecond ??= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  return ticksPerSecond;
}

/**
 * One server of the bench in a process of its own. It ends when its standard input closes, so it cannot outlive
 * the driver.
 */
export class ServerProcess {
  #child;
  #errors = '';
  #asking;
  /** Of a server that is more than one process. @type {number[]} */
  #otherPids = [];
  #questions = [];
  url = '';
  /** By the driver's `performance.now()`. */
  startedAt = performance.now();

  /**
   * @param {string} file a name in servers/
   * @param {object} options what lib/serve.js reads
   * @param {Record<string, string>} env
   * @param {URL} bench the folder it is taken from
   */
  static async start(file, options = {}, env = {}, bench = BENCH) {
    const server = new ServerProcess(file, options, env, bench);
    await server.#ready(file);
    return server;
  }

  constructor(file, options, env, bench) {
    const program = fileURLToPath(new URL(`servers/${file}.js`, bench));
    this.#child = spawn(process.execPath, [program, JSON.stringify(options)], {
      stdio: ['pipe', 'pipe', 'pipe', 'ipc'],
      env: { ...process.env, NODE_ENV: 'production', ...env },
    });
    this.#asking = new Asking(this.#child);
    this.#child.stdin.on('error', () => {});
    this.#child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#errors = (this.#errors + text).slice(-4000);
    });
  }

  async #ready(file) {
    const { promise: late, timer } = deadline(READY_WITHIN, 'it was not ready in time');
    const lines = createInterface({ input: this.#child.stdout });
    const ended = once(this.#child, 'close').then(([code, signal]) => {
      throw new Error(`it ended at once (${signal ?? code})`);
    });
    ended.catch(() => {});
    try {
      const [line] = await Promise.race([once(lines, 'line'), ended, late]);
      const { port, questions, pids } = JSON.parse(line);
      this.url = `http://127.0.0.1:${port}`;
      this.#questions = questions;
      this.#otherPids = pids;
    } catch (cause) {
      await this.stop();
      throw new Error(`servers/${file}.js did not start: ${cause.message}\n${this.#errors}`, { cause });
    } finally {
      clearTimeout(timer);
    }
  }

  get running() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get #pids() {
    return [this.#child.pid, ...this.#otherPids];
  }

  /** User and system time of all its threads since it started, in seconds; null where there is no /proc. */
  cpuSeconds() {
    const each = this.#pids.map((pid) => this.#cpuSeconds(`${pid}/stat`));
    return each.includes(null) ? null : each.reduce((sum, seconds) => sum + seconds, 0);
  }

  /** The same of its main thread alone, which has all the sockets. */
  mainThreadCpuSeconds() {
    return this.#cpuSeconds(`${this.#child.pid}/task/${this.#child.pid}/stat`);
  }

  #cpuSeconds(file) {
    try {
      const stat = readFileSync(`/proc/${file}`, 'utf8');
      // The second field is the program's name in brackets and may hold spaces: count from behind it.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return (Number(fields[11]) + Number(fields[12])) / clockTicks();
    } catch {
      return null;
    }
  }

  /**
   * Memory of the server, in MB as the kernel counts it (its resident set, summed up if it is several processes): now, and at
   * most since {@link resetPeak}. Null where there is no /proc.
   */
  memory() {
    try {
      const all = this.#pids.map((pid) => readFileSync(`/proc/${pid}/status`, 'utf8'));
      const kb = (status, field) => Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
      const mb = (field) => all.reduce((sum, status) => sum + kb(status, field), 0) / 1024;
      return { now: mb('VmRSS'), peak: mb('VmHWM') };
    } catch {
      return null;
    }
  }

  /** From now on the peak of {@link memory} counts. */
  resetPeak() {
    try {
      for (const pid of this.#pids) writeFileSync(`/proc/${pid}/clear_refs`, '5');
    } catch {}
  }

  /** Whether {@link ask} has an answer to this. */
  answers(question) {
    return this.#questions.includes(question);
  }

  /**
   * Asks what the server answers by `answerDriver` of lib/serve.js.
   * @param {string} question
   * @param {unknown} [about]
   * @returns {Promise<any>}
   */
  ask(question, about) {
    return this.#asking.ask(question, about);
  }

  async stop() {
    if (!this.running) return;
    const closed = once(this.#child, 'close');
    this.#child.stdin.end();
    const timer = setTimeout(() => {
      log(`a server did not end by itself within ${END_WITHIN} ms and was killed`);
      this.#child.kill('SIGKILL');
    }, END_WITHIN);
    const [code, signal] = await closed;
    clearTimeout(timer);
    if (code !== 0 && signal !== 'SIGKILL') log(`a server ended with ${signal ?? code}:\n${this.#errors}`);
  }
}

function deadline(ms, message) {
  let timer;
  const promise = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(message)), ms);
  });
  promise.catch(() => {});
  return { promise, timer };
}
