import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createWorkerPool, type Server, type WorkerPool, type WorkerPoolOptions } from 'offloop';
import { Agent, request } from 'undici';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  ask,
  gate,
  log,
  poolOf,
  type Reply,
  scratch,
  tally,
  untilQueued,
  untilWhole,
} from './support/pool-client.js';
import { code, say } from './support/pool-code.js';
import { fixture, serve, until, within } from './support/server.js';

const HELLO = fixture('pool/hello.mjs');
const BYE = fixture('pool/bye.mjs');
const one = { nMin: 1, nMax: 1 };

function shared(options: WorkerPoolOptions = one): WorkerPool {
  const pool = createWorkerPool(options);
  onTestFinished(() => pool.close({ timeout: 0 }));
  return pool;
}

const threadsOf = (server: Server): number[] => poolOf(server).workers.map((worker) => worker.threadId);

/** What a reload ends with: its code if it has one, else its message. */
const outcome = (reload: Promise<void>): Promise<string> =>
  reload.then(
    () => 'reloaded',
    (error: unknown) => (error as { code?: string }).code ?? (error as Error).message,
  );

describe('a reload', () => {
  it('puts the code that is now on disk into every thread, and is counted', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2 });
    const before = threadsOf(test.server);
    expect((await say(test.url)).version).toBe('one');
    handler.write('two');
    expect((await say(test.url)).version).toBe('one');
    await test.server.reload();
    const answers = await Promise.all(Array.from({ length: 20 }, (_, id) => say(test.url, { id })));
    expect(new Set(answers.map((answer) => answer.version))).toEqual(new Set(['two']));
    for (const { threadId } of answers) expect(before).not.toContain(threadId);
    expect(poolOf(test.server)).toMatchObject({ reloads: 1, crashed: 0, recycled: 0, killed: 0, lost: 0 });
    await untilWhole(test.server, 2);
    expect([test.errors, test.warnings]).toEqual([[], []]);
  });

  it('reads what the handler imports anew, too', async () => {
    const folder = scratch();
    const words = join(folder, 'words.cjs');
    const path = join(folder, 'handler.mjs');
    writeFileSync(path, "import words from './words.cjs';\nexport default () => ({ body: words.hello });\n");
    writeFileSync(words, "module.exports = { hello: 'good day' };\n");
    const { server, url } = await serve(path, one);
    expect((await ask(url)).text).toBe('good day');
    writeFileSync(words, "module.exports = { hello: 'good night' };\n");
    await server.reload();
    expect((await ask(url)).text).toBe('good night');
  });

  it('may come again and again', async () => {
    const handler = code('0');
    const test = await serve(handler.path, one);
    for (let n = 1; n <= 5; n++) {
      handler.write(String(n));
      await test.server.reload();
      expect((await say(test.url)).version).toBe(String(n));
    }
    expect(poolOf(test.server).reloads).toBe(5);
    await untilWhole(test.server, 1);
    await until(() => handler.count('stop') === 5, 'five threads have stopped in order');
  });

  it('runs onWorkerStart in the new threads before they take over, and onWorkerStop in the old ones', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2 });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const reload = test.server.reload();
    await until(() => handler.count('begin two') === 2, 'the new threads are starting');
    const { workers, threads } = poolOf(test.server);
    expect({ threads, states: workers.map((worker) => worker.state) }).toEqual({
      threads: 4,
      states: ['ready', 'ready', 'starting', 'starting'],
    });
    for (let i = 0; i < 10; i++) expect((await say(test.url)).version).toBe('one');
    expect(poolOf(test.server).reloads).toBe(0);
    go.open();
    await reload;
    expect(handler.count('start two')).toBe(2);
    await until(() => handler.count('stop one') === 2, 'the old ones have stopped');
    await untilWhole(test.server, 2);
    expect(handler.count('stop two')).toBe(0);
  });

  it('has new threads that are ready stand by until all are, and the old ones work meanwhile', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2 });
    // The first one of the new threads is ready at once, the second one waits.
    const folder = scratch();
    const go = gate();
    handler.writeText(`
      import { existsSync, mkdirSync } from 'node:fs';
      import { setTimeout as sleep } from 'node:timers/promises';
      export async function onWorkerStart() {
        try { mkdirSync(${JSON.stringify(join(folder, 'first'))}); return; } catch {}
        while (!existsSync(${JSON.stringify(go.path)})) await sleep(2);
      }
      export default () => ({ body: JSON.stringify({ version: 'two' }) });
    `);
    const reload = test.server.reload();
    const states = (): string[] => poolOf(test.server).workers.map((worker) => worker.state);
    await until(() => states().includes('standby'), 'one of the new threads stands by');
    expect(states().sort()).toEqual(['ready', 'ready', 'standby', 'starting']);
    for (let i = 0; i < 10; i++) expect((await say(test.url)).version).toBe('one');
    go.open();
    await reload;
    for (let i = 0; i < 10; i++) expect((await say(test.url)).version).toBe('two');
    await untilWhole(test.server, 2);
  });

  it('takes all threads that work with it, those above nMin too', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 1, nMax: 3 });
    const free = gate();
    const held: Promise<Reply>[] = [];
    for (let busy = 1; busy <= 3; busy++) {
      held.push(ask(test.url, { block: free.path }));
      await until(() => handler.count('block one') === busy, `${busy} threads are busy`);
    }
    handler.write('two');
    await test.server.reload();
    const ready = poolOf(test.server).workers.filter((worker) => worker.state === 'ready');
    expect(ready).toHaveLength(3);
    expect((await say(test.url)).version).toBe('two');
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 3 });
    await untilWhole(test.server, 3);
  });

  it('has nothing to do in a pool that was never used', async () => {
    const pool = shared();
    await pool.reload();
    expect(pool.stats).toMatchObject({ threads: 0, reloads: 0 });
  });
});

