import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ask, log, program, scratch, untilWhole, WORK } from './support/pool-client.js';
import { serve, within } from './support/server.js';

/** What the programs below say when they are done. */
interface Told {
  readonly sent: number;
  readonly kills: number;
  /** How many answers of each status, or 'lost' for none at all. */
  readonly answers: Record<string, number>;
  readonly open: number;
  readonly threads: number;
  /** Most threads that took work at the same time. */
  readonly mostReady: number;
  readonly stopped: boolean;
  readonly pool: Record<string, number>;
}

/** A program that runs a server, knows each of its threads, and has a few things to do with them. */
const PRELUDE = `
  import { Agent, get } from 'node:http';
  import { syncBuiltinESMExports } from 'node:module';
  import { setTimeout as sleep } from 'node:timers/promises';
  import threads from 'node:worker_threads';

  const alive = new Map();
  threads.Worker = class extends threads.Worker {
    constructor(...args) {
      super(...args);
      const id = this.threadId;
      alive.set(id, this);
      this.once('exit', () => alive.delete(id));
    }
  };
  syncBuiltinESMExports();
  const { runServer } = await import('offloop');
  const [, WORK, LOG, SEED] = process.argv;

  let state = Number(SEED);
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const pick = (all) => all[Math.floor(random() * all.length)];

  const agent = new Agent({ keepAlive: true, maxSockets: 16 });
  let sent = 0;
  let settled = 0;
  const answers = {};
  const settle = (as) => {
    settled++;
    answers[as] = (answers[as] ?? 0) + 1;
  };
  /** Ask, and perhaps leave. Resolves with the status, 'left' or 'lost'. */
  const ask = (url, query, leaveAfter) =>
    new Promise((resolve) => {
      const params = new URLSearchParams({ ...query, id: sent++, log: LOG });
      let as = 'lost';
      const request = get(url + '?' + params, { agent: leaveAfter === undefined ? agent : false }, (response) => {
        as = response.statusCode;
        response.resume();
      });
      request.on('error', () => undefined);
      request.on('close', () => {
        settle(as);
        resolve(as);
      });
      if (leaveAfter !== undefined) setTimeout(() => {
        if (as === 'lost') as = 'left';
        request.destroy();
      }, leaveAfter);
    });
  let kills = 0;
  let mostReady = 0;
  const look = (server) => {
    const ready = server.stats().pool.workers.filter((worker) => worker.state === 'ready').length;
    mostReady = Math.max(mostReady, ready);
  };
  /** End one of the workers that have begun, of those that are like this if there are any. */
  const kill = (server, like = () => true) => {
    const begun = server.stats().pool.workers.filter((worker) => alive.has(worker.threadId));
    const best = begun.filter(like);
    const worker = pick(best.length > 0 ? best : begun);
    if (worker === undefined) return;
    kills++;
    void alive.get(worker.threadId).terminate();
  };
  const until = async (condition) => {
    const deadline = performance.now() + 20_000;
    while (!(await condition()) && performance.now() < deadline) await sleep(5);
  };
  const quiet = { errorLogger: () => undefined, warnLogger: () => undefined };
  const start = (options) => runServer(WORK, { ip: '127.0.0.1', port: 0, ...quiet, ...options });
  const tell = async (server, size) => {
    const { pool } = server.stats();
    const whole = () => {
      const { workers, queued, running, pending } = server.stats().pool;
      return queued + running + pending === 0 && workers.length === size && workers.every((one) => one.state === 'ready');
    };
    await until(whole);
    await until(() => server.stats().open === 0);
    agent.destroy();
    const { open, pool: { workers, crashed, recycled, reloads, queued, running, pending, lost } } = server.stats();
    const stopped = await server.stop();
    await until(() => alive.size === 0);
    const told = { sent, kills, answers, open, threads: workers.length, mostReady, stopped };
    console.log(JSON.stringify({ ...told, pool: { crashed, recycled, reloads, queued, running, pending, lost, left: alive.size } }));
  };
`;

