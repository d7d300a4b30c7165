import { execFileSync } from 'node:child_process';
import { closeSync, constants, existsSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker as Thread } from 'node:worker_threads';
import type { ServerOptions } from 'offloop';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { captureStack } from '../src/pool/stack.js';
import { RawClient, WAYS } from './support/http-raw.js';
import {
  ask,
  gate,
  LATE,
  log,
  poolOf,
  scratch,
  tally,
  untilQueued,
  untilWhole,
  WORK,
} from './support/pool-client.js';
import { fixture, type Logged, serve, type TestServer, until, within } from './support/server.js';

const HOOKS = fixture('pool/hooks.mjs');
const one = { nMin: 1, nMax: 1 };
const UNAVAILABLE = 'Server unavailable, please try again';
const NO_WORKER = 'httpkit.server.status.503.no-worker';

const codeOf = (line: Logged): unknown => (line.error as { code?: unknown } | undefined)?.code;
const lines = (errors: readonly Logged[], text: string): string[] =>
  errors.map((line) => line.message).filter((message) => message.includes(text));

interface Breakable extends TestServer {
  /** From now on no worker can start. */
  break(): void;
  /** From now on workers can start. */
  mend(): void;
  /** Have the worker that takes this request die of it. */
  crash(): Promise<void>;
  /** What the hooks have left: 'start 1', 'stop 1'. */
  hooks(): string[];
  started(): number;
  stopped(): number;
}

/** A server whose module leaves a line when its worker starts and stops, and cannot start while a file exists. */
async function hooked(options: ServerOptions = one): Promise<Breakable> {
  const { path, lines } = log();
  const broken = join(scratch(), 'broken');
  const env = { ...process.env, HOOKS_LOG: path, BREAK_IF: broken };
  const test = await serve(HOOKS, { ...options, env });
  await test.server.mount(WORK, { path: '/work' });
  await test.server.mount(LATE, { path: '/late', handlerTimeout: 100, killAfter: 100 });
  const many = (what: string): number => lines().filter((line) => line.startsWith(what)).length;
  return {
    ...test,
    break: () => writeFileSync(broken, ''),
    mend: () => rmSync(broken),
    crash: async () => void expect((await ask(`${test.url}/work`, { exit: 1 })).status).toBe(500),
    hooks: lines,
    started: () => many('start'),
    stopped: () => many('stop'),
  };
}

