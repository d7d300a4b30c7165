import { once } from 'node:events';
import { pathToFileURL } from 'node:url';
import type { MessagePort } from 'node:worker_threads';
import { createWorkerPool, type WorkerPool, type WorkerPoolOptions } from 'offloop';
import { describe, expect, it, onTestFinished } from 'vitest';
import { ask, gate, log, program, tally, untilQueued, WORK, work } from './support/pool-client.js';
import { fixture, serve, until, within } from './support/server.js';

const HELLO = fixture('pool/hello.mjs');
const BYE = fixture('pool/bye.mjs');

function shared(options: WorkerPoolOptions = { nMin: 1, nMax: 1 }): WorkerPool {
  const pool = createWorkerPool(options);
  onTestFinished(() => pool.close({ timeout: 0 }));
  return pool;
}

describe('a shared pool', () => {
  it('serves two servers with two modules on the same threads', async () => {
    const workerPool = shared();
    const one = await serve(HELLO, { workerPool });
    const two = await serve(BYE, { workerPool });
    expect((await ask(one.url)).text).toBe('hello');
    expect((await ask(two.url)).text).toBe('bye');
    expect(workerPool.stats.threads).toBe(1);
    expect(one.server.stats().pool).toMatchObject({ threads: 1, accepted: 2 });
  });

  it('loads a module once, however many servers use it', async () => {
    const workerPool = shared();
    const one = await serve(WORK, { workerPool });
    const two = await serve(WORK, { workerPool });
    expect((await work(one.url)).calls).toBe(1);
    expect((await work(two.url)).calls).toBe(2);
  });

  it('may be given two modules at the same moment', async () => {
    const workerPool = shared({ nMin: 2, nMax: 2 });
    const [one, two] = await Promise.all([serve(HELLO, { workerPool }), serve(BYE, { workerPool })]);
    expect((await ask(one.url)).text).toBe('hello');
    expect((await ask(two.url)).text).toBe('bye');
  });

  it('starts no threads before it is needed', () => {
    expect(shared().stats).toMatchObject({ threads: 0, nMin: 1, nMax: 1 });
  });

  it('may serve a mount of a server that has a pool of its own', async () => {
    const workerPool = shared();
    const { url, server } = await serve(HELLO, { nMin: 1, nMax: 1 });
    await server.mount(BYE, { path: '/bye', workerPool });
    expect((await ask(`${url}/bye`)).text).toBe('bye');
    expect((await ask(url)).text).toBe('hello');
    expect(workerPool.stats.accepted).toBe(1);
  });

  it('is not closed by the server that stops', async () => {
    const workerPool = shared();
    const one = await serve(HELLO, { workerPool });
    const two = await serve(BYE, { workerPool });
    await one.server.stop();
    expect((await ask(two.url)).text).toBe('bye');
    expect(workerPool.stats.threads).toBe(1);
  });

  it('goes on serving the first module when a second one cannot be loaded', async () => {
    const workerPool = shared({ nMin: 2, nMax: 2 });
    const { url } = await serve(HELLO, { workerPool });
    for (const bad of ['throws.mjs', 'number.mjs', 'start-fails.mjs']) {
      await expect(serve(fixture(`pool/${bad}`), { workerPool })).rejects.toThrow();
    }
    expect(workerPool.stats.workers.map((worker) => worker.state)).toEqual(['ready', 'ready']);
    expect(tally(await Promise.all([1, 2, 3, 4].map(() => ask(url))))).toEqual({ 200: 4 });
    const three = await serve(BYE, { workerPool });
    expect((await ask(three.url)).text).toBe('bye');
  });

  it('keeps new workers clear of a module that could not be loaded', async () => {
    const workerPool = shared();
    const { url } = await serve(WORK, { workerPool });
    await expect(serve(fixture('pool/throws.mjs'), { workerPool })).rejects.toThrow('no config');
    expect((await ask(url, { exit: 1 })).status).toBe(500);
    expect((await ask(url)).status).toBe(200);
  });

  it('takes a new module while a worker dies of its work', async () => {
    const workerPool = shared({ nMin: 2, nMax: 2 });
    const { url } = await serve(WORK, { workerPool });
    const free = gate();
    const dies = ask(url, { block: free.path, exit: 1 });
    await until(() => workerPool.stats.running === 1, 'it runs');
    const starts = serve(BYE, { workerPool });
    free.open();
    const bye = await starts;
    expect((await dies).status).toBe(500);
    expect((await ask(bye.url)).text).toBe('bye');
  });

  it('may have a bad module for its first', async () => {
    const workerPool = shared({ nMin: 2, nMax: 2 });
    await expect(serve(fixture('pool/throws.mjs'), { workerPool })).rejects.toThrow('no config');
    const { url } = await serve(HELLO, { workerPool });
    expect((await ask(url)).text).toBe('hello');
    await until(() => workerPool.stats.threads === 2, 'both threads are there');
  });

  it('rejects both servers when both want the same bad module at once, and takes it when it is good', async () => {
    const workerPool = shared();
    const bad = fixture('pool/throws.mjs');
    const both = await Promise.allSettled([serve(bad, { workerPool }), serve(bad, { workerPool })]);
    expect(both.map((one) => one.status)).toEqual(['rejected', 'rejected']);
  });
});

