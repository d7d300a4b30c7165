import { createWorkerPool } from 'offloop';
import { describe, expect, it } from 'vitest';
import { Client, SCRIPT, Stream, target } from './support/channel-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { ask, gate, log, poolOf } from './support/pool-client.js';
import { serve, type TestServer, until, within } from './support/server.js';

const get = (url: string): string => `GET ${url} HTTP/1.1\r\nHost: h\r\n\r\n`;
const thread = async (client: Client): Promise<number> => {
  client.tell(['where']);
  return (JSON.parse(String(await client.next())) as { threadId: number }).threadId;
};
/** Channels of each worker, by thread. */
const spread = ({ server }: TestServer): Record<number, number> =>
  Object.fromEntries(poolOf(server).workers.map(({ threadId, channels }) => [threadId, channels]));
const none = async ({ server }: TestServer): Promise<void> => {
  const left = (): number => {
    const { open, channels, pool } = server.stats();
    const { workers, running, pending, queued } = pool ?? { workers: [], running: 0, pending: 0, queued: 0 };
    return (
      workers.reduce((sum, worker) => sum + worker.channels, 0) + open + channels + running + pending + queued
    );
  };
  await until(() => left() === 0, `nothing is open; ${JSON.stringify(server.stats())}`);
};

describe('a worker that ends', () => {
  it('has sent what the callbacks before its last one sent', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1 });
    const client = await Client.open(test.port);
    // All in one packet, so that they travel in one batch.
    client.ws.pause();
    for (let i = 0; i < 5; i++) client.send(`${i}`);
    client.tell(['exit', 1]);
    client.ws.resume();
    expect(await client.closed()).toEqual({ code: 1012, reason: 'Service restart' });
    expect(client.messages).toEqual(['0', '1', '2', '3', '4']);
  });

  it('has its WebSockets closed with 1012 and its streams cut; those of others go on', async () => {
    const test = await serve(SCRIPT, { nMin: 2, nMax: 2 });
    const clients: Client[] = [];
    for (let i = 0; i < 8; i++) clients.push(await Client.open(test.port));
    const threads = await Promise.all(clients.map(thread));
    const [first] = clients as [Client];
    const victim = threads[0];
    const streams = await Promise.all(
      Array.from({ length: 6 }, () => Stream.open(test.port, { open: [['where']] })),
    );
    await until(() => streams.every(({ text }) => text.endsWith('}')), 'all streams have begun');
    const polls = await Promise.all(Array.from({ length: 6 }, () => RawClient.open(test.port)));
    for (const poll of polls) poll.send(get(target({ init: [] })));
    await until(() => test.server.stats().channels === 20, 'all are open');
    const mine = spread(test)[victim as number] as number;
    first.tell(['exit', 1]);
    for (const [i, client] of clients.entries()) {
      if (threads[i] === victim)
        expect(await client.closed()).toEqual({ code: 1012, reason: 'Service restart' });
      else expect(await client.ask(`still ${i}`)).toBe(`still ${i}`);
    }
    for (const { text, ended, client } of streams) {
      if (!text.includes(`${victim}`)) expect(client.ended).toBeUndefined();
      else {
        await client.closed();
        expect(ended).toBe(false);
      }
    }
    await until(() => test.server.stats().channels === 20 - mine, 'those of the dead worker are gone');
    expect(test.events.filter((name) => name === 'offloop.channel.lost')).toHaveLength(mine);
    // A poll that has no answer yet is cut, too: nobody knows what it would have been.
    expect(polls.filter(({ ended }) => ended !== undefined).length).toBeGreaterThan(0);
    for (const client of [...clients.map(({ ws }) => ws), ...streams.map(({ client }) => client.socket)])
      'terminate' in client ? client.terminate() : client.destroy();
    for (const poll of polls) poll.socket.destroy();
    await none(test);
    const fresh = await Client.open(test.port);
    expect(await fresh.ask('hello')).toBe('hello');
  });

  it('by an exception that nobody caught does the same, when those pending have had their time', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1 });
    const client = await Client.open(test.port);
    client.tell(['throwLater']);
    expect(await client.closed()).toEqual({ code: 1012, reason: 'Service restart' });
    await none(test);
  });

  it('because its onReceive never returns is killed by handlerTimeout, and its channels closed with 1012', async () => {
    const test = await serve(SCRIPT, { nMin: 2, nMax: 2, handlerTimeout: 800, killAfter: 400 });
    const clients: Client[] = [];
    for (let i = 0; i < 6; i++) clients.push(await Client.open(test.port));
    const threads = await Promise.all(clients.map(thread));
    const [first] = clients as [Client];
    first.tell(['spin']);
    for (const [i, client] of clients.entries()) {
      if (threads[i] === threads[0])
        expect(await client.closed(10_000)).toEqual({ code: 1012, reason: 'Service restart' });
      else expect(await client.ask('still')).toBe('still');
    }
    expect(poolOf(test.server).killed).toBe(1);
    expect(poolOf(test.server).timedOut.handler).toBe(1);
    for (const client of clients) client.ws.terminate();
    await none(test);
  });

  it('is not needed for an onReceive that is slow to settle: the channel lives', async () => {
    const free = gate();
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1, handlerTimeout: 500, killAfter: 5000 });
    const client = await Client.open(test.port);
    client.tell(['gate', free.path], ['send', 'late']);
    await until(() => poolOf(test.server).timedOut.handler === 1, 'its time is up');
    free.open();
    expect(await client.next()).toBe('late');
    expect(await client.ask('hello')).toBe('hello');
    expect(poolOf(test.server).killed).toBe(0);
  });
});

