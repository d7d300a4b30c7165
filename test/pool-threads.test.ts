import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  ask,
  gate,
  log,
  poolOf,
  type Reply,
  tally,
  untilQueued,
  WORK,
  warmUp,
  work,
} from './support/pool-client.js';
import { fixture, serve, until } from './support/server.js';

const HOOKS = fixture('pool/hooks.mjs');
const one = { nMin: 1, nMax: 1 };

/** What work.mjs says of its thread. */
interface About {
  readonly resourceLimits: Record<string, number>;
  readonly execArgv: string[];
  readonly greeting?: string;
  readonly path?: string;
}
const about = async (url: string): Promise<About> => JSON.parse((await ask(url, { about: 1 })).text) as About;

describe('threads', () => {
  it('are nMin when the server has started, and all of them ready', async () => {
    const { server } = await serve(WORK, { nMin: 2, nMax: 4 });
    const { threads, workers, busy } = poolOf(server);
    expect({ threads, busy }).toEqual({ threads: 2, busy: 0 });
    expect(workers.map((worker) => worker.state)).toEqual(['ready', 'ready']);
    expect(new Set(workers.map((worker) => worker.threadId)).size).toBe(2);
  });

  it('grow to nMax while work waits, and no further', async () => {
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 3, queueSize: 10 });
    const free = gate();
    const held: Promise<Reply>[] = [];
    for (let busy = 1; busy <= 3; busy++) {
      held.push(ask(url, { block: free.path }));
      await until(() => poolOf(server).busy === busy, `${busy} threads are busy`);
      expect(poolOf(server)).toMatchObject({ threads: busy, queued: 0 });
    }
    held.push(ask(url), ask(url));
    await untilQueued(server, 2);
    expect(poolOf(server).threads).toBe(3);
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 5 });
  });

  it('stay at nMin while there is no need for more', async () => {
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 4 });
    await warmUp(url, 100);
    expect(poolOf(server).threads).toBe(1);
  });

  it('shrink to nMin when the rest has idled, run onWorkerStop then, and never go below', async () => {
    const { path, lines } = log();
    const stops = (): number => lines().filter((line) => line.startsWith('stop')).length;
    const env = { ...process.env, HOOKS_LOG: path };
    const { url, server } = await serve(HOOKS, {
      nMin: 1,
      nMax: 3,
      threadIdleTimeout: 60,
      concurrency: 1,
      env,
    });
    const free = gate();
    const held = [1, 2, 3].map(() => ask(url, { hold: free.path }));
    await until(
      () => poolOf(server).workers.filter((worker) => worker.state === 'ready').length === 3,
      'three are ready',
    );
    await until(() => poolOf(server).pending === 3, 'all three are at work');
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 3 });
    await until(() => poolOf(server).threads === 1, 'one is left');
    expect(stops()).toBe(2);
    expect(poolOf(server).crashed).toBe(0);
    // Several more timeouts later it is still there.
    const [kept] = poolOf(server).workers;
    for (let i = 0; i < 5; i++) {
      const before = performance.now();
      await until(() => performance.now() - before > 60, 'another timeout has passed');
      expect(await ask(url)).toMatchObject({ status: 200, text: 'true' });
    }
    expect(poolOf(server).workers.map((worker) => worker.name)).toEqual([kept?.name]);
    expect(stops()).toBe(2);
  });

  it('come back when they are needed again', async () => {
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 2, threadIdleTimeout: 0 });
    for (let round = 0; round < 3; round++) {
      const free = gate();
      const held = [1, 2].map(() => ask(url, { block: free.path }));
      await until(() => poolOf(server).busy === 2, 'two are busy');
      free.open();
      expect(tally(await Promise.all(held))).toEqual({ 200: 2 });
      await until(() => poolOf(server).threads === 1, 'one is left');
    }
    expect(poolOf(server).crashed).toBe(0);
  });

  it('lose nothing while they come and go under load', async () => {
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 4, threadIdleTimeout: 0, queueSize: 100 });
    for (let round = 0; round < 10; round++) {
      const replies = await Promise.all(
        Array.from({ length: 12 }, (_, i) => ask(url, i % 3 === 0 ? { burn: 5 } : {})),
      );
      expect(tally(replies)).toEqual({ 200: 12 });
    }
    await until(() => poolOf(server).threads === 1, 'one is left');
    expect(poolOf(server)).toMatchObject({ crashed: 0, queued: 0, running: 0, pending: 0 });
  });

  it('are called by the prefix and a number', async () => {
    const { server } = await serve(WORK, { nMin: 2, nMax: 2, prefix: 'render-' });
    expect(poolOf(server).workers.map((worker) => worker.name)).toEqual(['render-1', 'render-2']);
    const plain = await serve(WORK, one);
    expect(poolOf(plain.server).workers[0]?.name).toBe('offloop-worker-1');
  });
});

