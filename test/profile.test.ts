import { once } from 'node:events';
import inspector from 'node:inspector';
import { setTimeout as sleep } from 'node:timers/promises';
import { type CpuProfile, createWorkerPool, type HeapProfile, type Server } from 'offloop';
import { describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { ask, poolOf } from './support/pool-client.js';
import { fixture, serve, until, within } from './support/server.js';

const PROFILED = fixture('pool/profiled.mjs');
const one = { nMin: 1, nMax: 1 };
const two = { nMin: 2, nMax: 2 };

/** The functions in which samples were taken, each with how many. */
function functionsOf({ nodes }: CpuProfile): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { callFrame, hitCount = 0 } of nodes) {
    if (hitCount === 0) continue;
    counts.set(callFrame.functionName, (counts.get(callFrame.functionName) ?? 0) + hitCount);
  }
  return counts;
}

/** Where most of the time went, with a name. */
function hottest(profile: CpuProfile): string | undefined {
  const named = [...functionsOf(profile)].filter(([name]) => !/^$|^\((idle|program|root|garbage)/.test(name));
  return named.sort(([, a], [, b]) => b - a)[0]?.[0];
}

/** Bytes by the function that allocated them. */
function allocationsOf({ head }: HeapProfile): Map<string, number> {
  const sizes = new Map<string, number>();
  const visit = ({ callFrame, selfSize, children }: HeapProfile['head']): void => {
    sizes.set(callFrame.functionName, (sizes.get(callFrame.functionName) ?? 0) + selfSize);
    for (const child of children) visit(child);
  };
  visit(head);
  return sizes;
}

const threadIds = (server: Server): number[] => poolOf(server).workers.map(({ threadId }) => threadId);
const onlyWorker = (server: Server): number => threadIds(server)[0] as number;

/** Ask again and again until the test is over. */
function keepAsking(url: string, query: Record<string, string | number>): void {
  let over = false;
  onTestFinished(() => {
    over = true;
  });
  const again = async (): Promise<void> => {
    while (!over) await ask(url, query);
  };
  again().catch(() => undefined);
}

/** A request that keeps its worker busy until that is ended. Resolves when it has begun. */
async function spin(server: Server, url: string): Promise<void> {
  ask(url, { spin: 1 }).catch(() => undefined);
  await until(() => poolOf(server).running === 1, 'the handler has begun');
  // Long enough for the loop to be compiled while it runs.
  await sleep(300);
}

describe('a profile of a worker', () => {
  it('names the function that its handler spends its time in', async () => {
    const { server, url } = await serve(PROFILED, one);
    keepAsking(url, { sum: 2_000_000 });
    await sleep(500);
    const profile = await server.profileWorker({ worker: onlyWorker(server), duration: 400 });
    expect(hottest(profile)).toBe('sumUp');
    const node = profile.nodes.find(({ callFrame }) => callFrame.functionName === 'sumUp');
    expect(node?.callFrame.url).toMatch(/profiled\.mjs$/);
    expect(profile.samples?.length).toBe(profile.timeDeltas?.length);
    expect(profile.endTime - profile.startTime).toBeGreaterThanOrEqual(400_000);
  });

  it('is taken of a worker that a handler keeps busy for ever, and names the loop, however long that has run', async () => {
    const { server, url } = await serve(PROFILED, one);
    await spin(server, url);
    const profile = await server.profileWorker({ worker: onlyWorker(server), duration: 400 });
    expect(['spinForEver', 'sumUp']).toContain(hottest(profile));
    // And once more, of the same loop.
    const again = await server.profileWorker({ worker: onlyWorker(server), duration: 200 });
    expect(['spinForEver', 'sumUp']).toContain(hottest(again));
    expect(poolOf(server)).toMatchObject({ crashed: 0, killed: 0, running: 1 });
  });

  it('is one of the worker that has the most to do, unless another is named', async () => {
    const { server, url } = await serve(PROFILED, two);
    await spin(server, url);
    expect(['spinForEver', 'sumUp']).toContain(hottest(await server.profileWorker({ duration: 300 })));
    const busy = poolOf(server).workers.find(({ running }) => running === 1);
    const other = threadIds(server).find((id) => id !== busy?.threadId);
    const idle = await server.profileWorker({ worker: other as number, duration: 100 });
    expect([...functionsOf(idle).keys()]).not.toContain('spinForEver');
  });

  it('disturbs nobody: requests are answered meanwhile, by the same workers', async () => {
    const { server, url } = await serve(PROFILED, two);
    const before = threadIds(server);
    const profiles = Promise.all([
      ...before.map((worker) => server.profileWorker({ worker, duration: 400 })),
      server.profileWorker({ worker: 'io', duration: 400 }),
    ]);
    let answered = 0;
    let done = false;
    const over = (): void => {
      done = true;
    };
    profiles.then(over, over);
    while (!done) {
      expect((await ask(url, { sum: 1000 })).status).toBe(200);
      answered++;
    }
    expect(answered).toBeGreaterThan(0);
    for (const profile of await profiles) expect(profile.nodes[0]?.callFrame.functionName).toBe('(root)');
    expect(threadIds(server)).toEqual(before);
    expect(poolOf(server).crashed).toBe(0);
  });

  it('says with kind heap which function allocates what stays alive', async () => {
    const { server, url } = await serve(PROFILED, one);
    const profiling = server.profileWorker({ kind: 'heap', duration: 800 });
    keepAsking(url, { hoard: 2000 });
    const sizes = allocationsOf(await profiling);
    const [name] = [...sizes].sort(([, a], [, b]) => b - a)[0] ?? [];
    expect(name).toBe('hoardObjects');
  });

  it('is found in pools that are shared, and in one that is named', async () => {
    const shared = createWorkerPool(one);
    onTestFinished(() => shared.close({ timeout: 0 }));
    const { server, url } = await serve(PROFILED, one);
    await server.mount(PROFILED, { path: '/shared', workerPool: shared });
    const threadId = shared.stats.workers[0]?.threadId as number;
    keepAsking(`${url}/shared`, { sum: 2_000_000 });
    expect(hottest(await server.profileWorker({ worker: threadId, duration: 300 }))).toBe('sumUp');
    expect(hottest(await server.profileWorker({ workerPool: shared, duration: 300 }))).toBe('sumUp');
    await expect(
      server.profileWorker({ workerPool: shared, worker: onlyWorker(server), duration: 10 }),
    ).rejects.toMatchObject({ code: 'OFFLOOP_NO_PROFILE' });
  });
});

describe('a profile of the I/O thread', () => {
  it('names what an inline handler spends its time in', async () => {
    function computeInline(): number {
      let sum = 0;
      for (const until = performance.now() + 5; performance.now() < until; ) sum += Math.sqrt(sum + 1);
      return sum;
    }
    const { server, url } = await serve(() => ({ body: String(computeInline()) }), { dispatch: false });
    keepAsking(url, {});
    const profile = await server.profileWorker({ worker: 'io', duration: 400 });
    expect([...functionsOf(profile).keys()]).toContain('computeInline');
  });

  it('may be of its heap', async () => {
    const { server } = await serve(() => null, { dispatch: false });
    const profile = await server.profileWorker({ worker: 'io', kind: 'heap', duration: 50 });
    expect(profile.head.callFrame.functionName).toBe('(root)');
  });
});

describe('a profile cannot be had', () => {
  it.each([
    [{ worker: 0 }, 'option worker is 0 (number); allowed: the threadId of a worker'],
    [{ worker: 'first' }, 'option worker is "first" (string)'],
    [{ worker: 1.5 }, 'option worker is 1.5 (number)'],
    [{ duration: 0 }, 'option duration is 0 (number); allowed: whole milliseconds from 1 to 60000'],
    [{ duration: 60_001 }, 'option duration is 60001 (number)'],
    [{ duration: '1s' }, 'option duration is "1s" (string)'],
    [{ kind: 'wall' }, "option kind is \"wall\" (string); allowed: 'cpu' or 'heap'"],
    [{ workerPool: {} }, 'option workerPool is'],
    [{ ms: 5 }, 'there is no option ms'],
    [5, 'option object is 5'],
  ])('with options such as %j', async (options, message) => {
    const { server } = await serve(() => null, { dispatch: false });
    const profiling = server.profileWorker(options as object);
    await expect(profiling).rejects.toMatchObject({ code: 'OFFLOOP_BAD_OPTION' });
    await expect(profiling).rejects.toThrow(`profileWorker: ${message}`);
  });

  it('of the I/O thread in a pool', async () => {
    const pool = createWorkerPool(one);
    onTestFinished(() => pool.close());
    const { server } = await serve(() => null, { dispatch: false });
    await expect(server.profileWorker({ worker: 'io', workerPool: pool })).rejects.toThrow(
      'the threadId of a worker beside workerPool',
    );
  });

  it('of a thread that there is not', async () => {
    const inline = await serve(() => null, { dispatch: false });
    await expect(inline.server.profileWorker()).rejects.toMatchObject({
      code: 'OFFLOOP_NO_PROFILE',
      message: 'there is no worker to profile',
    });
    const pooled = await serve(PROFILED, one);
    await expect(pooled.server.profileWorker({ worker: 123_456 })).rejects.toMatchObject({
      code: 'OFFLOOP_NO_PROFILE',
      message: 'there is no worker with threadId 123456',
    });
  });

  it('while one of the same thread is taken, of a worker or of the I/O thread', async () => {
    const { server } = await serve(PROFILED, one);
    for (const worker of [onlyWorker(server), 'io'] as const) {
      const first = server.profileWorker({ worker, duration: 300 });
      await expect(server.profileWorker({ worker, kind: 'heap', duration: 10 })).rejects.toMatchObject({
        code: 'OFFLOOP_NO_PROFILE',
        message: expect.stringMatching(/^(offloop-worker-1|the I\/O thread) is being profiled already/),
      });
      expect((await first).nodes.length).toBeGreaterThan(0);
      // The next one may.
      await server.profileWorker({ worker, kind: 'heap', duration: 10 });
    }
  });

  it('of a worker that ends meanwhile; its replacement can be profiled', async () => {
    const { server, url } = await serve(PROFILED, one);
    const worker = onlyWorker(server);
    const profiling = server.profileWorker({ worker, duration: 60_000 });
    profiling.catch(() => undefined);
    expect((await ask(url, { exit: 200 })).text).toBe(String(worker));
    await expect(within(profiling, 'the profile to fail', 10_000)).rejects.toMatchObject({
      code: 'OFFLOOP_WORKER_LOST',
      message: 'offloop-worker-1 ended while it was being profiled',
    });
    await until(() => poolOf(server).workers[0]?.state === 'ready', 'the worker is replaced', 15_000);
    await server.profileWorker({ worker: onlyWorker(server), duration: 20 });
  });

  it.each(['io', 'worker'] as const)(
    'when the server is stopped meanwhile, which does not wait for it (%s)',
    async (which) => {
      const { server, url } = await serve(PROFILED, one);
      if (which === 'worker') await spin(server, url);
      const worker = which === 'io' ? 'io' : onlyWorker(server);
      const profiling = server.profileWorker({ worker, duration: 60_000 });
      profiling.catch(() => undefined);
      await sleep(100);
      const stopped = server.stop({ timeout: 50 });
      await expect(within(profiling, 'the profile to fail')).rejects.toMatchObject({
        code: 'OFFLOOP_STOPPED',
        message: 'the server was stopped while a thread was profiled',
      });
      expect(await within(stopped, 'the server to stop', 15_000)).toBe(true);
      await expect(server.profileWorker({ worker: 'io' })).rejects.toMatchObject({
        code: 'OFFLOOP_STOPPED',
        message: 'cannot profile: the server is stopped',
      });
    },
  );
});

describe('beside others that use the inspector', () => {
  it('a worker that is ended for being stuck while it is profiled is logged with the stack of its handler', async () => {
    const { server, url, errors } = await serve(PROFILED, { ...one, handlerTimeout: 800, killAfter: 200 });
    const answer = ask(url, { spin: 1 });
    await until(() => poolOf(server).running === 1, 'the handler has begun');
    const profiling = server.profileWorker({ duration: 60_000 });
    await expect(within(profiling, 'the profile to fail', 10_000)).rejects.toMatchObject({
      code: 'OFFLOOP_WORKER_LOST',
      cause: { code: 'OFFLOOP_HANDLER_STUCK' },
    });
    expect((await answer).status).toBe(504);
    const logged = errors.find(({ message }) => message.includes('is ended and replaced'));
    expect(String((logged?.error as Error | undefined)?.stack)).toMatch(
      /at (spinForEver|sumUp) \(.*profiled\.mjs:\d+:\d+\)/,
    );
    expect(poolOf(server).killed).toBe(1);
  });

  it('a debugger that is connected to the process goes on working, and so does the profile', async () => {
    const { server, url } = await serve(PROFILED, one);
    inspector.open(0, '127.0.0.1');
    onTestFinished(() => inspector.close());
    const debug = new WebSocket(String(inspector.url()));
    onTestFinished(() => debug.terminate());
    await once(debug, 'open');
    const heard: string[] = [];
    debug.on('message', (data: Buffer) => heard.push(data.toString()));
    const send = (id: number, method: string, params: object = {}): void =>
      debug.send(JSON.stringify({ id, method, params }));
    send(1, 'Runtime.enable');
    send(2, 'NodeWorker.enable', { waitForDebuggerOnStart: false });
    await until(() => heard.some((text) => text.includes('NodeWorker.attachedToWorker')), 'it is attached');
    await spin(server, url);
    const profile = await server.profileWorker({ duration: 200 });
    expect(['spinForEver', 'sumUp']).toContain(hottest(profile));
    send(3, 'Runtime.evaluate', { expression: '6 * 7' });
    await until(() => heard.some((text) => text.includes('"value":42')), 'the debugger is answered');
    expect(heard.some((text) => text.includes('NodeWorker.detachedFromWorker'))).toBe(false);
  });
});
