import { createWorkerPool, type ServerOptions } from 'offloop';
import { describe, expect, it, onTestFinished } from 'vitest';
import { RawClient } from './support/http-raw.js';
import {
  ask,
  BLOCK,
  gate,
  LATE,
  leavable,
  log,
  poolOf,
  queueUp,
  type Reply,
  scratch,
  tally,
  untilQueued,
  untilWhole,
  WORK,
  type Worked,
} from './support/pool-client.js';
import { fixture, type Logged, serve, type TestServer, until, within } from './support/server.js';

const one = { nMin: 1, nMax: 1 };
const QUICK = { handlerTimeout: 100, killAfter: 100 };
/** The same for stories in which the thread is to live: it has time to show that its loop turns. */
const LENIENT = { handlerTimeout: 100, killAfter: 5000 };
/** A thread of low priority may not get to show that within a quarter of a second, when the machine is busy. */
const SHOWS_LIFE = { retry: 2 };
/** Time enough for a busy server to notice first that a client has left. */
const NOTICED_BEFORE = 2500;
const TOO_LONG = 'The request took too long';
const UNAVAILABLE = 'Server unavailable, please try again';
const WAITED = 'httpkit.server.status.503.waited';
const LATE_EVENT = 'httpkit.server.status.504';

const count = (events: readonly string[], name: string): number => events.filter((e) => e === name).length;
const statuses = async (replies: readonly Promise<Reply>[]): Promise<number[]> =>
  (await within(Promise.all(replies), 'every request to be answered')).map((reply) => reply.status);
/** The handler in late.mjs says which thread it was. */
const threadOf = (reply: Reply): string => reply.text.split(' in ')[1] as string;
/** A file that nobody will ever write. */
const never = (): string => `${scratch()}/never`;

/** A server whose handler in late.mjs has these limits under /late, and none anywhere else. */
async function lateServer(options: ServerOptions, limits: object = QUICK): Promise<TestServer> {
  const test = await serve(LATE, options);
  await test.server.mount(LATE, { path: '/late', ...limits });
  return test;
}

/** Wait for as long as it takes until a runaway under the same limits would have been found and ended. */
async function longEnough(limits: object = QUICK): Promise<void> {
  const { url, server } = await serve(LATE, { ...one, ...limits });
  const runaway = ask(url, { spin: 1 });
  await until(() => poolOf(server).killed === 1, 'the other runaway has been ended');
  await runaway;
}

const stuckLines = (errors: readonly Logged[]): Logged[] =>
  errors.filter((line) => (line.error as { code?: string } | undefined)?.code === 'OFFLOOP_HANDLER_STUCK');

/** The look into a stuck thread is given up after two seconds, which a crowded machine may need to let it happen. */
const LOOKS_INSIDE = { retry: 4 };
const stackOf = (line: Logged | undefined): string => String((line?.error as Error | undefined)?.stack);

async function untilKilled({ server, errors }: TestServer, killed: number): Promise<void> {
  await until(() => poolOf(server).killed === killed, `${killed} have been ended`);
  await until(() => stuckLines(errors).length === killed, 'that is logged');
}

