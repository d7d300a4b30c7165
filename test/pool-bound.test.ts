import { Agent, get } from 'node:http';
import { describe, expect, it } from 'vitest';
import {
  ask,
  BLOCK,
  gate,
  MAY_GO_ELSEWHERE,
  poolOf,
  queueUp,
  type Reply,
  tally,
  untilQueued,
  WORK,
  warmUp,
  work,
} from './support/pool-client.js';
import { serve, until } from './support/server.js';

const BUSY = 'Server unavailable, please try again';

/** Send so many at once and note in which order they were answered. */
async function atOnce(
  url: string,
  count: number,
  query: Record<string, string | number>,
): Promise<{ replies: Reply[]; order: number[] }> {
  const order: number[] = [];
  const one = async (): Promise<Reply> => {
    const reply = await ask(url, query);
    order.push(reply.status);
    return reply;
  };
  const replies = await Promise.all(Array.from({ length: count }, one));
  return { replies, order };
}

describe('one thread and one place in the queue', () => {
  it('answer two of four slow requests, and refuse the other two before that', async () => {
    const { url, events, server } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 1 });
    const { replies, order } = await atOnce(url, 4, { burn: 300 });
    expect(order).toEqual([503, 503, 200, 200]);
    for (const { text, headers } of replies.filter((reply) => reply.status === 503)) {
      expect(text).toBe(BUSY);
      expect(headers.get('content-type')).toMatch(/^text\/plain/);
      expect(headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
      expect(headers.get('connection')).not.toBe('close');
    }
    expect(events.filter((name) => name === 'httpkit.server.status.503')).toHaveLength(2);
    expect(poolOf(server)).toMatchObject({ refused: 2, accepted: 2, queued: 0, running: 0 });
  });

  it('keep the connection of a refused client', async () => {
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 0 });
    const free = gate();
    const blocker = ask(url, { block: free.path });
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const once = (): Promise<{ status: number | undefined; reused: boolean }> =>
      new Promise((resolve, reject) => {
        const request = get(url, { agent }, (response) => {
          response.resume();
          response.on('end', () => resolve({ status: response.statusCode, reused: request.reusedSocket }));
        });
        request.on('error', reject);
      });
    expect(await once()).toEqual({ status: 503, reused: false });
    expect(await once()).toEqual({ status: 503, reused: true });
    free.open();
    expect((await blocker).status).toBe(200);
    expect(await once()).toEqual({ status: 200, reused: true });
    agent.destroy();
  });

  it('do so after hundreds of cheap requests too, when batches have become large', async () => {
    const { url } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 1 });
    await warmUp(url, 400, 2);
    const { order } = await atOnce(url, 4, { burn: 300 });
    expect(order).toEqual([503, 503, 200, 200]);
  });

  it('do so for async handlers when one promise may be pending', async () => {
    const { url } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 1, concurrency: 1 });
    expect((await atOnce(url, 4, { wait: 300 })).order).toEqual([503, 503, 200, 200]);
    await warmUp(url, 200, 1);
    expect((await atOnce(url, 4, { wait: 300 })).order).toEqual([503, 503, 200, 200]);
  });
});

describe('four threads', () => {
  it.each([
    { queueSize: 3, warm: 0, answered: 7 },
    { queueSize: 3, warm: 300, answered: 7 },
    { queueSize: 0, warm: 0, answered: 4 },
    { queueSize: 0, warm: 300, answered: 4 },
  ])(
    'and a queue of $queueSize answer exactly $answered of ten, after $warm cheap ones',
    async ({ queueSize, warm, answered }) => {
      const { url, server } = await serve(WORK, { nMin: 2, nMax: 4, queueSize });
      await warmUp(url, warm, 2);
      const { refused } = poolOf(server);
      const free = gate();
      const all = atOnce(url, 10, { block: free.path });
      await until(() => poolOf(server).refused - refused === 10 - answered, 'the rest was refused');
      const { running, queued } = poolOf(server);
      expect(running + queued).toBe(answered);
      free.open();
      const { replies, order } = await all;
      expect(tally(replies)).toEqual({ 200: answered, 503: 10 - answered });
      expect(order.slice(0, 10 - answered).every((status) => status === 503)).toBe(true);
    },
  );
});