describe('the options of the threads', () => {
  it('set their heap limits', async () => {
    const { url } = await serve(WORK, {
      ...one,
      resourceLimits: { maxOldGenerationSizeMb: 77, stackSizeMb: 2 },
    });
    expect((await about(url)).resourceLimits).toMatchObject({ maxOldGenerationSizeMb: 77, stackSizeMb: 2 });
  });

  it('set their environment, which is a copy of ours otherwise', async () => {
    const own = await about((await serve(WORK, { ...one, env: { GREETING: 'hi' } })).url);
    expect(own.greeting).toBe('hi');
    expect(own.path).toBeUndefined();
    const copied = await about((await serve(WORK, one)).url);
    expect(copied.path).toBe(process.env['PATH']);
  });

  it('set their flags', async () => {
    const { url } = await serve(WORK, { ...one, execArgv: ['--conditions=offloop-test'] });
    expect((await about(url)).execArgv).toEqual(['--conditions=offloop-test']);
  });

  it('are refused when Node does not take the flags in a worker', async () => {
    const start = serve(WORK, { ...one, execArgv: ['--no-such-flag'] });
    await expect(start).rejects.toBeInstanceOf(TypeError);
    await expect(start).rejects.toMatchObject({ code: 'OFFLOOP_BAD_OPTION' });
    await expect(start).rejects.toThrow(/execArgv.*--no-such-flag/);
  });

  it('are refused when a preload is not there', async () => {
    const start = serve(WORK, { ...one, execArgv: ['--import', './no-such-preload.mjs'] });
    await expect(start).rejects.toThrow(/no-such-preload/);
  });
});

describe('onWorkerStart', () => {
  it('is done in every worker before the server has started', async () => {
    const { path, lines } = log();
    const { url } = await serve(HOOKS, { nMin: 2, nMax: 2, env: { ...process.env, HOOKS_LOG: path } });
    expect(lines().map((line) => line.split(' ')[0])).toEqual(['start', 'start']);
    expect((await ask(url)).text).toBe('true');
  });

  it('is done in a worker that comes later before that takes work', async () => {
    const { path, lines } = log();
    const { url } = await serve(HOOKS, {
      nMin: 1,
      nMax: 3,
      concurrency: 1,
      env: { ...process.env, HOOKS_LOG: path },
    });
    const free = gate();
    const held = [1, 2, 3].map(() => ask(url, { hold: free.path }));
    await until(() => lines().length === 3, 'all have started');
    free.open();
    for (const { text } of await Promise.all(held)) expect(text).toBe('true');
  });

  it('that fails in a worker that comes later is logged, and the others go on', async () => {
    const { path } = log();
    const broken = gate();
    const env = { ...process.env, HOOKS_LOG: path, BREAK_IF: broken.path };
    const { url, server, errors } = await serve(HOOKS, { nMin: 1, nMax: 2, concurrency: 1, env });
    broken.open();
    expect(existsSync(broken.path)).toBe(true);
    const free = gate();
    const held = [1, 2].map(() => ask(url, { hold: free.path }));
    await until(() => errors.length > 0, 'it is logged');
    expect(errors[0]?.message).toContain('could not start');
    expect(errors[0]?.error).toBeInstanceOf(RangeError);
    expect(errors[0]?.error).toMatchObject({ message: 'cannot start today' });
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 2 });
    expect(poolOf(server).threads).toBeLessThanOrEqual(2);
  });
});

describe('the numbers of the pool', () => {
  it('are plain JSON and add up', async () => {
    const { url, server } = await serve(WORK, { nMin: 2, nMax: 2, queueSize: 5, concurrency: 7 });
    await warmUp(url, 20, 2);
    await work(url, { burn: 20 });
    const pool = poolOf(server);
    expect(JSON.parse(JSON.stringify(pool))).toEqual(pool);
    expect(pool).toMatchObject({ nMin: 2, nMax: 2, queueSize: 5, concurrency: 7, accepted: 21, refused: 0 });
    expect(pool.workers.reduce((sum, worker) => sum + worker.served, 0)).toBe(21);
    expect(pool.meanMicros).toBeGreaterThan(0);
  });
});