describe('a request that has waited for queueTimeout', () => {
  /** A server with one thread, which is blocked. */
  async function blocked(options: ServerOptions): Promise<TestServer & { free: () => Promise<void> }> {
    const test = await serve(LATE, { ...one, ...options });
    await test.server.mount(BLOCK, { path: '/block', queueTimeout: 0 });
    const { path, open } = gate();
    const blocker = ask(`${test.url}/block`, { block: path });
    await until(() => poolOf(test.server).running === 1, 'the thread is busy');
    const free = async (): Promise<void> => {
      open();
      expect((await blocker).status).toBe(200);
    };
    return { ...test, free };
  }

  it('is answered 503 with a time to come back, counted, and never run', async () => {
    const { url, server, events, errors, warnings, free } = await blocked({ queueTimeout: 80 });
    const { path, lines } = log();
    const reply = await ask(url, { id: 'waits', log: path });
    expect(reply.status).toBe(503);
    expect(reply.text).toBe(UNAVAILABLE);
    expect(reply.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
    expect(reply.headers.get('content-type')).toMatch(/^text\/plain/);
    expect(count(events, WAITED)).toBe(1);
    expect(events).not.toContain('httpkit.server.status.503');
    const { mounts, pool, answers } = server.stats();
    expect(pool).toMatchObject({ queued: 0, refused: 0, timedOut: { queue: 1, handler: 0 } });
    expect(mounts.map(({ path, work }) => [path, work?.timedOut])).toEqual([
      ['/', { queue: 1, handler: 0 }],
      ['/block', { queue: 0, handler: 0 }],
    ]);
    expect(answers).toEqual({ 503: 1 });
    await free();
    expect((await ask(url, { id: 'next', log: path })).status).toBe(200);
    expect(lines()).toEqual(['begins next']);
    expect([errors, warnings]).toEqual([[], []]);
  });

  it('keeps its connection, on which the next one is served', async () => {
    const { port, free } = await blocked({ queueTimeout: 50 });
    const client = await RawClient.open(port);
    expect((await client.ask('GET', '/?id=a')).status).toBe(503);
    const head = await client.ask('HEAD', '/?id=a');
    expect([head.status, head.header('content-length')]).toEqual([503, String(UNAVAILABLE.length)]);
    await free();
    const next = await client.ask('GET', '/?id=b');
    expect([next.status, next.body.toString()]).toEqual([200, expect.stringContaining('b in')]);
  });

  it('leaves its place to another', async () => {
    const { url, server, events, free } = await blocked({ queueTimeout: 600, queueSize: 2 });
    for (let round = 0; round < 2; round++) {
      const crowd = [ask(url), ask(url)];
      await untilQueued(server, 2);
      expect((await ask(url)).status).toBe(503);
      expect(await statuses(crowd)).toEqual([503, 503]);
      expect(poolOf(server).queued).toBe(0);
    }
    expect([count(events, WAITED), count(events, 'httpkit.server.status.503')]).toEqual([4, 2]);
    await free();
    expect((await ask(url)).status).toBe(200);
  });

  it('may be one of hundreds, all of which are answered', async () => {
    const { url, server, free } = await blocked({ queueTimeout: 150 });
    const crowd = Array.from({ length: 300 }, () => ask(url));
    expect(tally(await Promise.all(crowd))).toEqual({ 503: 300 });
    expect(poolOf(server)).toMatchObject({ queued: 0, timedOut: { queue: 300, handler: 0 } });
    await free();
    expect(server.stats().open).toBe(0);
    expect((await ask(url)).status).toBe(200);
  });

  it('has the limit of its mount, where that has one', async () => {
    const { url, server, free } = await blocked({ queueTimeout: 100 });
    await server.mount(LATE, { path: '/patient', queueTimeout: 0 });
    await server.mount(LATE, { path: '/hasty', queueTimeout: 1 });
    await server.mount(LATE, { path: '/same', handlerTimeout: 60_000 });
    const patient = ask(`${url}/patient`, { id: 'patient' });
    await untilQueued(server, 1);
    expect((await ask(`${url}/hasty`)).status).toBe(503);
    expect((await ask(`${url}/same`)).status).toBe(503);
    expect((await ask(url)).status).toBe(503);
    expect(poolOf(server).queued).toBe(1);
    await free();
    expect((await patient).status).toBe(200);
    const waited = server.stats().mounts.map(({ path, work }) => [path, work?.timedOut.queue]);
    expect(Object.fromEntries(waited)).toEqual({
      '/': 1,
      '/patient': 0,
      '/hasty': 1,
      '/same': 1,
      '/block': 0,
    });
  });

  it('waits for ever when there is no limit, which is the default', async () => {
    const { url, server, free } = await blocked({});
    await server.mount(LATE, { path: '/hasty', queueTimeout: 150 });
    const patient = ask(url);
    await untilQueued(server, 1);
    expect((await ask(`${url}/hasty`)).status).toBe(503);
    expect(poolOf(server)).toMatchObject({ queued: 1, timedOut: { queue: 1 } });
    await free();
    expect((await patient).status).toBe(200);
  });

  it('is served when its turn comes in time, however long that takes then', async () => {
    const { url, server, free } = await blocked({ queueTimeout: 1500 });
    const { path, open } = gate();
    const inTime = ask(url, { id: 'in time', until: path });
    await untilQueued(server, 1);
    await free();
    await until(() => poolOf(server).running === 1 && poolOf(server).queued === 0, 'it runs');
    // One that began to wait when the other was running has waited for so long by now.
    expect((await ask(url)).status).toBe(503);
    open();
    expect((await inTime).status).toBe(200);
    expect(poolOf(server).timedOut.queue).toBe(1);
  });

  it('is not counted when its client has left before', async () => {
    const { url, server, events, free } = await blocked({ queueTimeout: NOTICED_BEFORE });
    const { leave } = leavable(url);
    await untilQueued(server, 1);
    await leave();
    await untilQueued(server, 0);
    expect((await ask(url)).status).toBe(503);
    expect(count(events, WAITED)).toBe(1);
    expect(poolOf(server).timedOut.queue).toBe(1);
    await free();
  });

  it('does not keep the server from stopping', async () => {
    const { url, server, free } = await blocked({ queueTimeout: 100 });
    const waits = ask(url);
    await untilQueued(server, 1);
    const stopping = server.stop();
    expect((await waits).status).toBe(503);
    await free();
    expect(await within(stopping, 'the server to stop')).toBe(true);
  });
});

describe('a handler that computes for longer than handlerTimeout', () => {
  it('has its request answered 504 while it still runs', async () => {
    const { url, server, events } = await lateServer(one, { ...QUICK, killAfter: 60_000 });
    const { path, lines } = log();
    const { path: free, open } = gate();
    const before = performance.now();
    const reply = await ask(`${url}/late`, { id: 'late', until: free, log: path });
    expect(performance.now() - before).toBeGreaterThan(98);
    expect(reply.status).toBe(504);
    expect(reply.text).toBe(TOO_LONG);
    expect(reply.headers.get('content-type')).toMatch(/^text\/plain/);
    expect(reply.headers.get('retry-after')).toBe(null);
    expect(count(events, LATE_EVENT)).toBe(1);
    expect(poolOf(server)).toMatchObject({ running: 1, timedOut: { queue: 0, handler: 1 } });
    const timedOut = server.stats().mounts.map(({ path, work }) => [path, work?.timedOut.handler]);
    expect(Object.fromEntries(timedOut)).toEqual({ '/': 0, '/late': 1 });
    await until(() => lines().length === 1, 'it has begun');
    expect(lines()).toEqual(['begins late']);
    open();
    await until(() => poolOf(server).running === 0, 'it is done');
    expect(server.stats().answers).toEqual({ 504: 1 });
  });

  it('keeps its worker when it comes to an end soon', async () => {
    const { url, server, errors } = await lateServer(one, { handlerTimeout: 100, killAfter: 60_000 });
    const before = threadOf(await ask(url));
    const { path, open } = gate();
    expect((await ask(`${url}/late`, { until: path })).status).toBe(504);
    open();
    await untilWhole(server, 1);
    expect(threadOf(await ask(url))).toBe(before);
    expect(poolOf(server)).toMatchObject({ threads: 1, killed: 0, crashed: 0 });
    expect(errors).toEqual([]);
  });

  it(
    'is not ended when it comes to an end at the last moment, with another thread standing by for it',
    SHOWS_LIFE,
    async () => {
      const { url, server, errors } = await lateServer(one, { ...QUICK, killAfter: 700 });
      const { path, open } = gate();
      expect((await ask(`${url}/late`, { until: path })).status).toBe(504);
      await until(() => poolOf(server).threads === 2, 'another thread is on its way');
      open();
      await untilWhole(server, 1);
      await longEnough({ handlerTimeout: 50, killAfter: 250 });
      expect((await ask(url)).status).toBe(200);
      expect(poolOf(server)).toMatchObject({ threads: 1, killed: 0, crashed: 0, lost: 0 });
      expect(errors).toEqual([]);
    },
  );

  it('does not give its waiting requests to the thread that stands by before it goes', async () => {
    const { url, server } = await lateServer(one, { ...QUICK, killAfter: 600 });
    const { path, open } = gate();
    expect((await ask(`${url}/late`, { until: path })).status).toBe(504);
    const waits = ask(url);
    await until(() => poolOf(server).threads === 2, 'another thread stands by, or will');
    expect(poolOf(server)).toMatchObject({ queued: 1, killed: 0 });
    open();
    expect((await waits).status).toBe(200);
  });

  it('is answered like any other when it is done in time', async () => {
    const { url, server, events } = await lateServer(one, { handlerTimeout: 15_000, killAfter: 0 });
    const { path, open } = gate();
    const reply = ask(`${url}/late`, { id: 'in time', until: path });
    await until(() => poolOf(server).running === 1, 'it runs');
    open();
    expect((await reply).text).toContain('in time in');
    expect(poolOf(server).timedOut.handler).toBe(0);
    expect(count(events, LATE_EVENT)).toBe(0);
  });

  it('gets one answer, the one or the other, when it is done at about the moment its time is up', async () => {
    const { path, lines } = log();
    const { url, server, events } = await serve(WORK, {
      nMin: 2,
      nMax: 2,
      handlerTimeout: 40,
      killAfter: 60_000,
    });
    const replies: Reply[] = [];
    const client = async (first: number): Promise<void> => {
      for (let n = first; n < 40; n += 4)
        replies.push(await ask(url, { id: `computes ${n}`, burn: 30 + (n % 20), log: path }));
    };
    await Promise.all([client(0), client(1)]);
    const wait = async (first: number): Promise<void> => {
      for (let n = first; n < 120; n += 8)
        replies.push(await ask(url, { id: `waits ${n}`, wait: 30 + (n % 20), log: path }));
    };
    await Promise.all(Array.from({ length: 8 }, (_, i) => wait(i)));
    await untilWhole(server, 2);
    const counts = tally(replies);
    expect((counts[200] ?? 0) + (counts[504] ?? 0)).toBe(replies.length);
    expect(server.stats().answers[504]).toBe(counts[504]);
    expect(count(events, LATE_EVENT)).toBe(counts[504] ?? 0);
    expect(poolOf(server)).toMatchObject({ crashed: 0, killed: 0, timedOut: { handler: counts[504] ?? 0 } });
    // One that had its 504 before a thread had begun with it need not run.
    const answered = replies
      .filter(({ status }) => status === 200)
      .map(({ text }) => (JSON.parse(text) as Worked).id);
    expect(lines()).toEqual(expect.arrayContaining(answered));
    expect(new Set(lines()).size).toBe(lines().length);
  });
});

describe('an async handler that takes longer than handlerTimeout', () => {
  it('has its request answered 504, and its signal tells it so', async () => {
    const { url, server, errors } = await lateServer(one, LENIENT);
    const { path, lines } = log();
    const reply = await ask(`${url}/late`, { id: 'late', heeds: 1, watch: 1, log: path });
    expect([reply.status, reply.text]).toEqual([504, TOO_LONG]);
    await until(() => lines().length === 2, 'the signal has fired');
    expect(lines()).toEqual(['begins late', 'OffloopError OFFLOOP_HANDLER_TIMEOUT']);
    await until(() => poolOf(server).pending === 0, 'its promise has settled');
    expect(poolOf(server)).toMatchObject({ killed: 0, timedOut: { handler: 1 } });
    expect(errors).toEqual([]); // what it threw then is nobody's business
  });

  it('that asks for its signal when its time is up finds it aborted', async () => {
    const { url, server } = await serve(fixture('pool/cancel.mjs'), { ...one, ...LENIENT });
    const { path, lines } = log();
    const { path: free, open } = gate();
    expect((await ask(url, { late: free, log: path })).status).toBe(504);
    open();
    await until(() => lines().length === 1, 'it has looked');
    expect(lines()).toEqual(['late true']);
    await untilWhole(server, 1);
  });

  it('and ignores that keeps its worker, which goes on serving', async () => {
    const limits = { handlerTimeout: 100, killAfter: 400 };
    const { url, server, errors } = await lateServer(one, limits);
    const before = threadOf(await ask(url));
    const { path, open } = gate();
    const { path: notes, lines } = log();
    expect((await ask(`${url}/late`, { id: 'deaf', hold: path, log: notes })).status).toBe(504);
    await longEnough(limits);
    expect(threadOf(await ask(url))).toBe(before);
    expect(poolOf(server)).toMatchObject({ threads: 1, pending: 1, killed: 0, crashed: 0 });
    open();
    await untilWhole(server, 1);
    expect(lines()).toEqual(['begins deaf', 'ends deaf']);
    expect(threadOf(await ask(url))).toBe(before);
    expect(errors).toEqual([]);
  });

  it('does not answer the next request on the connection with its late answer', async () => {
    const { port, server } = await lateServer(one, LENIENT);
    const { path, open } = gate();
    const client = await RawClient.open(port);
    const late = await client.ask('GET', `/late?id=late&hold=${encodeURIComponent(path)}`);
    expect([late.status, late.body.toString()]).toEqual([504, TOO_LONG]);
    expect(late.header('connection')).not.toBe('close');
    client.send(`GET /?id=next&hold=${encodeURIComponent(path)} HTTP/1.1\r\nHost: h\r\n\r\n`);
    await until(() => poolOf(server).pending === 2, 'both are pending');
    open();
    const next = await client.response();
    expect([next.status, next.body.toString()]).toEqual([200, expect.stringMatching(/^next in/)]);
    await untilWhole(server, 1);
    const last = await client.ask('GET', '/?id=last');
    expect(last.body.toString()).toMatch(/^last in/);
    expect(client.rest).toBe('');
  });

  it('has the limit of its mount, where that has one', async () => {
    const { url, server } = await serve(LATE, { ...one, ...LENIENT });
    await server.mount(LATE, { path: '/patient', handlerTimeout: 0 });
    await server.mount(LATE, { path: '/hasty', handlerTimeout: 10 });
    const { path, open } = gate();
    const patient = ask(`${url}/patient`, { id: 'patient', hold: path });
    await until(() => poolOf(server).pending === 1, 'it is pending');
    expect((await ask(`${url}/hasty`, { hold: path })).status).toBe(504);
    expect((await ask(url, { hold: path })).status).toBe(504);
    expect(poolOf(server)).toMatchObject({ timedOut: { handler: 2 }, killed: 0 });
    open();
    expect((await patient).text).toContain('patient in');
  });

  it('is told by its signal of what came first: its client, or its time', async () => {
    const limits = { handlerTimeout: NOTICED_BEFORE, killAfter: 100 };
    const { url, server } = await lateServer(one, limits);
    const { path, lines } = log();
    const { path: free, open } = gate();
    const { leave } = leavable(`${url}/late`, { id: 'left', watch: 1, hold: free, log: path });
    await until(() => poolOf(server).pending === 1, 'it is pending');
    await leave();
    await until(() => lines().length === 2, 'its signal has fired');
    await longEnough(limits);
    expect(lines()).toEqual(['begins left', 'OffloopError OFFLOOP_ABORTED']);
    open();
    await untilWhole(server, 1);
    expect(server.stats().answers[504]).toBeUndefined();
  });

  it.each([0, 100])(
    'costs its worker nothing with a killAfter of %i either: its loop turns',
    SHOWS_LIFE,
    async (killAfter) => {
      const { url, server, errors } = await lateServer(one, { handlerTimeout: 10, killAfter });
      const before = threadOf(await ask(url));
      const hangs = never();
      for (let i = 0; i < 10; i++) expect((await ask(`${url}/late`, { hold: hangs })).status).toBe(504);
      expect(stuckLines(errors)).toEqual([]);
      expect(threadOf(await ask(url))).toBe(before);
      expect(poolOf(server)).toMatchObject({ threads: 1, killed: 0, pending: 10 });
    },
  );
});

describe('an inline handler that takes longer than handlerTimeout', () => {
  it('has its request answered 504, and its signal tells it so', async () => {
    const reasons: unknown[] = [];
    const settle: (() => void)[] = [];
    const test = await serve(
      (req) => {
        req.signal.addEventListener('abort', () => reasons.push(req.signal.reason));
        return new Promise((resolve) => settle.push(() => resolve({ body: `late ${req.path}` })));
      },
      { dispatch: false, ...QUICK },
    );
    const client = await RawClient.open(test.port);
    const reply = await client.ask('GET', '/first');
    expect([reply.status, reply.body.toString()]).toEqual([504, TOO_LONG]);
    expect(reply.header('content-type')).toMatch(/^text\/plain/);
    expect(reasons).toEqual([
      expect.objectContaining({ name: 'OffloopError', code: 'OFFLOOP_HANDLER_TIMEOUT' }),
    ]);
    expect(test.events).toEqual([LATE_EVENT]);
    // Its answer comes after all, and goes nowhere: not to the next request either.
    client.send('GET /second HTTP/1.1\r\nHost: h\r\n\r\n');
    await until(() => settle.length === 2, 'the next one is there');
    settle[0]?.();
    const next = await client.response();
    expect([next.status, next.body.toString()]).toEqual([504, TOO_LONG]);
    expect(test.errors).toEqual([]);
    expect(test.server.stats().answers).toEqual({ 504: 2 });
  });

  it('may throw when its signal fires: that is not logged', async () => {
    let rejected = 0;
    const test = await serve(
      (req) =>
        new Promise((_, reject) =>
          req.signal.addEventListener('abort', () => {
            rejected++;
            reject(req.signal.reason as Error);
          }),
        ),
      { dispatch: false, ...QUICK },
    );
    expect((await ask(test.url)).status).toBe(504);
    await until(() => rejected === 1, 'it has thrown');
    expect((await ask(test.url)).status).toBe(504);
    expect(test.errors).toEqual([]);
    expect(test.events).toEqual([LATE_EVENT, LATE_EVENT]);
  });

  it('has its error logged when it throws in time', async () => {
    const test = await serve(() => Promise.reject(new RangeError('in time')), {
      dispatch: false,
      ...QUICK,
    });
    expect((await ask(test.url)).status).toBe(500);
    expect(test.errors).toHaveLength(1);
  });

  it('has the limit of its mount, and none where there is none', async () => {
    const release: (() => void)[] = [];
    const handler = (): Promise<{ body: string }> =>
      new Promise((resolve) => release.push(() => resolve({ body: 'done' })));
    const test = await serve(handler, { dispatch: false });
    await test.server.mount(handler, { path: '/hasty', dispatch: false, handlerTimeout: 100 });
    const patient = ask(test.url);
    await until(() => release.length === 1, 'it waits');
    expect((await ask(`${test.url}/hasty`)).status).toBe(504);
    for (const one of release) one();
    expect((await patient).text).toBe('done');
  });

  it('is answered when it is done in time, and told nothing afterwards', async () => {
    let aborted = false;
    const test = await serve(
      async (req) => {
        req.signal.addEventListener('abort', () => {
          aborted = true;
        });
        await new Promise((resolve) => setImmediate(resolve));
        return { body: req.path };
      },
      { dispatch: false, handlerTimeout: 600 },
    );
    await test.server.mount(() => new Promise(() => undefined), { path: '/never', dispatch: false });
    expect((await ask(`${test.url}/quick`)).text).toBe('/quick');
    expect((await ask(`${test.url}/never`)).status).toBe(504);
    expect(aborted).toBe(false);
  });

  it('of a client that has left is told that, and nothing is counted', async () => {
    const reasons: unknown[] = [];
    const test = await serve(
      (req) => {
        req.signal.addEventListener('abort', () =>
          reasons.push((req.signal.reason as { code: string }).code),
        );
        return new Promise(() => undefined);
      },
      { dispatch: false, handlerTimeout: NOTICED_BEFORE },
    );
    const { leave } = leavable(`${test.url}/left`);
    await until(() => test.server.stats().open === 1, 'it is there');
    await leave();
    await until(() => reasons.length === 1, 'it is told');
    expect((await ask(test.url)).status).toBe(504);
    expect(reasons).toEqual(['OFFLOOP_ABORTED', 'OFFLOOP_HANDLER_TIMEOUT']);
    expect(test.events).toEqual([LATE_EVENT]);
  });

  it('does not keep the server from stopping', async () => {
    const test = await serve(() => new Promise(() => undefined), { dispatch: false, ...QUICK });
    const reply = ask(test.url);
    await until(() => test.server.stats().open === 1, 'it is there');
    const stopping = test.server.stop();
    expect((await reply).status).toBe(504);
    expect(await within(stopping, 'the server to stop')).toBe(true);
  });
});

describe('a handler that never lets go of its thread', () => {
  it('costs its own request a 504, and its worker, which is replaced', LOOKS_INSIDE, async () => {
    const test = await lateServer(one);
    const { url, server, errors } = test;
    const before = threadOf(await ask(url));
    const reply = await ask(`${url}/late/deeper`, { spin: 1 });
    expect([reply.status, reply.text]).toEqual([504, TOO_LONG]);
    const after = await ask(url);
    expect(threadOf(after)).not.toBe(before);
    await untilKilled(test, 1);
    await untilWhole(server, 1);
    expect(poolOf(server)).toMatchObject({ killed: 1, crashed: 0, lost: 0, timedOut: { handler: 1 } });
    const [line] = errors;
    expect(errors).toHaveLength(1);
    expect(line?.message).toContain('GET /late/deeper');
    expect(line?.message).toContain('offloop-worker-1');
    expect(line?.message).toMatch(/\d+ ms/);
    expect(line?.error).toMatchObject({ name: 'OffloopError', code: 'OFFLOOP_HANDLER_STUCK' });
    const stack = stackOf(line);
    expect(stack).toMatch(/OffloopError: GET \/late\/deeper has run for \d+ ms/);
    expect(stack).toMatch(/\n {4}at spinForEver \(file:.*late\.mjs:\d+:\d+\)\n/);
    expect(server.stats().answers).toEqual({ 200: 2, 504: 1 });
  });

  it(
    'is told apart in the log when two of them are stuck in two functions at the same time',
    LOOKS_INSIDE,
    async () => {
      const test = await lateServer({ nMin: 2, nMax: 2 });
      const replies = [ask(`${test.url}/late/a`, { spin: 1 }), ask(`${test.url}/late/b`, { until: never() })];
      expect(await statuses(replies)).toEqual([504, 504]);
      await untilKilled(test, 2);
      await untilWhole(test.server, 2);
      const of = (path: string): string => stackOf(test.errors.find((line) => line.message.includes(path)));
      expect(of('/late/a')).toContain('at spinForEver');
      expect(of('/late/b')).toContain('at spinUntil');
    },
  );

  it('costs those nothing that wait for its thread', async () => {
    const test = await lateServer(one);
    const late = ask(`${test.url}/late`, { spin: 1 });
    await until(() => poolOf(test.server).running === 1, 'it runs');
    const others = Array.from({ length: 5 }, (_, id) => ask(test.url, { id }));
    await untilQueued(test.server, 5);
    expect(await statuses([late, ...others])).toEqual([504, 200, 200, 200, 200, 200]);
    await untilKilled(test, 1);
    await untilWhole(test.server, 1);
  });

  it.each([
    ['and there is another thread', 2],
    ['and there is no other thread', 1],
  ])('costs those nothing that travelled with it, before and behind: %s', async (_, threads) => {
    const { path, lines } = log();
    const test = await serve(LATE, { nMin: threads, nMax: threads, handlerTimeout: 1000, killAfter: 100 });
    const { url, server } = test;
    await server.mount(BLOCK, { path: '/block', handlerTimeout: 0 });
    for (let i = 0; i < 150; i++) await ask(url); // they are known to be cheap
    const free = gate();
    const blockers = Array.from({ length: threads }, () => ask(`${url}/block`, { block: free.path }));
    await until(() => poolOf(server).running === threads, 'all threads are busy');
    const id = (name: string): { id: string; log: string } => ({ id: name, log: path });
    const replies = await queueUp(server, url, [
      id('a'),
      id('b'),
      { spin: 1, ...id('late') },
      id('c'),
      id('d'),
      id('e'),
    ]);
    free.open();
    await Promise.all(blockers);
    expect(await statuses(replies)).toEqual([200, 200, 504, 200, 200, 200]);
    // Nothing ran twice.
    expect(lines().sort()).toEqual(['a', 'b', 'c', 'd', 'e', 'late'].map((name) => `begins ${name}`));
    await untilKilled(test, 1);
    await untilWhole(server, threads);
  });

  it('costs what else is pending in its worker a 500, each once', async () => {
    const test = await lateServer(one);
    const { url, server, errors } = test;
    const { path } = gate();
    const pending = [1, 2, 3].map((id) => ask(url, { id, hold: path }));
    await until(() => poolOf(server).pending === 3, 'they are pending');
    expect((await ask(`${url}/late`, { spin: 1 })).status).toBe(504);
    expect(await statuses(pending)).toEqual([500, 500, 500]);
    await untilKilled(test, 1);
    await untilWhole(server, 1);
    expect(server.stats().answers).toEqual({ 500: 3, 504: 1 });
    const lost = errors.filter((line) => (line.error as { code: string }).code === 'OFFLOOP_WORKER_LOST');
    expect(lost.map((line) => line.message)).toEqual(['GET /', 'GET /', 'GET /']);
    expect(lost[0]?.error).toMatchObject({ cause: { code: 'OFFLOOP_HANDLER_STUCK' } });
  });

  it.each([
    ['behind an await that does not wait', { spinSoon: 1 }],
    ['behind an await that has waited', { spinAfter: '/' }],
    ['in a timer, while its promise is pending', { spinInTimer: '/', never: 1 }],
  ])('is found %s', LOOKS_INSIDE, async (_, query) => {
    const test = await lateServer(one);
    expect((await ask(`${test.url}/late`, query)).status).toBe(504);
    expect((await ask(test.url)).status).toBe(200);
    await untilKilled(test, 1);
    await untilWhole(test.server, 1);
    expect(stackOf(test.errors[0])).toContain('at spinForEver');
  });

  it('is ended at once when killAfter is 0', async () => {
    const test = await lateServer(one, { handlerTimeout: 100, killAfter: 0 });
    expect((await ask(`${test.url}/late`, { spin: 1 })).status).toBe(504);
    await untilKilled(test, 1);
    expect((await ask(test.url)).status).toBe(200);
    await untilWhole(test.server, 1);
  });

  it('is ended when its client has long gone, and nobody is answered', async () => {
    const test = await lateServer(one, { handlerTimeout: NOTICED_BEFORE, killAfter: 50 });
    const { leave } = leavable(`${test.url}/late`, { spin: 1 });
    await until(() => poolOf(test.server).running === 1, 'it runs');
    await leave();
    await until(() => test.server.stats().open === 0, 'it is known that the client has gone');
    await untilKilled(test, 1);
    expect((await ask(test.url)).status).toBe(200);
    await untilWhole(test.server, 1);
    expect(test.server.stats().answers).toEqual({ 200: 1 });
    expect(test.server.stats().open).toBe(0);
  });

  it('may have many like it, one after the other, among cheap ones: each request gets one answer', async () => {
    const { path, lines } = log();
    const test = await serve(WORK, { nMin: 2, nMax: 2, queueSize: 1000 });
    await test.server.mount(LATE, { path: '/late', handlerTimeout: 40, killAfter: 40 });
    let runaways = 0;
    let sent = 0;
    const cheap: Reply[] = [];
    const load = async (): Promise<void> => {
      while (runaways < 4) cheap.push(await ask(test.url, { id: sent++, log: path }));
    };
    const late: Reply[] = [];
    const run = async (): Promise<void> => {
      while (runaways < 4) {
        late.push(await ask(`${test.url}/late`, { spin: 1 }));
        runaways++;
      }
    };
    await Promise.all([run(), ...Array.from({ length: 4 }, load)]);
    expect(tally(late)).toEqual({ 504: 4 });
    expect(tally(cheap)).toEqual({ 200: sent });
    expect(lines()).toHaveLength(sent);
    expect(new Set(lines()).size).toBe(sent);
    await untilKilled(test, 4);
    await untilWhole(test.server, 2);
    expect(poolOf(test.server)).toMatchObject({ crashed: 0, lost: 0 });
  });

  it('may come to an end at the very moment its worker is to be ended: the pool is whole again either way', async () => {
    const test = await serve(WORK, { ...one, handlerTimeout: 20, killAfter: 110 });
    await test.server.mount(WORK, { path: '/patient', handlerTimeout: 0 });
    for (let ms = 115; ms < 145; ms += 4) expect((await ask(test.url, { burn: ms })).status).toBe(504);
    await untilWhole(test.server, 1);
    const { killed } = poolOf(test.server);
    await until(() => stuckLines(test.errors).length === killed, 'each is logged once');
    expect((await ask(`${test.url}/patient`)).status).toBe(200);
    expect(poolOf(test.server)).toMatchObject({ crashed: 0, lost: 0 });
  });

  it('is ended while the code is being reloaded, too', async () => {
    const test = await lateServer({ nMin: 2, nMax: 2 }, { handlerTimeout: 300, killAfter: 100 });
    const late = ask(`${test.url}/late`, { spin: 1 });
    await until(() => poolOf(test.server).running === 1, 'it runs');
    await test.server.reload();
    expect((await ask(test.url)).status).toBe(200);
    expect((await late).status).toBe(504);
    await untilKilled(test, 1);
    await untilWhole(test.server, 2);
  });

  it('is ended in a pool that two servers share, and the other server is served', async () => {
    const workerPool = createWorkerPool(one);
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    const mine = await serve(LATE, { workerPool, ...QUICK });
    const yours = await serve(LATE, { workerPool });
    const late = ask(mine.url, { spin: 1 });
    await until(() => workerPool.stats.running === 1, 'it runs');
    expect((await ask(yours.url, { id: 'yours' })).text).toContain('yours in');
    expect((await late).status).toBe(504);
    await untilKilled(mine, 1);
    expect(stuckLines(yours.errors)).toHaveLength(1);
    expect(mine.server.stats().mounts[0]?.work?.timedOut.handler).toBe(1);
    expect(yours.server.stats().mounts[0]?.work?.timedOut.handler).toBe(0);
    expect(yours.server.stats().answers).toEqual({ 200: 1 });
  });

  it('is ended in a shared pool when its own server has stopped meanwhile', async () => {
    const workerPool = createWorkerPool(one);
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    const mine = await serve(LATE, { workerPool, handlerTimeout: 200, killAfter: 100 });
    const yours = await serve(LATE, { workerPool });
    const late = ask(mine.url, { spin: 1 }).catch(() => undefined);
    await until(() => workerPool.stats.running === 1, 'it runs');
    await within(mine.server.stop({ timeout: 0 }), 'the server to stop');
    await late;
    expect((await ask(yours.url)).status).toBe(200);
    await untilKilled(yours, 1);
  });
});

describe('stopping while a handler never lets go of its thread', () => {
  it('takes no longer than it is allowed to', async () => {
    const { url, server } = await lateServer(one, { handlerTimeout: 0 });
    const late = ask(`${url}/late`, { spin: 1 }).catch(() => undefined);
    await until(() => poolOf(server).running === 1, 'it runs');
    expect(await within(server.stop({ timeout: 150 }), 'the server to stop')).toBe(true);
    await late;
  });

  it('takes no longer than until it has been ended, and its client gets the 504', async () => {
    const { url, server } = await lateServer(one);
    const late = ask(`${url}/late`, { spin: 1 });
    await until(() => poolOf(server).running === 1, 'it runs');
    const stopping = server.stop({ timeout: 60_000 });
    expect((await late).status).toBe(504);
    expect(await within(stopping, 'the server to stop')).toBe(true);
  });

  it('works at the moment its worker is being ended', async () => {
    const { url, server } = await lateServer({ nMin: 2, nMax: 2 });
    const late = ask(`${url}/late`, { spin: 1 });
    expect((await late).status).toBe(504);
    await until(() => poolOf(server).killed === 1, 'it is being ended');
    expect(await within(server.stop(), 'the server to stop')).toBe(true);
  });
});

describe('a worker whose loop does not turn', () => {
  it('is not ended for one that waits in it while another computes that may take as long as it likes', async () => {
    const limits = { handlerTimeout: 500, killAfter: 400 };
    const { url, server, errors } = await lateServer(one, limits);
    const { path: hold, open: release } = gate();
    const { path: compute, open: finish } = gate();
    const late = ask(`${url}/late`, { id: 'late', hold });
    await until(() => poolOf(server).pending === 1, 'it is pending');
    const legitimate = ask(url, { id: 'legitimate', until: compute });
    await until(() => poolOf(server).running === 1, 'the other computes');
    expect((await late).status).toBe(504);
    await longEnough(limits);
    expect(poolOf(server)).toMatchObject({ running: 1, pending: 1, killed: 0 });
    finish();
    expect((await legitimate).status).toBe(200);
    release();
    await untilWhole(server, 1);
    expect(poolOf(server)).toMatchObject({ killed: 0, crashed: 0 });
    expect(errors).toEqual([]);
  });

  it.each([1, 3])(
    'is found when a timer loops in it and nothing else is going on, by %i requests',
    LOOKS_INSIDE,
    async (n) => {
      const test = await serve(LATE, { ...one, ...QUICK });
      const { path, lines } = log();
      const { path: begin, open } = gate();
      expect((await ask(test.url, { spinInTimer: begin, log: path })).status).toBe(200);
      open();
      await until(() => lines().includes('spins'), 'it loops');
      const replies = Array.from({ length: n }, (_, id) =>
        ask(test.url, { id }, AbortSignal.timeout(15_000)),
      );
      // None of them is to blame, but the first has waited for as long as a handler may take.
      for (const status of await statuses(replies)) expect([200, 504]).toContain(status);
      await untilKilled(test, 1);
      await untilWhole(test.server, 1);
      expect((await ask(test.url)).status).toBe(200);
      expect(stackOf(test.errors[0])).toContain('at spinForEver');
    },
  );

  it('is found when the loop begins behind the 504, too', async () => {
    const limits = { handlerTimeout: 100, killAfter: 1000 };
    const test = await serve(LATE, { ...one, ...limits });
    const { path, lines } = log();
    const { path: begin, open } = gate();
    expect((await ask(test.url, { spinAfter: begin, log: path })).status).toBe(504);
    // Its loop still turns, and it is left alone.
    await longEnough(limits);
    expect((await ask(test.url)).status).toBe(200);
    expect(poolOf(test.server).killed).toBe(0);
    open();
    await until(() => lines().includes('spins'), 'it loops');
    const replies = [1, 2, 3].map((id) => ask(test.url, { id }, AbortSignal.timeout(15_000)));
    for (const status of await statuses(replies)) expect([200, 504]).toContain(status);
    await untilKilled(test, 1);
    await untilWhole(test.server, 1);
    expect((await ask(test.url)).status).toBe(200);
  });
});