describe('what the old threads have when the code is reloaded', () => {
  it('is finished by the old code: a handler that computes, and one whose promise is pending', async () => {
    const handler = code();
    const test = await serve(handler.path, one);
    const free = gate();
    const pending = say(test.url, { hold: free.path, id: 'pending' });
    await until(() => poolOf(test.server).pending === 1, 'one is pending');
    const computing = say(test.url, { block: free.path, id: 'computing' });
    await until(() => handler.count('block one') === 1, 'one computes');
    handler.write('two');
    await test.server.reload();
    // The old thread still has both, and is in nobody's way.
    for (let i = 0; i < 5; i++) expect((await say(test.url)).version).toBe('two');
    expect(poolOf(test.server)).toMatchObject({ running: 1, pending: 1 });
    expect(handler.count('stop one')).toBe(0);
    free.open();
    expect(await pending).toMatchObject({ version: 'one', id: 'pending' });
    expect(await computing).toMatchObject({ version: 'one', id: 'computing' });
    await until(() => handler.count('stop one') === 1, 'the old thread has stopped');
    await untilWhole(test.server, 1);
    expect(poolOf(test.server)).toMatchObject({ crashed: 0, killed: 0 });
  });

  it('and has not begun with is done by the new code, in the order it came', async () => {
    const handler = code();
    const { path, lines } = log();
    const test = await serve(handler.path, one);
    for (let i = 0; i < 100; i++) await say(test.url);
    const free = gate();
    const busy = say(test.url, { block: free.path });
    await until(() => handler.count('block one') === 1, 'the thread is busy');
    const ids = Array.from({ length: 8 }, (_, i) => ({ id: i, log: path }));
    // Some of them may lie in the lane of the busy thread for a moment, behind the one that blocks it.
    const waiting = ids.map((query) => say(test.url, query));
    await until(() => poolOf(test.server).queued === 8, 'they wait');
    handler.write('two');
    await test.server.reload();
    const answers = await within(Promise.all(waiting), 'what waited to be answered');
    expect(new Set(answers.map((answer) => answer.version))).toEqual(new Set(['two']));
    expect(lines()).toHaveLength(8);
    expect(new Set(lines()).size).toBe(8);
    free.open();
    expect((await busy).version).toBe('one');
  });

  it('takes no place from what comes later', async () => {
    const handler = code();
    const { server, url } = await serve(handler.path, { ...one, queueSize: 0 });
    const free = gate();
    const busy = say(url, { block: free.path });
    await until(() => handler.count('block one') === 1, 'the thread is busy');
    expect((await ask(url)).status).toBe(503);
    handler.write('two');
    await server.reload();
    expect((await ask(url)).status).toBe(200);
    free.open();
    expect((await busy).version).toBe('one');
  });

  it('is waited for by a stop', async () => {
    const handler = code();
    const { server, url } = await serve(handler.path, one);
    const free = gate();
    const held = say(url, { hold: free.path });
    await until(() => poolOf(server).pending === 1, 'it is pending');
    handler.write('two');
    await server.reload();
    let stopped = false;
    const stop = server.stop().then(() => {
      stopped = true;
    });
    await until(() => server.status === 'stopping', 'it is stopping');
    await until(() => handler.count('start two') === 1, 'the new thread is there');
    expect(stopped).toBe(false);
    free.open();
    expect((await held).version).toBe('one');
    await stop;
    expect([handler.count('stop one'), handler.count('stop two')]).toEqual([1, 1]);
  });

  it('costs them nothing but their own 500 when their thread dies of it', async () => {
    const handler = code();
    const test = await serve(handler.path, one);
    const free = gate();
    const dies = ask(test.url, { hold: free.path, strayWhen: free.path });
    await until(() => poolOf(test.server).pending === 1, 'it is pending');
    handler.write('two');
    await test.server.reload();
    free.open();
    expect([200, 500]).toContain((await dies).status);
    await untilWhole(test.server, 1);
    expect((await say(test.url)).version).toBe('two');
    expect(handler.count('begin two')).toBe(1);
  });

  it('does not keep a thread for ever when nobody waits for it any more', async () => {
    const handler = code();
    const test = await serve(handler.path, one);
    const leave = new AbortController();
    const left = ask(test.url, { never: 1 }, leave.signal).catch(() => 'left');
    await until(() => poolOf(test.server).pending === 1, 'it is pending');
    leave.abort();
    expect(await left).toBe('left');
    await until(() => test.server.stats().open === 0, 'the server knows');
    handler.write('two');
    await test.server.reload();
    expect((await say(test.url)).version).toBe('two');
    await until(() => poolOf(test.server).threads === 1, 'the old thread is gone', 15_000);
  });
});