describe('code that does not start any more', () => {
  it('is tried again with longer and longer waits, and said to be broken', async () => {
    const test = await hooked();
    expect(poolOf(test.server).startFailure).toBe(null);
    test.break();
    await test.crash();
    const inARow = (): number => poolOf(test.server).startFailure?.inARow ?? 0;
    for (const n of [1, 2, 3]) {
      await until(() => inARow() >= n, `it has failed ${n} times`, 30_000);
      expect(poolOf(test.server).startFailure?.message).toBe('cannot start today');
    }
    expect(lines(test.errors, 'could not start').slice(0, 3)).toEqual([
      expect.stringContaining('next try in 100 ms'),
      expect.stringContaining('next try in 200 ms'),
      expect.stringContaining('next try in 400 ms'),
    ]);
    const failed = test.errors.filter((line) => line.message.includes('could not start'));
    expect(failed[0]?.error).toMatchObject({ name: 'RangeError', message: 'cannot start today' });
    // The crash was one; workers that never served are none.
    expect(poolOf(test.server).crashed).toBe(1);
  });

  it('has nobody wait for it when three have failed and none is left; it serves again when it is mended', async () => {
    const test = await hooked();
    test.break();
    await test.crash();
    const waits = [ask(test.url), ask(test.url), ask(`${test.url}/work`)];
    const client = await RawClient.open(test.port);
    for (const reply of await Promise.all(waits)) {
      expect([reply.status, reply.text]).toEqual([503, UNAVAILABLE]);
      expect(reply.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
      expect(reply.headers.get('content-type')).toMatch(/^text\/plain/);
    }
    const next = await client.ask('GET', '/');
    expect(next.status).toBe(503);
    expect(next.header('connection')).not.toBe('close');
    expect(Number(next.header('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(test.events.filter((name) => name === NO_WORKER)).toHaveLength(4);
    expect(test.events).not.toContain('httpkit.server.status.503');
    expect(poolOf(test.server)).toMatchObject({ queued: 0, refused: 4 });
    expect(poolOf(test.server).startFailure?.inARow).toBeGreaterThanOrEqual(3);
    test.mend();
    await until(async () => (await ask(test.url)).status === 200, 'it serves again by itself', 30_000);
    expect(poolOf(test.server).startFailure).toBe(null);
    expect((await client.ask('GET', '/')).status).toBe(200);
    await untilWhole(test.server, 1);
  });

  it('keeps those waiting that came before the third failure, and serves them when it is mended in time', async () => {
    const test = await hooked();
    test.break();
    await test.crash();
    const waits = ask(test.url);
    await untilQueued(test.server, 1);
    await until(() => poolOf(test.server).startFailure !== null, 'the first one has failed');
    test.mend();
    expect((await waits).status).toBe(200);
    expect(poolOf(test.server)).toMatchObject({ startFailure: null, refused: 0 });
  });

  it('costs nobody anything while a worker is left', async () => {
    const test = await hooked({ nMin: 2, nMax: 2 });
    test.break();
    await test.crash();
    await until(() => (poolOf(test.server).startFailure?.inARow ?? 0) >= 3, 'three have failed', 30_000);
    const replies = await Promise.all(Array.from({ length: 5 }, () => ask(test.url)));
    expect(tally(replies)).toEqual({ 200: 5 });
    test.mend();
    await untilWhole(test.server, 2);
  });

  it('is counted anew when it has been mended and breaks again', async () => {
    const test = await hooked({ nMin: 1, nMax: 2 });
    test.break();
    await test.crash();
    await until(() => (poolOf(test.server).startFailure?.inARow ?? 0) >= 2, 'two have failed');
    test.mend();
    await until(() => poolOf(test.server).startFailure === null, 'one has started');
    await untilWhole(test.server, 1);
    test.break();
    // The one there is becomes busy, so the pool wants another.
    const { path, open } = gate();
    const busy = ask(`${test.url}/work`, { block: path });
    await until(() => poolOf(test.server).running === 1, 'it is busy');
    const waits = ask(test.url);
    await until(() => poolOf(test.server).startFailure !== null, 'the other one has failed');
    expect(poolOf(test.server).startFailure).toEqual({ message: 'cannot start today', inARow: 1 });
    open();
    expect(tally(await Promise.all([busy, waits]))).toEqual({ 200: 2 });
  });

  it('does not keep the server from stopping, while it waits for the next attempt', async () => {
    const test = await hooked();
    test.break();
    await test.crash();
    await until(() => (poolOf(test.server).startFailure?.inARow ?? 0) >= 3, 'three have failed', 30_000);
    expect(await within(test.server.stop(), 'the server to stop')).toBe(true);
    const before = test.errors.length;
    expect(poolOf(test.server).threads).toBe(0);
    expect(test.errors).toHaveLength(before);
  });

  it('is said to be broken when it is to replace a worker that is stuck, and serves again when it is mended', async () => {
    const test = await hooked();
    test.break();
    expect((await ask(`${test.url}/late`, { spin: 1 })).status).toBe(504);
    await until(() => poolOf(test.server).killed === 1, 'it has been ended');
    await until(() => poolOf(test.server).startFailure !== null, 'its replacement has failed');
    expect(lines(test.errors, 'could not start').length).toBeGreaterThanOrEqual(1);
    test.mend();
    await until(async () => (await ask(test.url)).status === 200, 'it serves again');
    await untilWhole(test.server, 1);
  });
});

describe('a server in development', () => {
  it('shows why no worker can start', async () => {
    const test = await hooked({ ...one, development: true });
    test.break();
    expect((await ask(`${test.url}/work`, { exit: 1 })).status).toBe(500);
    const reply = await ask(test.url);
    expect(reply.status).toBe(503);
    expect(reply.headers.get('content-type')).toMatch(/^text\/plain/);
    expect(reply.text).toMatch(new RegExp(`^${UNAVAILABLE}\n\nRangeError: cannot start today\n`));
    expect(reply.text).toMatch(/\n {4}at .*hooks\.mjs:\d+/);
  });

  it('shows nothing of it otherwise', async () => {
    const test = await hooked();
    test.break();
    await test.crash();
    const reply = await ask(test.url);
    expect([reply.status, reply.text]).toEqual([503, UNAVAILABLE]);
  });

  it.each(WAYS)('shows the error of $way that throws, with its stack and its cause', async ({ dispatch }) => {
    const test = await serve(fixture('http/throw.mjs'), {
      ...(dispatch && one),
      dispatch,
      development: true,
    });
    const reply = await ask(`${test.url}/sync/cause`);
    expect(reply.status).toBe(500);
    expect(reply.headers.get('content-type')).toMatch(/^text\/plain/);
    expect(reply.text).toMatch(/^Internal Server Error\n\nError: hunter2\n {4}at /);
    expect(reply.text).toMatch(/\n {4}at .*throw\.mjs:\d+/);
    expect(reply.text).toContain('[cause]: RangeError: inner hunter2');
    const client = await RawClient.open(test.port);
    const head = await client.ask('HEAD', '/sync/cause');
    expect([head.status, head.header('content-type')]).toEqual([500, 'text/plain; charset=utf-8']);
    expect(Number(head.header('content-length'))).toBeGreaterThan(100);
    expect((await client.ask('GET', '/async/custom')).body.toString()).toMatch(/CustomError\]?: hunter2/);
  });

  it.each(WAYS)('shows nothing of the error of $way otherwise', async ({ dispatch }) => {
    const test = await serve(fixture('http/throw.mjs'), { ...(dispatch && one), dispatch });
    for (const path of ['sync/cause', 'async/custom', 'sync/string']) {
      const reply = await ask(`${test.url}/${path}`);
      expect([reply.status, reply.text]).toEqual([500, 'Internal Server Error']);
    }
  });

  it('shows why a worker died, and that it was ended because it was stuck', async () => {
    const test = await hooked({ ...one, development: true });
    const died = await ask(`${test.url}/work`, { exit: 3 });
    expect(died.text).toContain('OFFLOOP_WORKER_LOST');
    const pending = ask(test.url, { hold: gate().path });
    await until(() => poolOf(test.server).pending === 1, 'it is pending');
    const stuck = await ask(`${test.url}/late`, { spin: 1 });
    expect([stuck.status, stuck.text]).toEqual([504, 'The request took too long']);
    const reply = await pending;
    expect(reply.status).toBe(500);
    expect(reply.text).toContain('OFFLOOP_HANDLER_STUCK');
  });

  it('shows an error that cannot be shown as such, and goes on', async () => {
    const test = await serve(
      () => {
        throw new Proxy(
          {},
          { get: () => null, getPrototypeOf: () => Object.prototype, ownKeys: () => 3 as never },
        );
      },
      { dispatch: false, development: true },
    );
    const reply = await ask(test.url);
    expect(reply.status).toBe(500);
    expect(reply.text).toMatch(/^Internal Server Error/);
    expect((await ask(test.url)).status).toBe(500);
  });
});

describe('a thread that hangs in native code', () => {
  /** A pipe whose reader hangs until somebody opens the other end, which happens when the test is over at the latest. */
  function pipe(): { path: string; free: () => void } {
    const path = join(scratch(), 'pipe');
    execFileSync('mkfifo', [path]);
    const free = (): void => {
      try {
        // Fails when nobody reads: nobody hangs then.
        if (existsSync(path)) closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
      } catch {}
    };
    onTestFinished(free);
    return { path, free };
  }

  it('is replaced at once, written off after five seconds, and keeps nothing from stopping', async () => {
    const test = await hooked();
    const { path, free } = pipe();
    expect((await ask(`${test.url}/late`, { pipe: path })).status).toBe(504);
    expect((await ask(test.url)).status).toBe(200);
    await until(() => poolOf(test.server).killed === 1, 'it has been told to end');
    await until(() => test.errors.length === 1, 'that is logged');
    expect(test.errors.map(codeOf)).toEqual(['OFFLOOP_HANDLER_STUCK']);
    expect(String((test.errors[0]?.error as Error | undefined)?.stack)).toContain('native code');
    await untilWhole(test.server, 1);
    expect(poolOf(test.server).lost).toBe(0);
    while (poolOf(test.server).lost === 0) {
      expect((await ask(test.url)).status).toBe(200);
      await until(() => true, 'a moment has passed');
    }
    expect(poolOf(test.server)).toMatchObject({ lost: 1, killed: 1, crashed: 0, threads: 1 });
    expect(test.errors.map(codeOf)).toEqual(['OFFLOOP_HANDLER_STUCK', 'OFFLOOP_THREAD_LOST']);
    expect(test.errors[1]?.message).toContain('offloop-worker-1');
    expect((await ask(test.url)).status).toBe(200);
    expect(await within(test.server.stop(), 'the server to stop')).toBe(true);
    free();
  });

  it('keeps nothing from stopping while it still may end, either', async () => {
    const test = await hooked();
    const { path, free } = pipe();
    const hangs = ask(`${test.url}/late`, { pipe: path });
    expect((await hangs).status).toBe(504);
    expect(await within(test.server.stop({ timeout: 300 }), 'the server to stop')).toBe(true);
    free();
  });
});

describe('onWorkerStop', () => {
  it('runs when a thread above nMin has idled for long enough', async () => {
    const test = await hooked({ nMin: 1, nMax: 2, threadIdleTimeout: 50, concurrency: 1 });
    const { path, open } = gate();
    const held = [1, 2].map(() => ask(test.url, { hold: path }));
    await until(() => test.started() === 2, 'two have started');
    open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 2 });
    await untilWhole(test.server, 1);
    expect(test.stopped()).toBe(1);
  });

  it('runs in all workers when the server stops, and after their last request', async () => {
    const test = await hooked({ nMin: 2, nMax: 2 });
    const { path, open } = gate();
    const held = ask(test.url, { hold: path });
    await until(() => poolOf(test.server).pending === 1, 'it is pending');
    const stopping = test.server.stop();
    expect(test.stopped()).toBe(0);
    open();
    expect((await held).status).toBe(200);
    await stopping;
    expect([test.started(), test.stopped()]).toEqual([2, 2]);
  });

  it('runs in the workers that have nothing to do when the server stops and another one is stuck', async () => {
    const test = await hooked({ nMin: 2, nMax: 2 });
    await test.server.mount(LATE, { path: '/for-ever', handlerTimeout: 0 });
    const stuck = ask(`${test.url}/for-ever`, { spin: 1 }).catch(() => undefined);
    await until(() => poolOf(test.server).running === 1, 'one is stuck');
    await test.server.stop({ timeout: 100 });
    await stuck;
    expect([test.started(), test.stopped()]).toEqual([2, 1]);
  });

  it('runs in the old workers when the code is reloaded', async () => {
    const test = await hooked({ nMin: 2, nMax: 2 });
    const before = test.hooks();
    await test.server.reload();
    await until(() => test.stopped() === 2, 'the old ones have stopped');
    const stops = test.hooks().filter((line) => line.startsWith('stop'));
    expect(stops.map((line) => line.replace('stop', 'start')).sort()).toEqual(before.sort());
    await untilWhole(test.server, 2);
  });

  it('runs in the ones that could start, when a reload fails because another could not', async () => {
    const test = await hooked({ nMin: 2, nMax: 2 });
    test.break();
    await expect(test.server.reload()).rejects.toThrow('cannot start today');
    await untilWhole(test.server, 2);
    expect(test.stopped()).toBe(test.started() - 2);
    expect((await ask(test.url)).status).toBe(200);
  });

  it('runs in a worker that has served its time', async () => {
    const test = await hooked({ ...one, recycleAfter: { requests: 5 } });
    for (let i = 0; i < 12; i++) expect((await ask(test.url)).status).toBe(200);
    await until(() => test.stopped() >= 1, 'it has stopped');
    await until(() => poolOf(test.server).recycled === test.stopped(), 'each was recycled');
    expect(poolOf(test.server)).toMatchObject({ crashed: 0, killed: 0 });
  });

  // A quarter of a second is not much for a thread of low priority to go on in, on a busy machine.
  it('runs in one of the two when a worker was thought to be stuck, and was not', { retry: 2 }, async () => {
    const test = await hooked();
    await test.server.mount(LATE, { path: '/slow', handlerTimeout: 100, killAfter: 700 });
    const { path, open } = gate();
    expect((await ask(`${test.url}/slow`, { until: path })).status).toBe(504);
    await until(() => poolOf(test.server).threads === 2, 'another one is on its way');
    open();
    await until(() => test.stopped() === 1, 'one has stopped');
    await untilWhole(test.server, 1);
    expect([test.started(), poolOf(test.server).killed]).toEqual([2, 0]);
  });

  it('never runs in a worker that was ended, or that died', async () => {
    const test = await hooked();
    expect((await ask(`${test.url}/late`, { spin: 1 })).status).toBe(504);
    await until(() => poolOf(test.server).killed === 1, 'it has been ended');
    await until(() => test.started() === 2, 'another one has started');
    await test.crash();
    await until(() => test.started() === 3, 'a third one has started');
    await untilWhole(test.server, 1);
    expect(test.stopped()).toBe(0);
    await test.server.stop();
    expect(test.stopped()).toBe(1);
  });

  it('runs in the worker that replaced a stuck one, and never in both', async () => {
    const test = await hooked({ nMin: 2, nMax: 2 });
    expect((await ask(`${test.url}/late`, { spin: 1 })).status).toBe(504);
    await until(() => poolOf(test.server).killed === 1, 'it has been ended');
    await untilWhole(test.server, 2);
    await test.server.stop();
    expect([test.started(), test.stopped()]).toEqual([3, 2]);
  });
});

describe('the stack of a stuck thread', () => {
  /** A thread that spins for ever. */
  async function spinning(): Promise<Thread> {
    const began = new Int32Array(new SharedArrayBuffer(4));
    const code = `const { workerData } = require('node:worker_threads');
      function spins() { for (;;) workerData[0] = 1; }
      spins();`;
    const thread = new Thread(code, { eval: true, workerData: began });
    onTestFinished(async () => void (await thread.terminate()));
    await until(() => began[0] === 1, 'it spins');
    return thread;
  }

  it('is had from outside, again and again, and the thread can be ended afterwards', async () => {
    const thread = await spinning();
    for (let i = 0; i < 5; i++) expect(await captureStack(thread.threadId, 5000)).toMatch(/^ {4}at spins \(/);
    await within(thread.terminate(), 'the thread to end');
  });

  it('of several at the same time is that of each', async () => {
    const threads = [await spinning(), await spinning()];
    const stacks = await Promise.all(threads.map((thread) => captureStack(thread.threadId, 5000)));
    for (const stack of stacks) expect(stack).toContain('at spins');
  });

  it('of a thread that is not there is undefined, in time', async () => {
    const thread = await spinning();
    const { threadId } = thread;
    await thread.terminate();
    expect(await within(captureStack(threadId, 100), 'no stack')).toBe(undefined);
  });

  it('has no timer touched in the middle of other code: the inspector calls back at any moment', async () => {
    const thread = await spinning();
    let computing = false;
    const touched: string[] = [];
    for (const name of ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate'] as const) {
      const original = globalThis[name] as (...args: unknown[]) => unknown;
      vi.spyOn(globalThis, name).mockImplementation(((...args: unknown[]) => {
        if (computing) touched.push(name);
        return original(...args);
      }) as never);
    }
    onTestFinished(() => void vi.restoreAllMocks());
    const stack = captureStack(thread.threadId, 5000);
    // It has asked by now. The answers come while this thread computes, as that of a busy server does.
    for (let i = 0; i < 5; i++) await Promise.resolve();
    computing = true;
    const since = performance.now();
    while (performance.now() - since < 300);
    computing = false;
    expect(await stack).toContain('at spins');
    expect(touched).toEqual([]);
  });
});