describe('new channels', () => {
  it('go to the worker that has the fewest', async () => {
    const test = await serve(SCRIPT, { nMin: 3, nMax: 3 });
    const clients: Client[] = [];
    for (let i = 0; i < 30; i++) clients.push(await Client.open(test.port));
    const shares = (): number[] => Object.values(spread(test));
    const isEven = (): boolean => Math.max(...shares()) - Math.min(...shares()) < 5;
    // One that is slow to wake is passed over for a moment: the next ones make up for it.
    while (!isEven() && clients.length < 60) clients.push(await Client.open(test.port));
    for (const share of shares()) expect(Math.abs(share - clients.length / 3)).toBeLessThan(5);
    for (const client of clients) client.ws.terminate();
    await none(test);
  });
});

describe('a worker that is replaced', () => {
  it('by a reload keeps its channels until they close, and gets nothing but their events', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1 });
    const file = log();
    const client = await Client.open(test.port, { log: file.path, closed: [['log', 'in the old worker']] });
    const stream = await Stream.open(test.port, { log: file.path, open: [['send', 'begun', false]] });
    const old = await thread(client);
    await test.server.reload();
    expect(
      poolOf(test.server)
        .workers.map(({ state }) => state)
        .sort(),
    ).toEqual(['ready', 'retiring']);
    expect(await thread(client)).toBe(old);
    const fresh = await Client.open(test.port);
    expect(await thread(fresh)).not.toBe(old);
    // Messages for the old worker and requests for the new one, in the same turns.
    const replies: Promise<{ threadId: number }>[] = [];
    const idle = await Promise.all(Array.from({ length: 20 }, () => RawClient.open(test.port)));
    for (let i = 0; i < 15; i++) {
      for (let j = 0; j < 5; j++) client.send('m');
      for (const raw of idle) {
        raw.send(get('/plain'));
        replies.push(raw.response().then(({ body }) => JSON.parse(body.toString()) as { threadId: number }));
      }
      await Promise.all(replies);
    }
    expect((await Promise.all(replies)).filter(({ threadId }) => threadId === old)).toHaveLength(0);
    client.ws.close(1000);
    stream.client.leave();
    await until(() => file.lines().length === 3, 'onClose is told');
    expect(file.lines()).toContain('in the old worker');
    await until(() => poolOf(test.server).workers.length === 1, 'the old worker has gone');
    expect(await fresh.ask('hello')).toBe('hello');
  });

  it('by recycling does the same', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1, recycleAfter: { requests: 5 } });
    const client = await Client.open(test.port);
    const old = await thread(client);
    await until(async () => {
      await ask(`${test.url}/plain`);
      return poolOf(test.server).recycled > 0;
    }, 'the worker is recycled');
    expect(await thread(client)).toBe(old);
    expect(await client.ask('hello')).toBe('hello');
    client.ws.close();
    await until(
      () => poolOf(test.server).workers.every(({ threadId }) => threadId !== old),
      'the old worker has gone',
    );
  });
});

describe('a worker above nMin', () => {
  it('does not retire as idle as long as it has a channel', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 3, threadIdleTimeout: 20 });
    const free = gate();
    const file = log();
    const busy = [1, 2, 3].map(() =>
      Client.open(test.port, {
        log: file.path,
        before: [
          ['log', 'begun'],
          ['block', free.path],
        ],
      }),
    );
    // Each keeps a thread to itself.
    await until(() => file.lines().length === 3, 'three workers are busy');
    free.open();
    const clients = await Promise.all(busy);
    const threads = await Promise.all(clients.map(thread));
    expect(new Set(threads).size).toBe(3);
    for (let i = 0; i < 20; i++) {
      for (const [n, client] of clients.entries()) expect(await thread(client)).toBe(threads[n]);
      await ask(`${test.url}/plain`);
    }
    expect(poolOf(test.server).workers).toHaveLength(3);
    expect(file.lines()).toHaveLength(3);
    for (const client of clients) client.ws.close();
    await until(() => poolOf(test.server).workers.length === 1, 'the others retire when it is closed');
  });
});