describe('code that does not start', () => {
  const throwing = (where: string): string =>
    `throw Object.assign(new RangeError('no ${where}'), { code: 'ENO' });`;
  const bad: [what: string, text: string, error: object][] = [
    ['has a syntax error', 'export default () => {', { name: 'SyntaxError' }],
    [
      'throws at its top level',
      `export default () => ({});\n${throwing('config')}`,
      { name: 'RangeError', message: 'no config', code: 'ENO' },
    ],
    [
      'throws in onWorkerStart',
      `export default () => ({});\nexport async function onWorkerStart() { ${throwing('database')} }`,
      { name: 'RangeError', message: 'no database', code: 'ENO' },
    ],
    ['has no handler', 'export const handler = () => ({});', { code: 'OFFLOOP_NO_HANDLER' }],
    ['imports what is not there', "import './nowhere.mjs';", { code: 'ERR_MODULE_NOT_FOUND' }],
    ['ends its thread', 'process.exit(3);', { name: 'Error' }],
  ];

  it.each(bad)(
    'because it %s has the reload rejected with its error, and nothing has changed',
    async (_, text, error) => {
      const handler = code();
      const test = await serve(handler.path, { nMin: 2, nMax: 2 });
      await Promise.all([say(test.url), say(test.url)]);
      const free = gate();
      const held = say(test.url, { hold: free.path });
      await until(() => poolOf(test.server).pending === 1, 'one is pending');
      const before = threadsOf(test.server);
      const figures = (): object => {
        const { reloads, crashed, recycled, killed, lost, startFailure } = poolOf(test.server);
        return { reloads, crashed, recycled, killed, lost, startFailure };
      };
      const then = figures();
      handler.writeText(text);
      await expect(within(test.server.reload(), 'the reload to be rejected')).rejects.toMatchObject(error);
      for (let i = 0; i < 10; i++) expect((await say(test.url)).version).toBe('one');
      await until(() => poolOf(test.server).threads === 2, 'what was started is gone');
      expect(threadsOf(test.server)).toEqual(before);
      expect(figures()).toEqual(then);
      expect([test.errors, test.warnings]).toEqual([[], []]);
      free.open();
      expect((await held).version).toBe('one');
      expect(handler.count('stop one')).toBe(0);
      // And when it is mended:
      handler.write('two');
      await test.server.reload();
      for (let i = 0; i < 10; i++) expect((await say(test.url)).version).toBe('two');
      expect(poolOf(test.server).reloads).toBe(1);
      await untilWhole(test.server, 2);
    },
  );

  it('in one of the new threads does not stay in the others', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 3, nMax: 3 });
    const before = threadsOf(test.server);
    const folder = scratch();
    const notes = log();
    handler.writeText(`
      import { appendFileSync, mkdirSync } from 'node:fs';
      export function onWorkerStart() {
        try { mkdirSync(${JSON.stringify(join(folder, '1'))}); return; } catch {}
        try { mkdirSync(${JSON.stringify(join(folder, '2'))}); return; } catch {}
        throw new RangeError('only two licences');
      }
      export const onWorkerStop = () => appendFileSync(${JSON.stringify(notes.path)}, 'stop\\n');
      export default () => ({ body: JSON.stringify({ version: 'two' }) });
    `);
    await expect(test.server.reload()).rejects.toThrow('only two licences');
    await untilWhole(test.server, 3);
    expect(threadsOf(test.server)).toEqual(before);
    for (let i = 0; i < 10; i++) expect((await say(test.url)).version).toBe('one');
    expect(poolOf(test.server)).toMatchObject({ reloads: 0, crashed: 0 });
  });

  it('that is no longer there has the reload rejected, too', async () => {
    const handler = code();
    const { server, url } = await serve(handler.path, one);
    rmSync(handler.path);
    await expect(server.reload()).rejects.toThrow();
    expect((await say(url)).version).toBe('one');
    handler.write('two');
    await server.reload();
    expect((await say(url)).version).toBe('two');
  });

  it('and has taken the pool out of service is mended by a reload, at once', async () => {
    const handler = code();
    const test = await serve(handler.path, one);
    handler.writeText('throw new RangeError("broken")');
    expect((await ask(test.url, { exit: 1 })).status).toBe(500);
    await until(async () => (await ask(test.url)).status === 503, 'nobody is kept waiting any more');
    expect(poolOf(test.server).startFailure).toMatchObject({ message: 'broken' });
    await expect(test.server.reload()).rejects.toThrow('broken');
    handler.write('two');
    await test.server.reload();
    expect((await say(test.url)).version).toBe('two');
    expect(poolOf(test.server).startFailure).toBeNull();
    await untilWhole(test.server, 1);
  });
});

