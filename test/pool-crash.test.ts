import { describe, expect, it } from 'vitest';
import {
  ask,
  BLOCK,
  gate,
  log,
  poolOf,
  queueUp,
  type Reply,
  tally,
  WORK,
  warmUp,
  work,
} from './support/pool-client.js';
import { serve, type TestServer, until, within } from './support/server.js';

type Query = Record<string, string | number>;

const ids = (n: number, prefix: string, more: Query = {}): Query[] =>
  Array.from({ length: n }, (_, i) => ({ id: `${prefix}${i}`, ...more }));

interface Batch extends TestServer {
  readonly replies: Promise<Reply>[];
}

/**
 * A server whose workers are released from a block with these requests waiting in this order, and known to be cheap: so
 * they travel in one batch.
 */
async function oneBatch(queries: readonly Query[], nMin: number, options: object = {}): Promise<Batch> {
  const test = await serve(WORK, { nMin, nMax: nMin, ...options });
  const { url, server } = test;
  await server.mount(BLOCK, { path: '/block' });
  await warmUp(url, 150, 2);
  const free = gate();
  const blockers = Array.from({ length: nMin }, () => ask(`${url}/block`, { block: free.path }));
  await until(() => poolOf(server).running === nMin, 'all threads are busy');
  const replies = await queueUp(server, url, queries);
  free.open();
  await Promise.all(blockers);
  return { ...test, replies };
}

const statuses = async (replies: readonly Promise<Reply>[]): Promise<number[]> =>
  (await within(Promise.all(replies), 'every request to be answered')).map((reply) => reply.status);

const ok = (n: number): number[] => Array<number>(n).fill(200);

/** All threads are there again and have nothing to do. */
async function backToSize({ server }: TestServer, size: number): Promise<void> {
  const whole = (): boolean => {
    const { workers, running, pending } = poolOf(server);
    return (
      running + pending === 0 &&
      workers.length === size &&
      workers.every((worker) => worker.state === 'ready')
    );
  };
  await until(whole, `the pool is back to ${size}; ${JSON.stringify(poolOf(server))}`);
}

describe('process.exit() in a handler', () => {
  it('costs its own request a 500, and the worker is replaced', async () => {
    const test = await serve(WORK, { nMin: 1, nMax: 1 });
    const before = await work(test.url);
    const reply = await ask(test.url, { exit: 0 });
    expect(reply.status).toBe(500);
    expect(reply.text).toBe('Internal Server Error');
    const after = await work(test.url);
    expect(after.threadId).not.toBe(before.threadId);
    expect(after.calls).toBe(1);
    expect(poolOf(test.server).crashed).toBe(1);
    expect(test.errors.map((line) => line.error)).toContainEqual(
      expect.objectContaining({ code: 'OFFLOOP_WORKER_LOST' }),
    );
    await backToSize(test, 1);
  });

  it('costs neither those of its batch that were finished nor those that had not started', async () => {
    const test = await oneBatch([...ids(8, 'before'), { exit: 1 }, ...ids(8, 'behind')], 1);
    expect(await statuses(test.replies)).toEqual([...ok(8), 500, ...ok(8)]);
    expect(poolOf(test.server).crashed).toBe(1);
    await backToSize(test, 1);
  });

  it('does not have anything run twice', async () => {
    const { path, lines } = log();
    const log_ = { log: path };
    const test = await oneBatch([...ids(6, 'before', log_), { exit: 1 }, ...ids(6, 'behind', log_)], 2);
    expect(await statuses(test.replies)).toEqual([...ok(6), 500, ...ok(6)]);
    expect(lines().sort()).toEqual([...ids(6, 'before'), ...ids(6, 'behind')].map(({ id }) => id).sort());
  });

  it('costs nothing in the other worker', async () => {
    const test = await serve(WORK, { nMin: 2, nMax: 2 });
    const free = gate();
    const held = [ask(test.url, { block: free.path }), ask(test.url, { exit: 1 })];
    await until(() => poolOf(test.server).crashed === 1, 'the worker is gone');
    free.open();
    expect(await statuses(held)).toEqual([200, 500]);
    await backToSize(test, 2);
  });

  it('costs the promises that were pending in the same worker, which cannot be saved', async () => {
    const test = await serve(WORK, { nMin: 1, nMax: 1 });
    const pending = [ask(test.url, { never: 1 }), ask(test.url, { never: 1 })];
    await until(() => poolOf(test.server).pending === 2, 'both are pending');
    expect((await ask(test.url, { exit: 1 })).status).toBe(500);
    expect(await statuses(pending)).toEqual([500, 500]);
    expect((await ask(test.url)).status).toBe(200);
    await backToSize(test, 1);
  });

  it('after the answer costs nobody anything', async () => {
    const test = await serve(WORK, { nMin: 1, nMax: 1 });
    expect((await ask(test.url, { exitLater: 1 })).status).toBe(200);
    await until(() => poolOf(test.server).crashed === 1, 'the worker is gone');
    expect((await ask(test.url)).status).toBe(200);
    await backToSize(test, 1);
  });
});