describe.each(WAYS)('stopping a server with channels of $way', ({ dispatch }) => {
  const options = dispatch ? { nMin: 2, nMax: 2 } : { dispatch };

  it('closes WebSockets with 1001, ends streams, answers polls 503, and has told every onClose before it resolves', async () => {
    const test = await serve(SCRIPT, options);
    const files = Array.from({ length: 12 }, () => log());
    const at = (i: number): string => (files[i] as (typeof files)[number]).path;
    const clients = await Promise.all(
      [0, 1, 2, 3].map((i) =>
        Client.open(test.port, {
          log: at(i),
          closed: [
            ['later', 20],
            ['log', 'end'],
          ],
        }),
      ),
    );
    const streams = await Promise.all(
      [4, 5, 6, 7].map((i) =>
        Stream.open(test.port, {
          log: at(i),
          open: [['send', 'begun', false]],
          closed: [
            ['later', 20],
            ['log', 'end'],
          ],
        }),
      ),
    );
    const polls = await Promise.all([8, 9, 10, 11].map(() => RawClient.open(test.port)));
    for (const [i, poll] of polls.entries())
      poll.send(
        get(
          target({
            log: at(8 + i),
            init: [],
            closed: [
              ['later', 20],
              ['log', 'end'],
            ],
          }),
        ),
      );
    await until(() => test.server.stats().channels === 12, 'all are open');
    expect(await within(test.server.stop(), 'the server to stop')).toBe(true);
    for (const [i, file] of files.entries()) {
      const expected = [`closed server-close ${i < 4 ? '1001 Server is shutting down' : '0 '}`, 'end'];
      expect(file.lines()).toEqual(expected);
    }
    for (const client of clients)
      expect(await client.closed()).toEqual({ code: 1001, reason: 'Server is shutting down' });
    for (const stream of streams) expect(await stream.whole()).toBe('begun');
    for (const poll of polls) expect((await poll.response()).status).toBe(503);
    expect(test.errors).toEqual([]);
  });

  it('does so with those that are opened while it stops', async () => {
    const test = await serve(SCRIPT, options);
    const free = gate();
    const file = log();
    const opening = [1, 2].map(() =>
      Client.open(test.port, {
        log: file.path,
        before: [
          ['log', 'asked'],
          ['gate', free.path],
        ],
      }),
    );
    const stream = Stream.open(test.port, {
      log: file.path,
      before: [
        ['log', 'asked'],
        ['gate', free.path],
      ],
      open: [['send', 'begun', false]],
    });
    const poll = await RawClient.open(test.port);
    poll.send(
      get(
        target({
          log: file.path,
          before: [
            ['log', 'asked'],
            ['gate', free.path],
          ],
          open: [['send', 'an answer']],
        }),
      ),
    );
    await until(() => file.lines().length === 4, 'the handlers run');
    const stopped = test.server.stop();
    free.open();
    expect(await within(stopped, 'the server to stop')).toBe(true);
    for (const client of await Promise.all(opening))
      expect(await client.closed()).toEqual({ code: 1001, reason: 'Server is shutting down' });
    expect(await (await stream).whole()).toBe('begun');
    expect((await poll.response()).body.toString()).toBe('an answer');
  });

  it('sends what was published before', async () => {
    const test = await serve(SCRIPT, options);
    const client = await Client.open(test.port, { options: { topics: ['t'] } });
    expect(await client.ask('hello')).toBe('hello');
    test.server.publish('t', 'farewell');
    const stopped = test.server.stop();
    expect(await client.closed()).toEqual({ code: 1001, reason: 'Server is shutting down' });
    expect(client.messages.at(-1)).toBe('farewell');
    await stopped;
  });
});

describe('stopping one of two servers on a shared pool', () => {
  it('tells the onClose of its own channels and leaves those of the other alone', async () => {
    const pool = createWorkerPool({ nMin: 2, nMax: 2 });
    const [one, two] = [await serve(SCRIPT, { workerPool: pool }), await serve(SCRIPT, { workerPool: pool })];
    const file = log();
    const gone = await Client.open(one.port, { log: file.path });
    const stays = await Client.open(two.port, { log: file.path });
    await one.server.stop();
    expect(await gone.closed()).toEqual({ code: 1001, reason: 'Server is shutting down' });
    await until(() => file.lines().length === 1, 'onClose is told');
    expect(await stays.ask('hello')).toBe('hello');
    await two.stop();
    await within(pool.close(), 'the pool to close');
    expect(file.lines()).toHaveLength(2);
  });
});