describe('two reloads at once', () => {
  it('are both done, and the second one has the newest code', async () => {
    const handler = code();
    const test = await serve(handler.path, one);
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const done: string[] = [];
    const first = test.server.reload().then(() => done.push('first'));
    await until(() => handler.count('begin two') === 1, 'the first one has read the code');
    handler.write('three');
    const second = test.server.reload().then(() => done.push('second'));
    const third = test.server.reload().then(() => done.push('third'));
    go.open();
    await first;
    await Promise.all([second, third]);
    expect(done[0]).toBe('first');
    expect((await say(test.url)).version).toBe('three');
    // The second and the third wanted the same.
    expect(poolOf(test.server).reloads).toBe(2);
    expect(handler.count('begin three')).toBe(1);
    await untilWhole(test.server, 1);
  });

  it('do not share the fate of the first', async () => {
    const handler = code();
    const test = await serve(handler.path, one);
    handler.writeText(
      'await new Promise((resolve) => setTimeout(resolve, 50)); throw new RangeError("broken")',
    );
    const first = outcome(test.server.reload());
    // What the first one reads it has read when its thread is on its way; the change may come before that or not.
    await until(() => poolOf(test.server).threads === 2, 'its thread is starting');
    const second = outcome(test.server.reload());
    expect(await first).toBe('broken');
    expect(await second).toBe('broken');
    const third = outcome(test.server.reload());
    handler.write('two');
    const fourth = outcome(test.server.reload());
    await third;
    expect(await fourth).toBe('reloaded');
    expect((await say(test.url)).version).toBe('two');
    await untilWhole(test.server, 1);
  });

  it('of a server with several mounts leave all of them with the newest code', async () => {
    const [a, b] = [code('a1'), code('b1')];
    const test = await serve(a.path, { nMin: 2, nMax: 2 });
    await test.server.mount(b.path, { path: '/b' });
    a.write('a2');
    const first = test.server.reload();
    b.write('b2');
    const second = test.server.reload();
    await Promise.all([first, second]);
    for (let i = 0; i < 6; i++) {
      expect((await say(test.url)).version).toBe('a2');
      expect((await say(`${test.url}/b`)).version).toBe('b2');
    }
    await untilWhole(test.server, 2);
  });
});

describe('a reload of several mounts', () => {
  it('reloads all modules of the pool, whatever host they are for, and leaves those that run inline', async () => {
    const [a, b, inline] = [code('a1'), code('b1'), code('inline1')];
    const { server, url } = await serve(a.path, one);
    await server.mount(b.path, { path: '/b' });
    await server.mount(b.path, { path: '/twice' });
    await server.mount(inline.path, { path: '/inline', dispatch: false });
    a.write('a2');
    b.write('b2');
    inline.write('inline2');
    await server.reload();
    const versions = ['', '/b', '/twice', '/inline'].map(async (path) => (await say(url + path)).version);
    expect(await Promise.all(versions)).toEqual(['a2', 'b2', 'b2', 'inline1']);
  });

  it('changes none of them when one cannot start', async () => {
    const [a, b] = [code('a1'), code('b1')];
    const { server, url } = await serve(a.path, one);
    await server.mount(b.path, { path: '/b' });
    a.write('a2');
    b.writeText('throw new RangeError("broken b")');
    await expect(server.reload()).rejects.toThrow('broken b');
    expect((await say(url)).version).toBe('a1');
    expect((await say(`${url}/b`)).version).toBe('b1');
    b.write('b3');
    await server.reload();
    expect((await say(url)).version).toBe('a2');
    expect((await say(`${url}/b`)).version).toBe('b3');
  });

  it('has nothing to do in a server whose handlers all run inline', async () => {
    const { server, url } = await serve(() => ({ body: 'inline' }), { dispatch: false });
    await server.reload();
    expect((await ask(url)).text).toBe('inline');
    expect(server.stats().pool).toBeNull();
  });

  it('reloads every pool that the server uses', async () => {
    const pool = shared();
    const [a, b] = [code('a1'), code('b1')];
    const { server, url } = await serve(a.path, one);
    await server.mount(b.path, { path: '/b', workerPool: pool });
    a.write('a2');
    b.write('b2');
    await server.reload();
    expect((await say(url)).version).toBe('a2');
    expect((await say(`${url}/b`)).version).toBe('b2');
    expect([poolOf(server).reloads, pool.stats.reloads]).toEqual([1, 1]);
  });
});