describe('an exception in a timer', () => {
  it('costs a pending request that never finishes a 500', async () => {
    const test = await serve(WORK, { nMin: 1, nMax: 1 });
    const reply = await ask(test.url, { stray: 5, never: 1 });
    expect(reply.status).toBe(500);
    expect(poolOf(test.server).crashed).toBe(1);
    const [line] = test.errors;
    expect(line?.message).toContain('uncaught exception');
    expect(line?.error).toBeInstanceOf(RangeError);
    expect((await ask(test.url)).status).toBe(200);
    await backToSize(test, 1);
  });

  it('lets a request finish that is the only one pending', async () => {
    const test = await serve(WORK, { nMin: 1, nMax: 1 });
    const free = gate();
    const held = ask(test.url, { stray: 5, hold: free.path });
    await until(() => poolOf(test.server).crashed === 1, 'the exception was heard of');
    free.open();
    expect(await statuses([held])).toEqual([200]);
    await backToSize(test, 1);
    expect(poolOf(test.server).crashed).toBe(1);
  });

  it('lets the others that are pending finish', async () => {
    const test = await serve(WORK, { nMin: 1, nMax: 1 });
    const free = gate();
    const others = [1, 2, 3].map((id) => ask(test.url, { id, hold: free.path }));
    await until(() => poolOf(test.server).pending === 3, 'they are pending');
    const guilty = ask(test.url, { stray: 5, never: 1 });
    await until(() => poolOf(test.server).crashed === 1, 'the exception was heard of');
    expect((await ask(test.url)).status).toBe(200); // the replacement
    free.open();
    expect(await statuses(others)).toEqual(ok(3));
    expect(await statuses([guilty])).toEqual([500]);
    await backToSize(test, 1);
  });

  it('counts as one crash of the worker, however many follow', async () => {
    const test = await serve(WORK, { nMin: 1, nMax: 1 });
    const throws = gate();
    const guilty = [1, 2, 3].map((id) => ask(test.url, { id, strayWhen: throws.path, never: 1 }));
    await until(() => poolOf(test.server).pending === 3, 'all are pending in the one worker');
    throws.open();
    const heard = (): number =>
      test.errors.filter((line) => line.message.includes('uncaught exception')).length;
    await until(() => heard() === 3, 'all three exceptions were heard of');
    expect(await statuses(guilty)).toEqual([500, 500, 500]);
    await backToSize(test, 1);
    expect(poolOf(test.server).crashed).toBe(1);
  });
});

describe('an unhandled rejection', () => {
  it('is logged, and the worker goes on', async () => {
    const { url, server, errors } = await serve(WORK, { nMin: 1, nMax: 1 });
    const before = await work(url, { reject: 'nobody listens' });
    await until(() => errors.length > 0, 'it is logged');
    expect(errors[0]?.message).toContain('unhandled rejection');
    expect(errors[0]?.error).toBeInstanceOf(RangeError);
    expect(errors[0]?.error).toMatchObject({ message: 'nobody listens' });
    expect((await work(url)).threadId).toBe(before.threadId);
    expect(poolOf(server).crashed).toBe(0);
  });
});