describe('concurrency', () => {
  it('is the most promises that are pending in one worker, and all are answered', async () => {
    const { url } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 100, concurrency: 3 });
    await warmUp(url, 50, 2);
    await Promise.all(Array.from({ length: 30 }, () => work(url, { wait: 10 })));
    expect((await work(url)).pendingMax).toBe(3);
  });

  it('counts in each worker for itself', async () => {
    const { url } = await serve(WORK, { nMin: 2, nMax: 2, queueSize: 100, concurrency: 4 });
    const worked = await Promise.all(Array.from({ length: 40 }, () => work(url, { wait: 20 })));
    expect(new Set(worked.map((one) => one.threadId)).size).toBe(2);
    for (const { pendingMax } of worked) expect(pendingMax).toBeLessThanOrEqual(4);
  });

  it('leaves the thread free for others while promises are pending', async () => {
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 0 });
    const free = gate();
    const held: Promise<Reply>[] = [];
    for (let i = 0; i < 5; i++) {
      held.push(ask(url, { hold: free.path }));
      await until(() => poolOf(server).pending === i + 1, 'the promise is pending');
      expect((await ask(url)).status).toBe(200);
    }
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 5 });
  });

  it('does not put all handlers that work after an await on one thread', MAY_GO_ELSEWHERE, async () => {
    const { url, server } = await serve(WORK, { nMin: 2, nMax: 2 });
    await server.mount(BLOCK, { path: '/block' });
    await warmUp(url, 100);
    for (let i = 0; i < 3; i++) await work(url, { burnAsync: 50 });
    const free = gate();
    const blockers = [1, 2].map(() => ask(`${url}/block`, { block: free.path }));
    await until(() => poolOf(server).running === 2, 'both threads are busy');
    const waiting = await queueUp(server, url, Array(4).fill({ burnAsync: 50 }));
    free.open();
    await Promise.all(blockers);
    const worked = (await Promise.all(waiting)).map(
      (reply) => JSON.parse(reply.text) as { threadId: number },
    );
    expect(new Set(worked.map((one) => one.threadId)).size).toBe(2);
  });
});

describe('an overload', () => {
  it('is logged once when it begins and once when it is over, and counted for each', async () => {
    const { url, server, errors, warnings, events } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 0 });
    const free = gate();
    const blocker = ask(url, { block: free.path });
    await until(() => poolOf(server).running === 1, 'the thread is busy');
    const { replies } = await atOnce(url, 25, {});
    expect(tally(replies)).toEqual({ 503: 25 });
    free.open();
    expect((await blocker).status).toBe(200);
    await until(() => warnings.length > 0, 'the end is logged');
    expect(errors.map((line) => line.message)).toEqual(['failed to submit task to executor service']);
    expect(errors[0]?.error).toMatchObject({ code: 'OFFLOOP_OVERLOADED' });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]?.message).toContain('25 refused');
    expect(events.filter((name) => name === 'httpkit.server.status.503')).toHaveLength(25);
  });
});

describe('clients that leave', () => {
  it.each(['block', 'hold'])('give their places in the queue back at once, behind a %s', async (way) => {
    const { url, server } = await serve(WORK, { nMin: 1, nMax: 1, queueSize: 2, concurrency: 1 });
    const free = gate();
    const first = ask(url, { [way]: free.path });
    await until(() => poolOf(server).running + poolOf(server).pending === 1, 'the thread is busy');
    const leaving = new AbortController();
    const gone = [1, 2].map((id) => ask(url, { id }, leaving.signal).catch((error: unknown) => error));
    await untilQueued(server, 2);
    expect((await ask(url)).status).toBe(503);
    leaving.abort();
    await Promise.all(gone);
    await untilQueued(server, 0);
    const next = [ask(url), ask(url)];
    await untilQueued(server, 2);
    free.open();
    expect((await first).status).toBe(200);
    expect(tally(await Promise.all(next))).toEqual({ 200: 2 });
    expect((await work(url)).calls).toBe(4);
  });
});