describe('more events than can be taken', () => {
  it('close the WebSocket with 1013, are counted as todo, and the end is told all the same', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1, queueSize: 10 });
    const free = gate();
    const [file, calm] = [log(), log()];
    const quiet = await Client.open(test.port, { log: calm.path });
    const client = await Client.open(test.port, { log: file.path });
    client.tell(['log', 'blocked'], ['block', free.path]);
    await until(() => file.lines().length === 1, 'the worker is busy');
    for (let i = 0; i < 60; i++) client.send('m');
    expect(await client.closed()).toEqual({ code: 1013, reason: 'Server overloaded' });
    // One more beyond the bound.
    quiet.ws.close(1000);
    await quiet.closed();
    expect(test.events.filter((name) => name === 'httpkit.server.status.503.todo')).toHaveLength(1);
    free.open();
    await until(() => file.lines().length === 2 && calm.lines().length === 1, 'both ends are told');
    expect(file.lines()).toEqual(['blocked', 'closed server-close 1013 Server overloaded']);
    expect(calm.lines()).toEqual(['closed normal 1000 ']);
    await none(test);
  });

  it('neither lose their place to requests of a mount that has fewer in the queue', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1, queueSize: 10 });
    const free = gate();
    const file = log();
    const clients = await Promise.all(
      Array.from({ length: 8 }, () => Client.open(test.port, { log: file.path })),
    );
    const busy = await Client.open(test.port, { log: log().path });
    busy.tell(['block', free.path]);
    await until(() => poolOf(test.server).running === 1, 'the worker is busy');
    for (const client of clients) client.ws.close(1000);
    await until(() => poolOf(test.server).queued === 8, 'their ends wait');
    const replies = Array.from({ length: 6 }, () => ask(`${test.url}/plain`));
    const statuses = Promise.all(replies).then((all) => all.map(({ status }) => status).sort());
    await until(() => poolOf(test.server).refused > 0, 'some are refused');
    free.open();
    await until(() => file.lines().length === 8, 'every end is told');
    expect((await statuses).filter((status) => status === 200).length).toBeGreaterThan(0);
  });

  it('nor to queueTimeout', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1, queueTimeout: 700 });
    const free = gate();
    const file = log();
    const client = await Client.open(test.port, { log: file.path, receive: [['message']] });
    const busy = await Client.open(test.port);
    busy.tell(['block', free.path]);
    await until(() => poolOf(test.server).running === 1, 'the worker is busy');
    client.send('late');
    client.ws.close(1000);
    await client.closed();
    const refused = ask(`${test.url}/plain`);
    expect((await refused).status).toBe(503);
    free.open();
    await until(() => file.lines().length === 2, 'both are told');
    expect(file.lines()).toEqual(['message late', 'closed normal 1000 ']);
  });
});

describe('a thousand connections', () => {
  it('opened, used and dropped at random while workers die leave nothing behind', {
    timeout: 60_000,
  }, async () => {
    const test = await serve(SCRIPT, { nMin: 2, nMax: 2 });
    let seed = 42;
    const random = (n: number): number => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return Math.floor((seed / 2 ** 31) * n);
    };
    let opened = 0;
    let left = 1000;
    const one = async (): Promise<void> => {
      const kind = random(6);
      if (kind < 2) {
        const client = await RawClient.open(test.port);
        const script =
          kind === 0 ? { init: [] } : { options: { topics: ['t'] }, open: [['send', 'x', false] as const] };
        client.send(get(target(script)));
        if (random(2) === 0) await new Promise((resolve) => setImmediate(resolve));
        if (random(2) === 0) client.leave();
        else client.reset();
        opened++;
        return;
      }
      try {
        const client = await Client.open(test.port, {
          options: { topics: ['t'] },
          open: random(2) === 0 ? [['later']] : [],
        });
        opened++;
        for (let i = random(4); i > 0; i--) client.send('m');
        if (random(3) === 0) client.tell(['publish', 't', 'p']);
        if (kind === 2) client.ws.close();
        else if (kind === 3) client.ws.terminate();
        else if (kind === 4) client.tell(['close', 4000]);
        else client.ws.close(1000, 'done');
        if (random(60) === 0) client.tell(['exit']);
        if (random(3) === 0) await client.closed();
      } catch {
        // Its worker died before it was open.
      }
    };
    const lane = async (): Promise<void> => {
      while (left-- > 0) {
        await one();
        if (left % 50 === 25) {
          const killer = await Client.open(test.port).catch(() => undefined);
          killer?.tell(['exit', 1]);
        }
      }
    };
    await Promise.all(Array.from({ length: 24 }, lane));
    expect(opened).toBeGreaterThan(700);
    expect(poolOf(test.server).crashed).toBeGreaterThan(3);
    await none(test);
    await until(
      () => poolOf(test.server).workers.every(({ state }) => state === 'ready'),
      'all workers are there',
    );
    const client = await Client.open(test.port);
    expect(await client.ask('hello')).toBe('hello');
  });
});