/** Run a program that ends with \`tell\`. Returns what it told, and the numbers of the requests that were begun. */
async function run(source: string, seed: number): Promise<{ told: Told; begun: string[] }> {
  const { path, lines } = log();
  const { code, out, err } = await program(PRELUDE + source, [WORK, path, String(seed)], 50_000);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  return { told: JSON.parse(out) as Told, begun: lines() };
}

describe('threads that are ended at random under load', () => {
  it('cost at most one request each; every request has one answer, and nothing runs twice', async () => {
    const { told, begun } = await run(
      `
      const server = await start({ nMin: 3, nMax: 3, queueSize: 1000 });
      const queries = [{}, {}, {}, { burn: 1 }, { burn: 5 }, { burnAsync: 0 }, { burnAsync: 2 }];
      let over = false;
      const client = async () => {
        while (!over) {
          await ask(server.url, pick(queries));
          look(server);
        }
      };
      const clients = Array.from({ length: 12 }, client);
      for (let next = 50; kills < 15; next = settled + 10 + 40 * random()) {
        await until(() => settled >= next);
        // Those that have something to do are the interesting ones.
        kill(server, (worker) => worker.running > 0);
      }
      over = true;
      await Promise.all(clients);
      await tell(server, 3);
    `,
      1,
    );
    const { sent, kills, answers, open, threads, mostReady, stopped, pool } = told;
    expect(Object.keys(answers).filter((status) => !['200', '500'].includes(status))).toEqual([]);
    expect((answers['200'] ?? 0) + (answers['500'] ?? 0)).toBe(sent);
    expect(answers['500'] ?? 0).toBeLessThanOrEqual(kills);
    expect(kills).toBe(15);
    expect(new Set(begun).size).toBe(begun.length);
    expect(begun.length).toBeGreaterThanOrEqual(answers['200'] ?? 0);
    expect({ open, threads, mostReady, stopped }).toEqual({
      open: 0,
      threads: 3,
      mostReady: 3,
      stopped: true,
    });
    expect(pool).toMatchObject({ queued: 0, running: 0, pending: 0, lost: 0, left: 0 });
    expect(pool['crashed']).toBeLessThanOrEqual(kills);
  });

  it('leave nothing behind, whatever state they are in, with promises pending and clients that leave', async () => {
    const { told, begun } = await run(
      `
      const server = await start({ nMin: 2, nMax: 4, queueSize: 1000, threadIdleTimeout: 20 });
      const queries = [{}, {}, { burn: 3 }, { wait: 1 }, { wait: 20 }, { burnAsync: 1 }, { throw: 'x' }];
      let over = false;
      const client = async () => {
        while (!over) {
          await ask(server.url, pick(queries), random() < 0.1 ? 30 * random() : undefined);
          look(server);
        }
      };
      const clients = Array.from({ length: 12 }, client);
      for (let next = 50; kills < 15; next = settled + 20 + 40 * random()) {
        await until(() => settled >= next);
        kill(server);
      }
      over = true;
      await Promise.all(clients);
      await tell(server, 2);
    `,
      2,
    );
    const { sent, answers, open, threads, mostReady, stopped, pool } = told;
    expect(Object.values(answers).reduce((sum, n) => sum + n, 0)).toBe(sent);
    expect(Object.keys(answers).filter((status) => !['200', '500', '503', 'left'].includes(status))).toEqual(
      [],
    );
    expect(new Set(begun).size).toBe(begun.length);
    expect({ open, threads, stopped }).toEqual({ open: 0, threads: 2, stopped: true });
    expect(mostReady).toBeLessThanOrEqual(4);
    expect(pool).toMatchObject({ queued: 0, running: 0, pending: 0, lost: 0, left: 0 });
  });
});

