import { describe, expect, it } from 'vitest';
import { ask, gate, leavable, log, poolOf, untilQueued, WORK } from './support/pool-client.js';
import { fixture, serve, until } from './support/server.js';

const CANCEL = fixture('pool/cancel.mjs');
const one = { nMin: 1, nMax: 1 };

describe('a client that leaves', () => {
  it('while its request waits is never served', async () => {
    const { url, server } = await serve(WORK, one);
    const { path, lines } = log();
    const free = gate();
    const runs = ask(url, { id: 'runs', block: free.path, log: path });
    await until(() => lines().length === 1, 'it runs');
    const gone = [1, 2, 3].map((n) => leavable(url, { id: `gone${n}`, log: path }));
    await untilQueued(server, 3);
    const stays = ask(url, { id: 'stays', log: path });
    await untilQueued(server, 4);
    for (const { leave } of gone) await leave();
    await untilQueued(server, 1);
    free.open();
    expect((await runs).status).toBe(200);
    expect((await stays).status).toBe(200);
    expect(lines()).toEqual(['runs', 'stays']);
    expect(server.stats().open).toBe(0);
  });

  it('while its promise is pending has the signal aborted, with a reason, and nothing is logged', async () => {
    const { url, server, errors } = await serve(CANCEL, one);
    const { path, lines } = log();
    const { leave } = leavable(url, { log: path });
    await until(() => poolOf(server).pending === 1, 'it is pending');
    await leave();
    await until(() => lines().length === 1, 'the signal has fired');
    expect(lines()).toEqual(['aborted OFFLOOP_ABORTED']);
    await until(() => poolOf(server).pending === 0, 'the promise has settled');
    expect(errors).toEqual([]);
    expect(server.stats().open).toBe(0);
  });

  it('while its handler holds the thread finds the signal aborted afterwards, and holds up nobody', async () => {
    const { url, server } = await serve(CANCEL, one);
    const { path, lines } = log();
    const free = gate();
    const { leave } = leavable(url, { log: path, block: free.path });
    await until(() => poolOf(server).running === 1, 'it runs');
    await leave();
    await until(() => server.stats().open === 0, 'the server knows');
    free.open();
    await until(() => lines().length === 1, 'the signal has fired');
    expect(lines()).toEqual(['aborted OFFLOOP_ABORTED']);
    expect((await ask(url, { answer: 'now' })).text).toBe('now');
  });

  it('after the answer changes nothing: the signal stays quiet', async () => {
    const { url, server, errors } = await serve(CANCEL, one);
    const { path, lines } = log();
    expect((await ask(url, { answer: 'done', log: path })).text).toBe('done');
    const { leave } = leavable(url, { answer: 'done', log: path });
    await until(() => poolOf(server).accepted === 2 && server.stats().open === 0, 'it is answered');
    await leave();
    expect((await ask(url, { answer: 'next' })).text).toBe('next');
    expect(lines()).toEqual([]);
    expect(errors).toEqual([]);
  });

  it('finds a signal that is aborted already when the handler asks late', async () => {
    const { url, server } = await serve(CANCEL, one);
    const { path, lines } = log();
    const free = gate();
    const { leave } = leavable(url, { log: path, late: free.path });
    await until(() => poolOf(server).pending === 1, 'it is pending');
    await leave();
    await until(() => server.stats().open === 0, 'the server knows');
    // The notice is on its way to the worker, ahead of this request.
    expect((await ask(url, { answer: 'x' })).status).toBe(200);
    free.open();
    await until(() => lines().length === 1, 'the handler has looked');
    expect(lines()).toEqual(['late true']);
  });

  it('leaves nothing behind, a hundred times over', async () => {
    const { url, server } = await serve(CANCEL, { nMin: 2, nMax: 2, concurrency: 64 });
    const { path } = log();
    const clients = Array.from({ length: 100 }, () => leavable(url, { log: path }));
    await until(() => poolOf(server).pending === 100, 'all are pending');
    await Promise.all(clients.map(({ leave }) => leave()));
    await until(() => poolOf(server).pending === 0, 'all have settled');
    expect(poolOf(server)).toMatchObject({ queued: 0, running: 0, crashed: 0 });
    expect(server.stats().open).toBe(0);
    expect((await ask(url, { answer: 'still there' })).text).toBe('still there');
  });
});
