import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createWorkerPool } from 'offloop';
import { asChannel, type Channel, channel, defineChannel, type HttpRequest } from 'offloop/handlers';
import { describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { Client } from './support/channel-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { ask, type Log, log, poolOf, scratch, untilWhole } from './support/pool-client.js';
import { fixture, serve, type TestServer, until, within } from './support/server.js';

const TALK = fixture('channels/defined.mjs');
const target = (asked: object, path = '/'): string =>
  `${path}?s=${encodeURIComponent(JSON.stringify(asked))}`;

/** What the handler knows when a message comes that is no steps. */
interface Known {
  readonly message: string;
  readonly threadId: number;
  readonly state: { heard: number; [name: string]: unknown };
  readonly buffered: number;
}

async function open(port: number, asked: object = {}, path = '/'): Promise<Client> {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${target(asked, path)}`, { perMessageDeflate: false });
  const client = new Client(ws);
  onTestFinished(() => ws.terminate());
  await within(new Promise((resolve) => ws.on('open', resolve)), 'the WebSocket to open');
  return client;
}
const say = async (client: Client, message: string): Promise<Known> =>
  JSON.parse(String(await client.ask(message))) as Known;
const gone = async ({ server }: TestServer): Promise<void> => {
  const left = (): number => {
    const { open: requests, channels, pool } = server.stats();
    const work = pool === null ? 0 : pool.running + pool.pending + pool.queued;
    const held = pool?.workers.reduce((sum, worker) => sum + worker.channels, 0) ?? 0;
    return requests + channels + work + held;
  };
  await until(() => left() === 0, `nothing is left; ${JSON.stringify(server.stats())}`);
};
const TWO = { nMin: 2, nMax: 2 };
const lost = ({ errors }: TestServer): string[] =>
  errors.map(({ message }) => message).filter((message) => message.includes('a callback was lost'));

describe.each(WAYS)('a defined channel of $way', ({ dispatch }) => {
  const options = dispatch ? TWO : { dispatch };

  it('keeps its state from one callback to the next, changed in place or set anew', async () => {
    const test = await serve(TALK, options);
    const file = log();
    const client = await open(test.port, { state: { log: file.path, name: 'Ada' } });
    for (let i = 1; i <= 50; i++) {
      expect((await say(client, `m${i}`)).state).toMatchObject({ heard: i, name: 'Ada' });
    }
    client.tell(['set', { name: 'Bob' }]);
    expect((await say(client, 'who?')).state).toMatchObject({ heard: 51, name: 'Bob' });
    client.ws.close(4001, 'enough');
    await until(() => file.lines().length === 1, 'onClose has run');
    expect(file.lines()).toEqual(['closed unknown 4001 enough 51 false']);
    await gone(test);
    expect(test.errors).toEqual([]);
  });

  it('runs one callback at a time, in order, also when they wait', async () => {
    const test = await serve(TALK, options);
    const file = log();
    const client = await open(test.port, {
      state: {
        log: file.path,
        open: [
          ['later', 20],
          ['send', 'opened'],
        ],
      },
    });
    for (let i = 0; i < 20; i++) client.tell(['later', i % 3], ['send', `${i}`]);
    client.ws.ping('p');
    client.send(Buffer.from([1, 2, 3]));
    client.ws.close();
    await within(client.closing, 'the end');
    // What came before the end is heard before it; what is sent then goes nowhere.
    await until(() => file.lines().length === 1, 'onClose has run');
    expect(file.lines()).toEqual(['closed no-status-received 1005  0 false']);
    await gone(test);
  });

  it('answers everything in order when the client stays', async () => {
    const test = await serve(TALK, options);
    const clients = await Promise.all(Array.from({ length: 10 }, () => open(test.port)));
    for (const client of clients) {
      for (let i = 0; i < 30; i++) client.tell(['later', i % 2], ['send', `${i}`]);
      client.ws.ping('pong?');
      client.send(Buffer.from([1, 2, 3]));
      client.send('x'.repeat(10_000));
    }
    for (const client of clients) {
      for (let i = 0; i < 30; i++) expect(await client.next()).toBe(`${i}`);
      expect(await client.next()).toBe('ping pong?');
      expect(await client.next()).toEqual(Buffer.from([1, 2, 3]));
      expect((JSON.parse(String(await client.next())) as Known).message).toHaveLength(10_000);
      client.ws.close();
    }
    await gone(test);
    expect(test.errors).toEqual([]);
  });

  it('hears of its end once, whoever ends it', async () => {
    const test = await serve(TALK, options);
    const ends: [string, (client: Client) => void][] = [
      ['closed server-close 4000 bye 0 false', (client) => client.tell(['close', 4000, 'bye'], ['close'])],
      ['closed normal 1000  0 false', (client) => client.ws.close(1000)],
      ['closed going-away 1006  0 false', (client) => client.ws.terminate()],
    ];
    for (const [expected, end] of ends) {
      const file = log();
      const client = await open(test.port, { state: { log: file.path } });
      end(client);
      await until(() => file.lines().length > 0, 'onClose has run');
      await gone(test);
      expect(file.lines()).toEqual([expected]);
    }
  });

  it('logs what a callback throws, and goes on', async () => {
    const test = await serve(TALK, options);
    const client = await open(test.port);
    client.tell(['throw', 'oops']);
    expect((await say(client, 'still there?')).state.heard).toBe(1);
    expect(test.errors.map(({ error }) => (error as Error).message)).toEqual(['oops']);
  });

  it('refuses a state that cannot be kept', async () => {
    const test = await serve(TALK, options);
    for (const [kind, reason] of [
      ['big', /the state of 'talk' has \d+ bytes; allowed: 65536/],
      ['function', /the state of 'talk' cannot be cloned/],
    ] as const) {
      test.errors.length = 0;
      expect((await fetch(`${test.url}${target({ kind }, '/bad')}`)).status).toBe(500);
      expect(test.errors[0]?.error).toMatchObject({
        code: 'OFFLOOP_BAD_CHANNEL',
        message: expect.stringMatching(reason) as unknown,
      });
    }
  });

  it('tells what it has sent apart from what has left', async () => {
    const test = await serve(TALK, options);
    const file = log();
    const client = await open(test.port, { state: { log: file.path } });
    client.tell(['flood', 5_000_000, 'await']);
    await until(() => file.lines().length === 1, 'the flood has left');
    expect(file.lines()).toEqual(['left true']);
    expect(String(await client.next())).toHaveLength(5_000_000);
    // One that does not wait: the promise holds all the same, though the callback is through.
    client.tell(['flood', 5_000_000]);
    await until(() => file.lines().length === 2, 'the second one has left');
    expect(file.lines()[1]).toBe('left true');
    client.ws.pause();
    for (let i = 1; i <= 2; i++) {
      client.tell(['flood', 30_000_000, 'say']);
      await until(() => file.lines().length === 2 + i, 'it is on its way');
    }
    client.ws.terminate();
    await until(() => file.lines().length === 7, 'both have ended');
    expect(file.lines().slice(4).sort()).toEqual([
      'closed going-away 1006  0 false',
      'left false',
      'left false',
    ]);
    await gone(test);
  });

  it('knows that what it sends will never leave, also when its client has just gone', async () => {
    const test = await serve(TALK, options);
    const file = log();
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => open(test.port, { state: { log: file.path } })),
    );
    for (const [i, client] of clients.entries()) {
      // While the callback runs its client goes: what it asks for comes behind the end.
      client.tell(
        ['note', `begun ${i}`],
        ['block', 40],
        ['flood', 100_000, 'say'],
        ['flood', 100_000, 'say'],
      );
      await until(() => file.lines().includes(`begun ${i}`), 'its callback runs');
      client.ws.terminate();
    }
    const told = (): number => file.lines().filter((line) => line.startsWith('left ')).length;
    await until(() => told() === 40, 'all have been told', 15_000);
    await gone(test);
  });

  it('streams, too, and answers with the head it was opened with', async () => {
    const test = await serve(TALK, options);
    const file = log();
    const headers = { 'content-type': 'application/json', 'x-mine': 'yes' };
    const state = { log: file.path };
    const stream = fetch(
      `${test.url}${target({ status: 201, headers, topics: ['t'], state: { ...state, open: [['send', 'a', false]] } })}`,
    );
    const poll = fetch(`${test.url}${target({ status: 203, headers, topics: ['t'], state })}`);
    await until(() => test.server.stats().channels === 2, 'both are open');
    const published = { topic: 't', data: '[1]', close: true };
    expect((await fetch(`${test.url}${target(published, '/publish')}`)).status).toBe(204);
    for (const [status, body, answer] of [
      [201, 'a[1]', await stream],
      [203, '[1]', await poll],
    ] as const) {
      expect(answer.status).toBe(status);
      expect(answer.headers.get('content-type')).toBe('application/json');
      expect(answer.headers.get('x-mine')).toBe('yes');
      expect(await answer.text()).toBe(body);
    }
    await until(() => file.lines().length === 2, 'both have heard of it');
    expect(file.lines()).toEqual(Array(2).fill('closed server-close 0  0 false'));
    await gone(test);
  });

  it('has heard of its end when the server has stopped, and answers as it likes', async () => {
    const test = await serve(TALK, options);
    const file = log();
    const state = {
      log: file.path,
      last: [
        ['later', 20],
        ['set', {}],
      ],
    };
    const client = await open(test.port, { state });
    const stopResponse = { status: 299, headers: { 'x-again': 'soon' }, body: 'we are closing' };
    const polls = await Promise.all([RawClient.open(test.port), RawClient.open(test.port)]);
    polls[0].send(`GET ${target({ state, stopResponse })} HTTP/1.1\r\nHost: h\r\n\r\n`);
    polls[1].send(`GET ${target({ state })} HTTP/1.1\r\nHost: h\r\n\r\n`);
    await until(() => test.server.stats().channels === 3, 'all are open');
    expect(await test.server.stop()).toBe(true);
    expect(file.lines().sort()).toEqual([
      'closed server-close 0  0 false',
      'closed server-close 0  0 false',
      'closed server-close 1001 Server is shutting down 0 false',
    ]);
    expect(await client.closed()).toEqual({ code: 1001, reason: 'Server is shutting down' });
    const own = await polls[0].response();
    expect([own.status, own.header('x-again'), own.body.toString()]).toEqual([299, 'soon', 'we are closing']);
    expect((await polls[1].response()).status).toBe(503);
  });
});

describe('a defined channel', () => {
  it('is at home in every worker', async () => {
    const test = await serve(TALK, TWO);
    const clients = await Promise.all(Array.from({ length: 4 }, () => open(test.port)));
    const threads = new Set<number>();
    await until(async () => {
      const round = await Promise.all(
        clients.map((client) => {
          client.tell(['block', 5]);
          return say(client, 'where?');
        }),
      );
      for (const { threadId } of round) threads.add(threadId);
      return threads.size === 2;
    }, 'both workers have had a turn');
    expect(poolOf(test.server).workers.map(({ channels }) => channels)).toEqual([0, 0]);
    expect(test.server.stats().channels).toBe(4);
  });

  it('does not keep a worker from going', async () => {
    const test = await serve(TALK, { nMin: 1, nMax: 2, threadIdleTimeout: 50 });
    const clients = await Promise.all(Array.from({ length: 4 }, () => open(test.port)));
    for (const client of clients) client.tell(['block', 30]);
    await until(() => poolOf(test.server).workers.length === 2, 'a second worker comes');
    await untilWhole(test.server, 1);
    for (const client of clients) expect((await say(client, 'hello')).state.heard).toBe(1);
  });

  it('survives the crash of a worker; the message of which it died is lost, and logged', async () => {
    const test = await serve(TALK, TWO);
    const file = log();
    const clients = await Promise.all(
      Array.from({ length: 6 }, (_, i) => open(test.port, { state: { log: file.path, i } })),
    );
    for (let round = 1; round <= 5; round++) {
      for (const [i, client] of clients.entries()) {
        client.tell(['exit', 1]);
        expect((await say(client, 'still there?')).state).toMatchObject({ heard: round, i });
      }
    }
    expect(lost(test)).toHaveLength(30);
    expect(new Set(lost(test)).size).toBe(6);
    for (const client of clients) client.ws.close(1000);
    await until(() => file.lines().length === 6, 'all have heard of their end');
    expect(file.lines()).toEqual(Array(6).fill('closed normal 1000  5 false'));
    await gone(test);
  });

  // The look into a stuck thread is given up after two seconds, which a busy machine may need to let it happen.
  it('survives one that never comes back', { retry: 4 }, async () => {
    const test = await serve(TALK, { nMin: 1, nMax: 1, handlerTimeout: 600, killAfter: 300 });
    const client = await open(test.port);
    client.tell(['loop']);
    expect((await say(client, 'still there?')).state.heard).toBe(1);
    expect(lost(test)).toHaveLength(1);
    const stuck = test.errors.find(
      ({ error }) => (error as { code?: string }).code === 'OFFLOOP_HANDLER_STUCK',
    );
    expect((stuck?.error as Error | undefined)?.stack).toContain('onReceive');
  });

  it('that was waiting when its worker died goes on with what is next', async () => {
    const test = await serve(TALK, { nMin: 1, nMax: 1 });
    const [victim, other] = await Promise.all([open(test.port), open(test.port)]);
    other.tell(['later', 10_000]);
    await until(() => poolOf(test.server).pending === 1, 'its callback waits');
    const answer = say(other, 'and now?');
    victim.tell(['exit', 1]);
    expect((await answer).state.heard).toBe(1);
    expect(lost(test)).toHaveLength(2);
  });

  it('is closed with 1012 when the worker dies before it is open', async () => {
    const test = await serve(TALK, TWO);
    const file = log();
    const client = await open(test.port, {
      state: {
        log: file.path,
        open: [
          ['later', 20],
          ['exit', 1],
        ],
      },
    });
    client.send('too soon');
    expect(await client.closed()).toEqual({ code: 1012, reason: 'Service restart' });
    await until(() => file.lines().length === 1, 'onClose has run elsewhere');
    expect(file.lines()[0]).toMatch(/^closed server-close 1012 Service restart /);
    await gone(test);
  });

  it('goes on with the code that is on disk after a reload', async () => {
    const path = join(scratch(), 'talk.mjs');
    const code = (version: number, name = 'versions'): void =>
      writeFileSync(
        path,
        `import { defineChannel } from '${new URL('../dist/handlers/index.js', import.meta.url).href}';
         const talk = defineChannel('${name}', {
           onReceive(channel) { channel.state.n++; channel.send(JSON.stringify([${version}, channel.state.n])); },
         });
         export default (req) => talk.open(req, { state: { n: 0 } });`,
      );
    code(1);
    const test = await serve(path, TWO);
    const client = await open(test.port);
    expect(await client.ask('?')).toBe('[1,1]');
    for (let version = 2; version <= 4; version++) {
      code(version);
      await test.server.reload();
      expect(await client.ask('?')).toBe(`[${version},${version}]`);
    }
    code(5, 'another name');
    await test.server.reload();
    client.send('?');
    expect(await client.closed()).toEqual({ code: 1012, reason: 'Service restart' });
    expect(test.errors.map(({ error }) => (error as Error).message)).toContain(
      "no channel called 'versions' is defined any more",
    );
    await gone(test);
  });

  it('loses nothing when workers are exchanged under load', async () => {
    const test = await serve(TALK, TWO);
    const clients = await Promise.all(Array.from({ length: 8 }, () => open(test.port)));
    let running = true;
    const talking = clients.map(async (client) => {
      let n = 0;
      while (running) {
        n++;
        expect((await say(client, 'on')).state.heard).toBe(n);
      }
      return n;
    });
    for (let i = 0; i < 5; i++) await test.server.reload();
    running = false;
    for (const n of await Promise.all(talking)) expect(n).toBeGreaterThan(0);
    expect(test.errors).toEqual([]);
  });

  it('outlives its mount', async () => {
    const test = await serve(TALK, { nMin: 1, nMax: 1 });
    await test.server.mount(TALK, { path: '/other' });
    const client = await open(test.port);
    test.server.unmount();
    client.tell(['exit', 1]);
    expect((await say(client, 'still there?')).state.heard).toBe(1);
    client.ws.close();
    await gone(test);
  });

  it('keeps the state it had when what a callback leaves behind cannot be kept', async () => {
    const test = await serve(TALK, TWO);
    const client = await open(test.port, { state: { name: 'Ada' } });
    for (const what of ['function', 100_000]) client.tell(['spoil', what]);
    expect((await say(client, 'who?')).state).toEqual({ heard: 1, name: 'Ada' });
    expect(test.errors.map(({ error }) => (error as Error).message)).toEqual([
      expect.stringContaining('cannot be cloned'),
      expect.stringContaining('100'),
    ]);
    client.tell(['keep']);
    expect(await client.next()).toContain("the state of 'talk' can be changed in its callbacks only");
  });

  it('counts in the bound with everything that waits for it', async () => {
    const test = await serve(TALK, { nMin: 1, nMax: 1, queueSize: 3 });
    const client = await open(test.port);
    await until(() => poolOf(test.server).running === 0, 'the handler is through');
    const before = test.events.length;
    for (let i = 0; i < 10; i++) client.tell(['block', 50]);
    expect(await client.closed()).toEqual({ code: 1013, reason: 'Server overloaded' });
    expect(test.events.slice(before)).toEqual(['httpkit.server.status.503.todo']);
    await gone(test);
    // The places are free again.
    expect((await ask(`${test.url}/where`)).status).toBe(200);
  });

  it('does not wait behind all that another definition has to do', async () => {
    const test = await serve(TALK, { nMin: 1, nMax: 1 });
    const file = log();
    const state = { log: file.path };
    const busy = await Promise.all(Array.from({ length: 8 }, () => open(test.port, { state })));
    const brisk = await open(test.port, { state }, '/brisk');
    // From here on it is known how long the callbacks of each take.
    busy[0]?.tell(['block', 30], ['note', 'busy']);
    brisk.tell(['note', 'brisk']);
    await until(() => file.lines().length === 2, 'both have been called');
    const gate = join(scratch(), 'gate');
    busy[0]?.tell(['until', gate], ['note', 'busy']);
    await until(() => poolOf(test.server).running === 1, 'the worker is taken');
    for (const client of busy.slice(1)) client.tell(['block', 30], ['note', 'busy']);
    await until(() => poolOf(test.server).queued === 7, 'the others wait');
    brisk.tell(['note', 'brisk']);
    await until(() => poolOf(test.server).queued === 8, 'all wait');
    writeFileSync(gate, '');
    await until(() => file.lines().length === 11, 'all have been called');
    expect(file.lines().slice(2, 5)).toContain('brisk');
  });

  it('waits while no worker can start', async () => {
    const gateFile = join(scratch(), 'broken');
    const path = join(scratch(), 'talk.mjs');
    writeFileSync(
      path,
      `import { existsSync } from 'node:fs';
       import { defineChannel } from '${new URL('../dist/handlers/index.js', import.meta.url).href}';
       if (existsSync('${gateFile}')) throw new Error('broken');
       const talk = defineChannel('breaking', {
         onReceive(channel, message) { if (message === 'exit') process.exit(1); channel.send('heard ' + message); },
       });
       export default (req) => talk.open(req);`,
    );
    const test = await serve(path, { nMin: 1, nMax: 1 });
    const client = await open(test.port);
    writeFileSync(gateFile, '');
    client.send('exit');
    await until(
      async () => (await fetch(test.url)).status === 503,
      'the server has given up for now',
      15_000,
    );
    client.send('patience');
    rmSync(gateFile);
    await until(() => client.messages.length > 0, 'a worker could start', 15_000);
    expect(client.messages).toEqual(['heard patience']);
  }, 40_000);

  it('has heard of its end when a server of a shared pool has stopped', async () => {
    const workerPool = createWorkerPool(TWO);
    onTestFinished(() => workerPool.close({ timeout: 0 }));
    const files: Log[] = [];
    for (let i = 0; i < 2; i++) {
      const test = await serve(TALK, { workerPool });
      const file = log();
      files.push(file);
      const client = await open(test.port, { state: { log: file.path, last: [['later', 30]] } });
      expect(await test.server.stop()).toBe(true);
      expect(file.lines()).toHaveLength(1);
      expect((await client.closed()).code).toBe(1001);
    }
  });

  it('can be sent to by its id', async () => {
    const test = await serve(() => ({ body: 'inline' }), { dispatch: false });
    await test.server.mount(TALK, { path: '/talk' });
    const ws = new WebSocket(`ws://127.0.0.1:${test.port}${target({}, '/talk')}`);
    onTestFinished(() => ws.terminate());
    const client = new Client(ws);
    await until(() => test.server.stats().channels === 1, 'it is open');
    // Ids are a mark of the process, a prefix for each of its workers, and a counter: see which it is.
    let mark = '';
    const ofOurs = (req: HttpRequest): Channel => {
      const one = asChannel(req);
      mark = String(one.id.split('.', 1)[0]);
      one.send('');
      return one;
    };
    await test.server.mount(ofOurs, { path: '/mark', dispatch: false });
    await (await fetch(`${test.url}/mark`)).text();
    for (let i = 0; i < 200 && client.messages.length === 0; i++)
      channel(`${mark}.${i.toString(36)}.0`).send('you');
    await until(() => client.messages.length > 0, 'it has been reached');
  });
});

describe('defineChannel', () => {
  it.each([
    [() => defineChannel('', {}), 'a name is a string of 1 to 100 characters without line breaks, not ""'],
    [() => defineChannel('a\nb', {}), 'not "a\\nb"'],
    [() => defineChannel(7 as never, {}), 'not 7 (number)'],
    [() => defineChannel('n', null as never), "the callbacks of 'n' are null (object), not an object"],
    [
      () => defineChannel('f', { onOpen: 'x' as never }),
      "defineChannel 'f': onOpen is a string, not a function",
    ],
    [() => defineChannel('h', { highWater: 2 ** 25 }), 'highWater is 33554432; allowed: 1 to 16777216 bytes'],
    [() => defineChannel('o', { overflow: 'no' as never }), 'overflow is no; allowed'],
  ])('refuses what is wrong at once (%#)', (define, message) => {
    expect(define).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_CHANNEL' }) as Error);
    expect(define).toThrow(message);
  });

  it('has one definition of a name in a thread', () => {
    expect(defineChannel('only', {}).name).toBe('only');
    expect(() => defineChannel('only', {})).toThrow("there is another channel called 'only' in this thread");
  });
});