describe('a mount while the code is being reloaded', () => {
  it('is in service when it says so, in the new threads as in the old ones', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2 });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const reload = test.server.reload();
    await until(() => handler.count('begin two') === 2, 'the new threads are starting');
    const mount = test.server.mount(HELLO, { path: '/hello' });
    const reloaded = (async () => {
      await until(() => poolOf(test.server).threads >= 4, 'all are about');
      go.open();
      await reload;
    })();
    await within(Promise.all([mount, reloaded]), 'both to be done');
    const texts = await Promise.all(Array.from({ length: 10 }, () => ask(`${test.url}/hello`)));
    expect(tally(texts)).toEqual({ 200: 10 });
    for (let i = 0; i < 10; i++) expect((await say(test.url)).version).toBe('two');
    await untilWhole(test.server, 2);
  });

  it('that fails costs the reload nothing', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2 });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const reload = test.server.reload();
    await until(() => handler.count('begin two') === 2, 'the new threads are starting');
    await expect(test.server.mount(fixture('pool/throws.mjs'), { path: '/bad' })).rejects.toThrow(
      'no config',
    );
    go.open();
    await reload;
    expect((await say(test.url)).version).toBe('two');
    await untilWhole(test.server, 2);
  });

  it('does not wait for an old thread that is still at work', async () => {
    const handler = code();
    const { server, url } = await serve(handler.path, one);
    const free = gate();
    const busy = say(url, { block: free.path });
    await until(() => handler.count('block one') === 1, 'the thread is busy');
    handler.write('two');
    await server.reload();
    await within(server.mount(HELLO, { path: '/hello' }), 'the mount to be in service');
    expect((await ask(`${url}/hello`)).text).toBe('hello');
    free.open();
    expect((await busy).version).toBe('one');
  });
});

describe('a reload of a shared pool', () => {
  it('is for all servers that use it, whoever asks', async () => {
    const pool = shared({ nMin: 2, nMax: 2 });
    const [a, b] = [code('a1'), code('b1')];
    const first = await serve(a.path, { workerPool: pool });
    const second = await serve(b.path, { workerPool: pool });
    a.write('a2');
    b.write('b2');
    await pool.reload();
    expect((await say(first.url)).version).toBe('a2');
    expect((await say(second.url)).version).toBe('b2');
    a.write('a3');
    b.write('b3');
    await first.server.reload();
    expect((await say(second.url)).version).toBe('b3');
    expect((await say(first.url)).version).toBe('a3');
    expect(pool.stats.reloads).toBe(2);
    await untilWhole(first.server, 2);
  });

  it('may be asked for by two servers at once', async () => {
    const pool = shared();
    const handler = code();
    const first = await serve(handler.path, { workerPool: pool });
    const second = await serve(handler.path, { workerPool: pool });
    handler.write('two');
    await Promise.all([first.server.reload(), second.server.reload()]);
    expect((await say(first.url)).version).toBe('two');
    expect((await say(second.url)).version).toBe('two');
    await untilWhole(first.server, 1);
  });

  it('goes on when one of the servers stops', async () => {
    const pool = shared();
    const handler = code();
    const first = await serve(handler.path, { workerPool: pool });
    const second = await serve(BYE, { workerPool: pool });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const reload = second.server.reload();
    await until(() => handler.count('begin two') === 1, 'the new thread is starting');
    await second.server.stop();
    go.open();
    await reload;
    expect((await say(first.url)).version).toBe('two');
  });
});