describe('closing a pool', () => {
  it('waits for what runs and what is queued', async () => {
    const workerPool = shared();
    const { url, server } = await serve(WORK, { workerPool });
    const free = gate();
    const runs = ask(url, { block: free.path });
    await until(() => workerPool.stats.running === 1, 'it runs');
    const waits = ask(url);
    await untilQueued(server, 1);
    let closed = false;
    const closing = workerPool.close().then(() => {
      closed = true;
    });
    await until(async () => (await ask(url)).status === 503, 'nothing new is taken');
    expect(closed).toBe(false);
    free.open();
    expect((await runs).status).toBe(200);
    expect((await waits).status).toBe(200);
    await closing;
    expect(workerPool.stats.threads).toBe(0);
  });

  it('fails the rest when the time is up', async () => {
    const workerPool = shared();
    const { url, server, errors } = await serve(WORK, { workerPool });
    const all = [ask(url, { never: 1 })];
    await until(() => workerPool.stats.pending === 1, 'one is pending');
    all.push(ask(url, { loop: 1 }));
    await until(() => workerPool.stats.running === 1, 'one runs');
    all.push(ask(url));
    await untilQueued(server, 1);
    await within(workerPool.close({ timeout: 20 }), 'the pool to close');
    expect(tally(await Promise.all(all))).toEqual({ 503: 3 });
    expect(errors.map((line) => line.error)).toContainEqual(
      expect.objectContaining({ code: 'OFFLOOP_STOPPED' }),
    );
    expect(workerPool.stats).toMatchObject({ threads: 0, running: 0, pending: 0, queued: 0 });
  });

  it('runs onWorkerStop in every worker', async () => {
    const { path, lines } = log();
    const workerPool = shared({ nMin: 2, nMax: 2, env: { ...process.env, HOOKS_LOG: path } });
    await serve(fixture('pool/hooks.mjs'), { workerPool });
    await workerPool.close();
    expect(lines().map((line) => line.split(' ')[0])).toEqual(['start', 'start', 'stop', 'stop']);
  });

  it('is safe twice, and before anything was loaded', async () => {
    const fresh = createWorkerPool();
    await Promise.all([fresh.close(), fresh.close()]);
    await fresh.close();
    const used = shared();
    await serve(HELLO, { workerPool: used });
    await Promise.all([used.close(), used.close({ timeout: 0 })]);
    await used.close();
    expect(used.stats.threads).toBe(0);
  });

  it('has later requests answered 503', async () => {
    const workerPool = shared();
    const { url } = await serve(HELLO, { workerPool });
    await workerPool.close();
    expect((await ask(url)).status).toBe(503);
  });

  it.each([HELLO, BYE])('has later servers rejected, whether the pool knows %s or not', async (module) => {
    const workerPool = shared();
    await serve(HELLO, { workerPool });
    await workerPool.close();
    const outcome = await serve(module, { workerPool }).then(
      () => 'started',
      (error: { code: string }) => error.code,
    );
    expect(outcome).toBe('OFFLOOP_STOPPED');
  });

  it('ends when it begins between the last breath of a worker and the news of it', async () => {
    const workerPool = createWorkerPool({ nMin: 1, nMax: 1 });
    const { url } = await serve(WORK, { workerPool });
    // The lane closes first, the thread is reported as gone some turns later: nothing public tells the moment.
    const { lives } = workerPool as unknown as { lives: Map<{ lane: MessagePort }, unknown> };
    const [worker] = [...lives.keys()] as [{ lane: MessagePort }];
    const lastBreath = once(worker.lane, 'close');
    expect((await ask(url, { exitLater: 1 })).status).toBe(200);
    await lastBreath;
    await within(workerPool.close(), 'the pool to close');
    expect(workerPool.stats.threads).toBe(0);
  });

  it('ends while a worker is starting', async () => {
    const { path, lines } = log();
    const workerPool = shared({ nMin: 1, nMax: 3, env: { ...process.env, HOOKS_LOG: path } });
    const { url } = await serve(fixture('pool/hooks.mjs'), { workerPool });
    const free = gate();
    const held = [1, 2, 3].map(() => ask(url, { hold: free.path }).catch(() => undefined));
    await until(
      () => workerPool.stats.workers.some((worker) => worker.state === 'starting'),
      'one is starting',
    );
    await within(workerPool.close({ timeout: 0 }), 'the pool to close');
    free.open();
    await Promise.all(held);
    expect(workerPool.stats.threads).toBe(0);
    expect(lines().length).toBeGreaterThan(0);
  });

  it('ends a process that has nothing else to do, with await using or without', async () => {
    const { code, out, err } = await program(`
      import { createWorkerPool, runServer } from 'offloop';
      const workerPool = createWorkerPool({ nMin: 2, nMax: 2 });
      const server = await runServer('./test/fixtures/pool/hello.mjs', { ip: '127.0.0.1', port: 0, workerPool });
      console.log(await (await fetch(server.url, { headers: { connection: 'close' } })).text());
      await server[Symbol.asyncDispose]();
      await workerPool[Symbol.asyncDispose]();
    `);
    expect({ code, out, err }).toEqual({ code: 0, out: 'hello\n', err: '' });
  });
});

describe('a pool closed while its threads are on their way up', () => {
  it('does not take the process with it, whatever they were doing', async () => {
    const { code, out } = await program(
      `
      import { createWorkerPool } from 'offloop';
      for (let i = 0; i < 40; i++) {
        const pool = createWorkerPool({ nMin: 3, nMax: 3 });
        const loading = pool.load(${JSON.stringify(pathToFileURL(HELLO).href)}).catch(() => undefined);
        await new Promise((resolve) => setTimeout(resolve, i * 2));
        await pool.close({ timeout: 0 });
        await loading;
      }
      console.log('alive');
    `,
      [],
      50_000,
    );
    expect([code, out.trim()]).toEqual([0, 'alive']);
  });
});