describe('a throw in a handler', () => {
  it('is a 500 for that request, with the error in the log, and the worker goes on', async () => {
    const { url, server, errors } = await serve(WORK, { nMin: 1, nMax: 1 });
    const before = await work(url);
    const reply = await ask(url, { throw: 'secret' });
    expect(reply.status).toBe(500);
    expect(reply.text).toBe('Internal Server Error');
    expect(errors).toHaveLength(1);
    expect(errors[0]?.message).toMatch(/^GET \//);
    expect(errors[0]?.error).toBeInstanceOf(RangeError);
    expect(String((errors[0]?.error as Error | undefined)?.stack)).toContain('work.mjs');
    expect((await work(url)).threadId).toBe(before.threadId);
    expect(poolOf(server).crashed).toBe(0);
  });

  it('is the same when the stack overflows', async () => {
    const { url, server, errors } = await serve(WORK, { nMin: 1, nMax: 1 });
    expect((await ask(url, { overflow: 1 })).status).toBe(500);
    expect(errors[0]?.error).toBeInstanceOf(RangeError);
    expect((await ask(url)).status).toBe(200);
    expect(poolOf(server).crashed).toBe(0);
  });

  it('costs nothing to the rest of its batch', async () => {
    const test = await oneBatch([...ids(5, 'before'), { throw: 'x' }, ...ids(5, 'behind')], 1);
    expect(await statuses(test.replies)).toEqual([...ok(5), 500, ...ok(5)]);
  });
});

describe('a worker that runs out of memory', () => {
  const small = { resourceLimits: { maxOldGenerationSizeMb: 24 } };

  it('dies alone and is replaced', async () => {
    const test = await serve(WORK, { nMin: 2, nMax: 2, ...small });
    const free = gate();
    const held = ask(test.url, { block: free.path });
    await until(() => poolOf(test.server).running === 1, 'one thread is busy');
    expect((await ask(test.url, { oom: 1 })).status).toBe(500);
    expect((await ask(test.url)).status).toBe(200);
    free.open();
    expect((await held).status).toBe(200);
    expect(poolOf(test.server).crashed).toBe(1);
    const death = test.errors.find((line) => line.message.includes('died'));
    expect(death?.error).toMatchObject({ code: 'ERR_WORKER_OUT_OF_MEMORY' });
    await backToSize(test, 2);
  });

  it('does not take what it had not started with it', async () => {
    const test = await oneBatch([{ id: 'first' }, { oom: 1 }, ...ids(8, 'behind')], 1, small);
    const all = await statuses(test.replies);
    expect(all[1]).toBe(500);
    expect(all.slice(2)).toEqual(ok(8));
    await backToSize(test, 1);
  });
});

describe('a handler that loops for ever', () => {
  it('holds up nobody whose request had not started, and nothing runs twice', async () => {
    const { path, lines } = log();
    const test = await oneBatch([{ loop: 1 }, ...ids(12, 'behind', { log: path })], 2);
    const [stuck, ...others] = test.replies as [Promise<Reply>, ...Promise<Reply>[]];
    expect(await statuses(others)).toEqual(ok(12));
    expect(lines().sort()).toEqual(
      ids(12, 'behind')
        .map(({ id }) => id)
        .sort(),
    );
    expect(poolOf(test.server)).toMatchObject({ running: 1, crashed: 0 });
    const settled = await Promise.race([stuck.then(() => 'answered'), ask(test.url).then(() => 'stuck')]);
    expect(settled).toBe('stuck');
  });

  it('holds up nobody whose request in the same batch was finished before', async () => {
    const test = await oneBatch([...ids(12, 'before'), { loop: 1 }, ...ids(3, 'behind')], 2);
    const others = test.replies.filter((_, i) => i !== 12);
    expect(await statuses(others)).toEqual(ok(15));
  });

  it('leaves the other thread to everybody else', async () => {
    const { url, server } = await serve(WORK, { nMin: 2, nMax: 2, queueSize: 50 });
    const stuck = ask(url, { loop: 1 }).catch(() => undefined);
    await until(() => poolOf(server).running === 1, 'it loops');
    await warmUp(url, 200, 10);
    expect(poolOf(server).running).toBe(1);
    await server.stop({ timeout: 0 });
    await stuck;
  });
});

describe('fifty crashes in a row under load', () => {
  it('leave every request with exactly one answer, and the pool at its size', async () => {
    const { path, lines } = log();
    const test = await serve(WORK, { nMin: 2, nMax: 2, queueSize: 1000 });
    let crashes = 0;
    let sent = 0;
    const cheap: Reply[] = [];
    const killed: Reply[] = [];
    const load = async (): Promise<void> => {
      while (crashes < 50) cheap.push(await ask(test.url, { id: sent++, log: path }));
    };
    const kill = async (): Promise<void> => {
      while (crashes < 50) {
        killed.push(await ask(test.url, { exit: 1 }));
        crashes++;
      }
    };
    await Promise.all([kill(), ...Array.from({ length: 8 }, load)]);
    expect(tally(killed)).toEqual({ 500: 50 });
    expect(tally(cheap)).toEqual({ 200: sent });
    expect(lines()).toHaveLength(sent);
    expect(new Set(lines()).size).toBe(sent);
    expect(poolOf(test.server).crashed).toBe(50);
    await backToSize(test, 2);
  });
});