describe('a reload under load', () => {
  it('costs no request, keeps every connection, and nothing runs twice', async () => {
    const handler = code('0');
    const notes = log();
    const test = await serve(handler.path, { nMin: 2, nMax: 2, queueSize: 1000 });
    let sent = 0;
    let newest = 0;
    let over = false;
    const statuses: number[] = [];
    const stale: string[] = [];
    let connections = 0;
    const agent = new Agent({ connections: 10, pipelining: 1 });
    agent.on('connect', () => connections++);
    onTestFinished(() => agent.destroy());
    const client = async (): Promise<void> => {
      while (!over) {
        const since = newest;
        const query = new URLSearchParams({ id: String(sent++), log: notes.path });
        const { statusCode, body } = await request(`${test.url}/?${query}`, { dispatcher: agent });
        const text = await body.text();
        statuses.push(statusCode);
        const { version } = statusCode === 200 ? (JSON.parse(text) as { version: string }) : { version: '' };
        // What was sent after a reload had resolved is answered by its code, or by newer code.
        if (Number(version) < since) stale.push(`${version} after ${since}`);
      }
    };
    const clients = Promise.all(Array.from({ length: 10 }, client));
    for (let n = 1; n <= 4; n++) {
      handler.write(String(n));
      await test.server.reload();
      newest = n;
      const { length } = statuses;
      await until(() => statuses.length > length + 50, 'the load goes on');
    }
    over = true;
    await clients;
    expect(statuses).toEqual(Array(sent).fill(200));
    expect(connections).toBe(10);
    expect(stale).toEqual([]);
    expect(notes.lines()).toHaveLength(sent);
    expect(new Set(notes.lines()).size).toBe(sent);
    expect(poolOf(test.server)).toMatchObject({ reloads: 4, crashed: 0, refused: 0 });
    expect(test.errors).toEqual([]);
    await untilWhole(test.server, 2);
    expect(handler.count('stop')).toBe(8);
  });

  it('costs no promise that is pending in passing', async () => {
    const handler = code('0');
    const test = await serve(handler.path, { nMin: 2, nMax: 2 });
    const gates = Array.from({ length: 4 }, gate);
    const held: Promise<Reply>[] = [];
    for (const [n, free] of gates.entries()) {
      held.push(...Array.from({ length: 10 }, () => ask(test.url, { hold: free.path })));
      await until(() => poolOf(test.server).pending === held.length, 'they are pending');
      handler.write(String(n + 1));
      await test.server.reload();
    }
    // Each generation of old threads still has its own.
    expect(poolOf(test.server).threads).toBe(10);
    for (const free of gates) free.open();
    const versions = (await Promise.all(held)).map(
      (reply) => (JSON.parse(reply.text) as { version: string }).version,
    );
    expect(versions).toEqual(gates.flatMap((_, n) => Array<string>(10).fill(String(n))));
    await untilWhole(test.server, 2);
  });

  it('adds no threads for good when the pool grows meanwhile', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 1, nMax: 2, threadIdleTimeout: 50 });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const reload = test.server.reload();
    await until(() => handler.count('begin two') === 1, 'the new thread is starting');
    const free = gate();
    const held = [ask(test.url, { block: free.path }), ask(test.url, { block: free.path })];
    await until(() => handler.count('begin two') === 2, 'the pool grows');
    go.open();
    await reload;
    const { workers } = poolOf(test.server);
    expect(workers.filter(({ state }) => state !== 'retiring').length).toBeLessThanOrEqual(2);
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 2 });
    await untilWhole(test.server, 1);
    // What was ended on the way because it was not needed any more has neither died nor failed to start.
    expect(poolOf(test.server)).toMatchObject({ crashed: 0, startFailure: null });
    expect(test.errors).toEqual([]);
  });
});

describe('a thread that was started while the code was being reloaded', () => {
  it('gets no work when it is ended again, and takes no other with it, even if it was about to be ready', async () => {
    const handler = code('0');
    const test = await serve(handler.path, { nMin: 1, nMax: 3, threadIdleTimeout: 20 });
    for (let n = 1; n <= 4; n++) {
      const [go, free] = [gate(), gate()];
      handler.write(String(n), { startWhen: go.path });
      const reload = test.server.reload();
      await until(() => handler.count(`begin ${n}`) === 1, 'the new thread is starting');
      const replies = Array.from({ length: 2 }, () => ask(test.url, { block: free.path }));
      await until(() => handler.count(`begin ${n}`) >= 2, 'the pool grows');
      for (let i = 0; i < 20; i++) replies.push(ask(test.url, { id: i }));
      await until(() => poolOf(test.server).queued >= 20, 'there is more to do');
      // All that have begun are ready at about the same time.
      go.open();
      await reload;
      free.open();
      expect(tally(await Promise.all(replies))).toEqual({ 200: 22 });
      await untilWhole(test.server, 1);
    }
    expect(poolOf(test.server)).toMatchObject({ crashed: 0, startFailure: null, reloads: 4 });
    expect(test.errors).toEqual([]);
  });
});

