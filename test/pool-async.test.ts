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
  untilWhole,
} from './support/pool-client.js';
import { fixture, serve, type TestServer, until, within } from './support/server.js';

const ASYNC = fixture('pool/async.mjs');
const FETCH = fixture('pool/async-fetch.mjs');

type Query = Record<string, string | number>;

/**
 * A server whose threads are released from a block with these requests waiting in this order, and known to be cheap: so
 * they travel in one batch.
 */
async function oneBatch(
  queries: readonly Query[],
  {
    handler = ASYNC,
    nMin = 1,
    ...options
  }: { handler?: string; nMin?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<TestServer & { replies: Promise<Reply>[] }> {
  const test = await serve(handler, { nMin, nMax: nMin, ...options });
  const { url, server } = test;
  await server.mount(BLOCK, { path: '/block' });
  for (let i = 0; i < 100; i++) expect((await ask(url)).status).toBe(200);
  const free = gate();
  const blockers = Array.from({ length: nMin }, () => ask(`${url}/block`, { block: free.path }));
  await until(() => poolOf(server).running === nMin, 'all threads are busy');
  const replies = await queueUp(server, url, queries);
  free.open();
  await Promise.all(blockers);
  return { ...test, replies };
}

const all = (replies: readonly Promise<Reply>[]): Promise<Reply[]> =>
  within(Promise.all(replies), 'every request to be answered');

const texts = async (replies: readonly Promise<Reply>[]): Promise<string[]> =>
  (await all(replies)).map((reply) => (reply.status === 200 ? reply.text : String(reply.status)));

const ids = (n: number, prefix: string, more: Query): Query[] =>
  Array.from({ length: n }, (_, i) => ({ id: `${prefix}${i}`, ...more }));

describe('the answer of a handler whose promise does not have to wait', () => {
  it.each<[what: string, query: Query, text: string]>([
    ['an async function', { async: 1 }, 'async'],
    ['an async function that awaits null', { nulls: 1 }, 'nulls'],
    ['an async function that awaits null twenty times', { nulls: 20 }, 'nulls'],
    ['an async function that awaits null ten thousand times', { nulls: 10_000 }, 'nulls'],
    ['async functions within async functions', { deep: 30 }, 'deep'],
    ['a chain of then', { chain: 50 }, 'chain 50'],
    ['Promise.all', { all: 20 }, 'all 20'],
    ['a thenable that is no promise', { thenable: 1 }, 'thenable'],
    ['an async function that reads the body', { body: 1 }, 'body '],
    ['an async function whose answer is large', { large: 1 }, 'x'.repeat(50_000)],
  ])('arrives while another one of its batch holds the thread: %s', async (_, query, text) => {
    const free = gate();
    const { replies } = await oneBatch([query, { block: free.path }]);
    const [first, second] = replies as [Promise<Reply>, Promise<Reply>];
    expect(await texts([first])).toEqual([text]);
    free.open();
    expect(await texts([second])).toEqual(['released']);
  });

  it.each([{}, { none: 1 }])('arrives as well when it is Fetch-style: %o', async (query) => {
    const free = gate();
    const { replies } = await oneBatch([query, { block: free.path }], { handler: FETCH });
    const [first, second] = replies as [Promise<Reply>, Promise<Reply>];
    expect((await within(first, 'the answer')).status).toBe(200);
    free.open();
    expect((await second).status).toBe(200);
  });

  it('is a 500 that arrives as well when the promise is rejected, and the error is logged', async () => {
    const free = gate();
    const bad = [{ throw: 'at once' }, { throwLater: 'later' }, { throwDeep: 'deep' }, { wrong: 1 }];
    const test = await oneBatch([...bad, { block: free.path }]);
    const last = test.replies.at(-1) as Promise<Reply>;
    expect(await texts(test.replies.slice(0, 4))).toEqual(['500', '500', '500', '500']);
    expect(test.errors.map((line) => (line.error as Error).message).slice(0, 3)).toEqual([
      'at once',
      'later',
      'deep',
    ]);
    expect(test.errors[3]?.error).toMatchObject({ code: 'OFFLOOP_BAD_RESPONSE' });
    free.open();
    expect(await texts([last])).toEqual(['released']);
    expect(poolOf(test.server).crashed).toBe(0);
  });

  it('is a 400 that arrives as well when the body is not what it asked for', async () => {
    const free = gate();
    const { replies } = await oneBatch([{ json: 1 }, { block: free.path }]);
    const [first, second] = replies as [Promise<Reply>, Promise<Reply>];
    expect(await texts([first])).toEqual(['400']);
    free.open();
    expect(await texts([second])).toEqual(['released']);
  });

  it('arrives for each of many in front of the one that holds the thread, in whatever order they are', async () => {
    const free = gate();
    const before = [
      ...Array.from({ length: 5 }, () => ({ async: 1 })),
      { plain: 1 },
      { nulls: 5 },
      { throw: 'x' },
      ...Array.from({ length: 5 }, () => ({ deep: 5 })),
      { plain: 1 },
      { large: 1 },
      { chain: 9 },
    ];
    const { replies } = await oneBatch([...before, { block: free.path }]);
    const found = await texts(replies.slice(0, -1));
    expect(found.map((text) => text.slice(0, 7))).toEqual([
      ...Array<string>(5).fill('async'),
      'plain',
      'nulls',
      '500',
      ...Array<string>(5).fill('deep'),
      'plain',
      'xxxxxxx',
      'chain 9',
    ]);
    free.open();
    expect(await texts(replies.slice(-1))).toEqual(['released']);
  });

  it('arrives when the next one takes the thread down with it', async () => {
    const before = [{ async: 1 }, { nulls: 3 }, { deep: 3 }, { throw: 'x' }, { large: 1 }];
    const test = await oneBatch([...before, { exit: 1 }, { async: 1 }, { plain: 1 }]);
    const found = await texts(test.replies);
    expect(found.map((text) => text.slice(0, 5))).toEqual([
      'async',
      'nulls',
      'deep',
      '500',
      'xxxxx',
      '500',
      'async',
      'plain',
    ]);
    expect(poolOf(test.server).crashed).toBe(1);
    await untilWhole(test.server, 1);
  });
});

describe('a promise that has to wait', () => {
  it('frees the thread for the rest of its batch', async () => {
    const free = gate();
    const queries = [{ hold: free.path }, { plain: 1 }, { hold: free.path }, { async: 1 }, { nulls: 9 }];
    const { replies, server } = await oneBatch(queries);
    expect(await texts([1, 3, 4].map((i) => replies[i] as Promise<Reply>))).toEqual([
      'plain',
      'async',
      'nulls',
    ]);
    await until(() => poolOf(server).running === 0, 'nothing runs');
    expect(poolOf(server)).toMatchObject({ running: 0, pending: 2 });
    free.open();
    expect(await texts([0, 2].map((i) => replies[i] as Promise<Reply>))).toEqual(['held', 'held']);
    expect(poolOf(server)).toMatchObject({ running: 0, pending: 0 });
  });

  it('is known to be pending while the next one holds the thread', async () => {
    const [free, block] = [gate(), gate()];
    const { replies, server } = await oneBatch([{ hold: free.path }, { block: block.path }]);
    await until(
      () => poolOf(server).pending === 1 && poolOf(server).running === 1,
      'one is pending, one runs',
    );
    free.open();
    block.open();
    expect(await texts(replies)).toEqual(['held', 'released']);
  });

  it('costs nobody a place: as many may wait as the queue is long', async () => {
    const free = gate();
    const { url, server } = await serve(ASYNC, { nMin: 1, nMax: 1, queueSize: 0 });
    const held: Promise<Reply>[] = [];
    for (let i = 1; i <= 10; i++) {
      held.push(ask(url, { hold: free.path }));
      await until(() => poolOf(server).pending === i, 'it is pending');
    }
    expect((await ask(url, { async: 1 })).text).toBe('async');
    free.open();
    expect(tally(await all(held))).toEqual({ 200: 10 });
  });
});

describe('the handlers of a batch', () => {
  it('begin in the order their requests came, and none of them twice, whatever they return', async () => {
    const { path, lines } = log();
    const free = gate();
    const kinds: Query[] = [
      { plain: 1 },
      { async: 1 },
      { hold: free.path },
      { nulls: 7 },
      { throw: 'x' },
      { deep: 4 },
      { large: 1 },
      { wrong: 1 },
    ];
    const queries = Array.from({ length: 40 }, (_, id) => ({ ...kinds[id % kinds.length], id, log: path }));
    const { replies } = await oneBatch(queries);
    free.open();
    await all(replies);
    expect(lines()).toEqual(queries.map(({ id }) => String(id)));
  });

  it('begin nowhere twice when one of them holds the thread and the others go elsewhere', async () => {
    const { path, lines } = log();
    const free = gate();
    const queries = [
      ...ids(6, 'a', { async: 1, log: path }),
      { id: 'blocks', block: free.path, log: path },
      ...ids(6, 'b', { nulls: 3, log: path }),
    ];
    const { replies } = await oneBatch(queries, { nMin: 2 });
    expect(tally(await all(replies.filter((_, i) => i !== 6)))).toEqual({ 200: 12 });
    free.open();
    expect(await texts([replies[6] as Promise<Reply>])).toEqual(['released']);
    expect(lines()).toHaveLength(13);
    expect(new Set(lines()).size).toBe(13);
  });

  it('go elsewhere when one of them never waits and never ends', async () => {
    const { path, lines } = log();
    const test = await oneBatch([{ async: 1 }, { spin: 1 }, ...ids(6, 'b', { async: 1, log: path })], {
      nMin: 2,
    });
    const [first, stuck, ...others] = test.replies as [Promise<Reply>, Promise<Reply>, ...Promise<Reply>[]];
    expect(await texts([first, ...others])).toEqual(Array<string>(7).fill('async'));
    expect(new Set(lines()).size).toBe(6);
    expect(lines()).toHaveLength(6);
    await test.server.stop({ timeout: 0 });
    await stuck.catch(() => undefined);
  });

  it('wait for none that is pending from before', async () => {
    const free = gate();
    const test = await oneBatch(ids(10, 'a', { hold: free.path }));
    await until(() => poolOf(test.server).pending === 10, 'ten are pending');
    for (let i = 0; i < 20; i++) expect((await ask(test.url, { nulls: i })).text).toBe('nulls');
    free.open();
    expect(tally(await all(test.replies))).toEqual({ 200: 10 });
  });
});

describe('an exception in a tick between two handlers of a batch', () => {
  it('costs nothing of those behind it, which another thread does', async () => {
    const { path, lines } = log();
    const free = gate();
    const test = await oneBatch([{ tick: free.path }, ...ids(6, 'b', { async: 1, log: path })]);
    const [first, ...others] = test.replies as [Promise<Reply>, ...Promise<Reply>[]];
    // It has a second from then on.
    await until(() => poolOf(test.server).crashed === 1, 'the exception is noticed');
    free.open();
    expect(await texts([first])).toEqual(['ticked']);
    expect(await texts(others)).toEqual(Array<string>(6).fill('async'));
    expect(new Set(lines()).size).toBe(6);
    expect(lines()).toHaveLength(6);
    expect(poolOf(test.server).crashed).toBe(1);
    await untilWhole(test.server, 1);
  });

  it('costs nothing at all when the module listens for such exceptions itself', async () => {
    const { path, lines } = log();
    const free = gate();
    const queries = [
      { tick: free.path },
      ...ids(6, 'b', { async: 1, log: path }),
      { tick: free.path },
      { plain: 1 },
    ];
    const test = await oneBatch(queries, { env: { ...process.env, LISTEN: 'yes' } });
    expect(await texts(test.replies.slice(1, 7))).toEqual(Array<string>(6).fill('async'));
    expect(await texts(test.replies.slice(8))).toEqual(['plain']);
    free.open();
    expect(await texts([0, 7].map((i) => test.replies[i] as Promise<Reply>))).toEqual(['ticked', 'ticked']);
    expect(lines()).toHaveLength(6);
    expect(poolOf(test.server).crashed).toBe(0);
    await until(() => test.errors.length === 2, 'both are logged');
    const heard = test.errors.map((line) => (line.error as Error).message);
    expect(heard).toEqual(['in a tick', 'in a tick']);
    await untilWhole(test.server, 1);
  });

  it('under load costs nothing either', async () => {
    const { url, server, errors } = await serve(ASYNC, {
      nMin: 1,
      nMax: 1,
      env: { ...process.env, LISTEN: 'yes' },
    });
    const free = gate();
    free.open();
    const client = async (): Promise<void> => {
      for (let i = 0; i < 40; i++) {
        const query: Query = i % 8 === 0 ? { tick: free.path } : { async: 1 };
        expect((await within(ask(url, query), 'an answer')).status).toBe(200);
      }
    };
    await Promise.all(Array.from({ length: 8 }, client));
    await untilWhole(server, 1);
    expect(new Set(errors.map((line) => (line.error as Error).message))).toEqual(new Set(['in a tick']));
    expect(poolOf(server).crashed).toBe(0);
  });
});

describe('what an async handler costs its thread', () => {
  it.each(['burnNulls', 'burnThenWait'])('counts what it does before it waits: %s', async (way) => {
    const { url, server } = await serve(ASYNC, { nMin: 1, nMax: 1 });
    expect((await ask(url, { [way]: 30 })).status).toBe(200);
    await until(() => poolOf(server).pending + poolOf(server).running === 0, 'it is done');
    expect(poolOf(server).meanMicros).toBeGreaterThanOrEqual(30_000);
  });

  it('does not count what it waits for', async () => {
    const { url, server } = await serve(ASYNC, { nMin: 1, nMax: 1 });
    const free = gate();
    const held = ask(url, { hold: free.path });
    const since = performance.now();
    await until(() => performance.now() - since > 100, 'some time has passed');
    free.open();
    expect((await held).status).toBe(200);
    expect(poolOf(server).meanMicros).toBeLessThan(100_000);
    expect(poolOf(server).runTimeMicros.max).toBeGreaterThan(poolOf(server).meanMicros);
  });
});