describe('everything at once: crashes, stray exceptions, reloads, recycling, growing and shrinking', () => {
  it.each([3, 4])(
    'has every request answered once, and the pool at its size in the end (%i)',
    async (seed) => {
      const { told, begun } = await run(
        `
      const server = await start({
        nMin: 2, nMax: 3, queueSize: 1000, threadIdleTimeout: 10, recycleAfter: { requests: 15 },
      });
      await server.mount(WORK, { path: '/other' });
      const calm = [{}, {}, {}, {}, { burn: 1 }, { burn: 4 }, { wait: 1 }, { wait: 10 }, { burnAsync: 1 }];
      const wild = [{ exit: 1 }, { exitLater: 1 }, { throw: 'x' }, { stray: 1 }, { stray: 1, wait: 20 }, { reject: 'x' }];
      let over = false;
      const client = async () => {
        while (!over) {
          const query = random() < 0.015 ? pick(wild) : pick(calm);
          const path = random() < 0.3 ? '/other' : '/';
          await ask(server.url + path, query, random() < 0.05 ? 20 * random() : undefined);
          look(server);
        }
      };
      const clients = Array.from({ length: 10 }, client);
      for (let rounds = 0, next = 100; rounds < 6; rounds++, next = settled + 70) {
        await until(() => settled >= next);
        // May fail, when its new threads are ended.
        const reload = server.reload().catch(() => undefined);
        await until(() => settled >= next + 40 * random());
        if (random() < 0.7) kill(server);
        if (random() < 0.5) await reload;
      }
      // Six reloads and their kills may leave no worker old enough to be recycled, and let no reload through.
      await until(() => server.stats().pool.recycled > 0);
      await until(async () => {
        await server.reload().catch(() => undefined);
        return server.stats().pool.reloads > 0;
      });
      over = true;
      await Promise.all(clients);
      await tell(server, 2);
    `,
        seed,
      );
      const { sent, answers, open, threads, mostReady, stopped, pool } = told;
      expect(Object.values(answers).reduce((sum, n) => sum + n, 0)).toBe(sent);
      expect(
        Object.keys(answers).filter((status) => !['200', '500', '503', 'left'].includes(status)),
      ).toEqual([]);
      expect(answers['200']).toBeGreaterThan(sent / 2);
      expect(new Set(begun).size).toBe(begun.length);
      expect({ open, threads, stopped }).toEqual({ open: 0, threads: 2, stopped: true });
      expect(mostReady).toBeLessThanOrEqual(3);
      expect(pool).toMatchObject({ queued: 0, running: 0, pending: 0, lost: 0, left: 0 });
      expect(pool['reloads']).toBeGreaterThan(0);
      expect(pool['recycled']).toBeGreaterThan(0);
    },
  );
});

describe('a thread that ends in a preload, before it has begun', () => {
  /** The next thread that runs this ends there, without a word, once the file `next` is there. */
  function preload(): { path: string; next: string } {
    const folder = scratch();
    const [path, next] = [join(folder, 'preload.mjs'), join(folder, 'next')];
    writeFileSync(
      path,
      `import { rmSync } from 'node:fs';
       let first = true;
       try { rmSync(${JSON.stringify(next)}); } catch { first = false; }
       if (first) process.exit(0);`,
    );
    return { path, next };
  }

  it('is replaced like any other', async () => {
    const { path, next } = preload();
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 1, execArgv: ['--import', path] });
    writeFileSync(next, '');
    expect((await ask(url, { exit: 1 })).status).toBe(500);
    expect((await within(ask(url), 'the next request to be answered')).status).toBe(200);
    await untilWhole(server, 1);
  });

  it('does not have the pool start one thread after the other when the code is reloaded', async () => {
    const { path, next } = preload();
    const { code, out } = await program(
      `
      import { writeFileSync } from 'node:fs';
      import { runServer } from 'offloop';
      const [, handler, path, next] = process.argv;
      const server = await runServer(handler, {
        ip: '127.0.0.1', port: 0, nMin: 2, nMax: 2, execArgv: ['--import', path], errorLogger: () => undefined,
      });
      writeFileSync(next, '');
      const outcome = await server.reload().then(() => 'reloaded', () => 'rejected');
      const { status } = await fetch(server.url);
      console.log(outcome, status, server.stats().pool.threads <= 4);
      await server.stop({ timeout: 0 });
    `,
      [WORK, path, next],
      5000,
    );
    expect(code).toBe(0);
    expect(out).toMatch(/^(reloaded|rejected) 200 true\n$/);
  });
});