describe('a thread that dies while the code is being reloaded', () => {
  it('leaves the pool at its size, with the new code', async () => {
    const handler = code();
    const test = await serve(handler.path, one);
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const reload = test.server.reload();
    await until(() => handler.count('begin two') === 1, 'the new thread is starting');
    expect((await ask(test.url, { exit: 1 })).status).toBe(500);
    const waiting = say(test.url);
    await untilQueued(test.server, 1);
    await until(() => handler.count('begin two') === 2, 'the dead one is being replaced');
    go.open();
    await reload;
    expect((await waiting).version).toBe('two');
    expect(poolOf(test.server)).toMatchObject({ crashed: 1, reloads: 1 });
    await untilWhole(test.server, 1);
  });

  it('never takes the pool over nMax threads that work', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2 });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const reload = test.server.reload();
    await until(() => handler.count('begin two') === 2, 'the new threads are starting');
    expect((await ask(test.url, { exit: 1 })).status).toBe(500);
    await until(() => handler.count('begin two') === 3, 'the dead one is being replaced');
    go.open();
    await reload;
    const free = gate();
    const held = Array.from({ length: 4 }, () => ask(test.url, { block: free.path }));
    await until(() => poolOf(test.server).running + poolOf(test.server).queued === 4, 'all are taken');
    await until(
      () => !poolOf(test.server).workers.some((worker) => worker.state === 'starting'),
      'all have started',
    );
    const { running, queued } = poolOf(test.server);
    free.open();
    expect(tally(await Promise.all(held))).toEqual({ 200: 4 });
    expect({ running, queued }).toEqual({ running: 2, queued: 2 });
  });

  it('because it was stuck leaves the pool at its size, too', async () => {
    const handler = code();
    const test = await serve(handler.path, one);
    await test.server.mount(handler.path, { path: '/stuck', handlerTimeout: 50, killAfter: 1200 });
    const go = gate();
    handler.write('two', { startWhen: go.path });
    const stuck = ask(`${test.url}/stuck`, { block: gate().path });
    await until(() => handler.count('block one') === 1, 'it is stuck');
    const reload = test.server.reload();
    // The second one is to take the place of the one that is stuck.
    await until(() => handler.count('begin two') === 2, 'two threads are starting');
    go.open();
    await reload;
    expect((await stuck).status).toBe(504);
    await until(() => poolOf(test.server).killed === 1, 'it is ended');
    await untilWhole(test.server, 1);
    expect((await say(test.url)).version).toBe('two');
  });

  it('and is a new one that stands by does not fail the reload, or leaves everything as it was', async () => {
    const handler = code();
    const test = await serve(handler.path, { nMin: 2, nMax: 2 });
    const folder = scratch();
    const go = gate();
    // The first of the new threads stands by, and dies of a timer; the second one is not ready before that.
    handler.writeText(`
      import { existsSync, mkdirSync } from 'node:fs';
      import { setTimeout as sleep } from 'node:timers/promises';
      export async function onWorkerStart() {
        try { mkdirSync(${JSON.stringify(join(folder, 'first'))}); setTimeout(() => process.exit(1), 50); return; } catch {}
        while (!existsSync(${JSON.stringify(go.path)})) await sleep(2);
      }
      export default () => ({ body: JSON.stringify({ version: 'two' }) });
    `);
    const reload = outcome(test.server.reload());
    const states = (): string[] => poolOf(test.server).workers.map((worker) => worker.state);
    await until(() => states().includes('standby'), 'one stands by');
    await until(() => !states().includes('standby'), 'it is gone');
    expect((await say(test.url)).version).toBe('one');
    go.open();
    const version = (await reload) === 'reloaded' ? 'two' : 'one';
    for (let i = 0; i < 6; i++) expect((await say(test.url)).version).toBe(version);
    await untilWhole(test.server, 2);
  });
});

describe('a reload and a stop', () => {
  it('do not go together: afterwards it is rejected', async () => {
    const { server } = await serve(HELLO, one);
    await server.stop();
    await expect(server.reload()).rejects.toMatchObject({ code: 'OFFLOOP_STOPPED' });
  });

  it('do not go together: it is rejected while the server is stopping', async () => {
    const handler = code();
    const { server, url } = await serve(handler.path, one);
    const free = gate();
    const held = ask(url, { hold: free.path });
    await until(() => poolOf(server).pending === 1, 'it is pending');
    const stop = server.stop();
    await expect(server.reload()).rejects.toMatchObject({ code: 'OFFLOOP_STOPPED' });
    free.open();
    expect((await held).status).toBe(200);
    await stop;
  });

  it('do not go together: a closed pool is not reloaded', async () => {
    const pool = shared();
    const { server } = await serve(HELLO, { workerPool: pool });
    await pool.close();
    await expect(pool.reload()).rejects.toMatchObject({ code: 'OFFLOOP_STOPPED' });
    await expect(server.reload()).rejects.toMatchObject({ code: 'OFFLOOP_STOPPED' });
    expect(pool.stats.threads).toBe(0);
  });

  it.each([0, 5000])(
    'that comes meanwhile, with %i ms to go, ends cleanly and has it rejected',
    async (timeout) => {
      const handler = code();
      const { server, errors } = await serve(handler.path, { nMin: 2, nMax: 2 });
      handler.write('two', { startWhen: gate().path });
      const reload = outcome(server.reload());
      const again = outcome(server.reload());
      await until(() => handler.count('begin two') === 2, 'the new threads are starting');
      expect(await within(server.stop({ timeout }), 'the server to stop')).toBe(true);
      expect(await within(reload, 'the reload to be rejected')).toBe('OFFLOOP_STOPPED');
      expect(await within(again, 'the other one too')).toBe('OFFLOOP_STOPPED');
      expect(poolOf(server).threads).toBe(0);
      expect(errors).toEqual([]);
    },
  );

  it('that comes at any moment of it ends cleanly', async () => {
    const outcomes = new Set<string>();
    for (let i = 0; i < 8; i++) {
      const { server } = await serve(HELLO, { nMin: 2, nMax: 2 });
      const reload = outcome(server.reload());
      const begun = performance.now();
      await until(() => performance.now() - begun >= i * 12, 'some time has passed');
      await within(server.stop(), 'the server to stop');
      outcomes.add(await within(reload, 'the reload to end'));
      expect(poolOf(server).threads).toBe(0);
    }
    for (const one of outcomes) expect(['reloaded', 'OFFLOOP_STOPPED']).toContain(one);
  });
});

describe('a reload while a thread is being recycled', () => {
  it('leaves no thread too many, when the recycling has begun before', async () => {
    const handler = code();
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 2 } });
    const [goRecycle, goReload] = [gate(), gate()];
    handler.write('recycled', { startWhen: goRecycle.path });
    await say(test.url);
    await say(test.url);
    await until(() => handler.count('begin recycled') === 1, 'it is being recycled');
    handler.write('reloaded', { startWhen: goReload.path });
    const reload = test.server.reload();
    await until(() => handler.count('begin reloaded') === 1, 'it is being reloaded');
    goReload.open();
    await reload;
    goRecycle.open();
    await untilWhole(test.server, 1);
    expect((await say(test.url)).version).toBe('reloaded');
    expect(test.errors).toEqual([]);
  });

  it('leaves no thread too many, when the recycling has begun after it', async () => {
    const handler = code('one', { stopWhen: gate().path });
    const test = await serve(handler.path, { ...one, recycleAfter: { requests: 2 } });
    const [goRecycle, goReload] = [gate(), gate()];
    handler.write('reloaded', { startWhen: goReload.path });
    const reload = test.server.reload();
    await until(() => handler.count('begin reloaded') === 1, 'it is being reloaded');
    handler.write('recycled', { startWhen: goRecycle.path });
    await say(test.url);
    await say(test.url);
    await until(() => handler.count('begin recycled') === 1, 'it is being recycled');
    goReload.open();
    await reload;
    goRecycle.open();
    expect(['reloaded', 'recycled']).toContain((await say(test.url)).version);
    await until(
      () => poolOf(test.server).workers.filter(({ state }) => state !== 'retiring').length === 1,
      'one thread is left that is not on its way out',
    );
    expect(test.errors).toEqual([]);
  });
});

describe('numbers of a pool that has been reloaded', () => {
  it('go on', async () => {
    const handler = code();
    const { server, url } = await serve(handler.path, one);
    const answers = [];
    for (let i = 0; i < 3; i++) answers.push(await say(url));
    await server.reload();
    for (let i = 0; i < 4; i++) answers.push(await say(url));
    const pool = poolOf(server);
    expect(pool).toMatchObject({ accepted: 7, refused: 0, reloads: 1 });
    expect(pool.runTimeMicros.count).toBe(7);
    expect(server.stats().mounts[0]?.work?.accepted).toBe(7);
    expect(pool.workers.at(-1)?.served).toBe(4);
    expect(new Set(answers.map((answer) => answer.threadId)).size).toBe(2);
  });
});
