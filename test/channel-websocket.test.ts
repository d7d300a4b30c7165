import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { Client, SCRIPT, type Step, target } from './support/channel-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { gate, log } from './support/pool-client.js';
import { startServer, type TestServer, until } from './support/server.js';
import { frame, handshake, OPCODE, RawWebSocket } from './support/ws-raw.js';

describe.each(WAYS)('a WebSocket of $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(SCRIPT, dispatch ? { nMin: 2, nMax: 2 } : { dispatch });
  });
  afterAll(() => test.stop());

  const open: (
    ...args: Parameters<typeof Client.open> extends [number, ...infer R] ? R : never
  ) => Promise<Client> = (...args) => Client.open(test.port, ...args);
  /** Nothing of ours is open, and nothing was logged but this. */
  async function quiet(errors: number): Promise<void> {
    await until(
      () => test.server.stats().channels + test.server.stats().open === 0,
      'all channels are closed',
    );
    const logged = test.errors.splice(0);
    expect(logged, JSON.stringify(logged.map(({ message, error }) => [message, String(error)]))).toHaveLength(
      errors,
    );
  }

  describe('messages', () => {
    it('come back from an echo as they were sent: texts as texts, bytes as bytes', async () => {
      const client = await open();
      const texts = [
        'a',
        '',
        'ä€😀',
        'two\nlines',
        'a\0b',
        '\ufeffbom',
        'x'.repeat(4096),
        'ü'.repeat(4096),
        '{"a":1}',
      ];
      for (const text of texts) expect(await client.ask(text)).toBe(text);
      for (const bytes of [Buffer.from([0, 1, 255]), Buffer.alloc(0), Buffer.alloc(100_000, 7)]) {
        expect(await client.ask(bytes)).toEqual(bytes);
      }
      client.ws.close();
      await quiet(0);
    });

    it('of a megabyte come through both ways', async () => {
      const client = await open();
      const text = 'äöü-1234'.repeat(128 * 1024);
      expect((await client.ask(text)) === text).toBe(true);
      client.ws.close();
      await quiet(0);
    });

    it('keep their order, however many come at once and whatever their kind', async () => {
      const client = await open();
      const sent = Array.from({ length: 600 }, (_, i) =>
        i % 3 === 0 ? Buffer.from(String(i)) : i % 3 === 1 ? String(i) : String(i).padEnd(5000, '.'),
      );
      for (const one of sent) client.send(one);
      await until(() => client.messages.length === sent.length, 'all are back', 15_000);
      expect(client.messages).toEqual(sent);
      client.ws.close();
      await quiet(0);
    });

    it('are handled one at a time, in the order they came, when the callback is async', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        receive: [['log', 'begin'], ['message'], ['later', 2], ['log', 'end']],
      });
      for (let i = 0; i < 20; i++) client.send(`m${i}`);
      client.ws.close(1000);
      await until(() => file.lines().at(-1)?.startsWith('closed'), 'it is closed');
      const expected = Array.from({ length: 20 }, (_, i) => ['begin', `message m${i}`, 'end']).flat();
      expect(file.lines()).toEqual([...expected, 'closed normal 1000 ']);
      await quiet(0);
    });

    it('wait for an async onOpen', async () => {
      const file = log();
      const free = gate();
      const client = await open({
        log: file.path,
        open: [
          ['log', 'open'],
          ['gate', free.path],
          ['log', 'opened'],
        ],
        receive: [['message']],
      });
      client.send('early');
      client.ws.ping('early ping');
      // Its pong is the engine's, which has read the message before.
      await until(() => client.pongs.length > 0, 'the pong comes');
      await until(() => file.lines().length > 0, 'onOpen runs');
      expect(file.lines()).toEqual(['open']);
      free.open();
      await until(() => file.lines().length === 3, 'the message is handled');
      expect(file.lines()).toEqual(['open', 'opened', 'message early']);
      client.ws.close();
      await quiet(0);
    });

    it('that came before the client closed are handled before onClose, which is told once', async () => {
      const file = log();
      const free = gate();
      const client = await open({ log: file.path, receive: [['gate', free.path], ['message']] });
      client.send('one');
      client.send('two');
      client.ws.close(1000, 'done');
      await client.closed();
      free.open();
      await until(() => file.lines().length === 3, 'all is told');
      expect(file.lines()).toEqual(['message one', 'message two', 'closed normal 1000 done']);
      await quiet(0);
    });

    it('sent with bodies that have to be read first keep their place', async () => {
      const client = await open({
        open: [
          ['send', 'first'],
          ['sendStream', ['sec', 'ond']],
          ['send', 'third'],
        ],
      });
      const got = [await client.next(), await client.next(), await client.next()].map(String);
      expect(got).toEqual(['first', 'second', 'third']);
      client.tell(['sendStream', ['last'], true]);
      expect(String(await client.next())).toBe('last');
      expect(await client.closed()).toEqual({ code: 1000, reason: '' });
      await quiet(0);
    });

    it('whose body breaks are logged, and the channel lives', async () => {
      const client = await open();
      client.tell(['sendStream', ['never'], false, true], ['send', 'behind it']);
      expect(await client.next()).toBe('behind it');
      client.ws.close();
      await quiet(1);
    });
  });

  describe('closing', () => {
    const CODES: [number, string][] = [
      [1000, 'normal'],
      [1001, 'going-away'],
      [1002, 'protocol-error'],
      [1003, 'unsupported'],
      [1007, 'invalid-payload-data'],
      [1008, 'policy-violation'],
      [1009, 'message-too-big'],
      [1010, 'mandatory-extension'],
      [1011, 'internal-server-error'],
      [4000, 'unknown'],
      [4999, 'unknown'],
    ];

    it.each(CODES)('by the client with %i is %s', async (code, status) => {
      const file = log();
      const client = await open({ log: file.path });
      client.ws.close(code, 'grüß');
      await until(() => file.lines().length > 0, 'it is closed');
      expect(file.lines()).toEqual([`closed ${status} ${code} grüß`]);
      expect(await client.closed()).toMatchObject({ code });
      await quiet(0);
    });

    it.each([1012, 1013, 1014, 3000, 3999])(
      'by the client with %i looks like a broken connection, and is answered without a code',
      async (code) => {
        const file = log();
        const client = await open({ log: file.path });
        client.ws.close(code, 'library');
        await until(() => file.lines().length > 0, 'it is closed');
        expect(file.lines()).toEqual(['closed going-away 1006 ']);
        expect(await client.closed()).toEqual({ code: 1005, reason: '' });
        await quiet(0);
      },
    );

    it('by the client without a code is no-status-received', async () => {
      const file = log();
      const client = await open({ log: file.path });
      client.ws.close();
      await until(() => file.lines().length > 0, 'it is closed');
      expect(file.lines()).toEqual(['closed no-status-received 1005 ']);
      await quiet(0);
    });

    it('by a broken connection is going-away, with the code 1006', async () => {
      const file = log();
      const client = await open({ log: file.path });
      client.ws.terminate();
      await until(() => file.lines().length > 0, 'it is closed');
      expect(file.lines()).toEqual(['closed going-away 1006 ']);
      await quiet(0);
    });

    it('by the handler is server-close, with its code and reason; sends and closes behind it say no', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        receive: [
          ['is', 'open', 'isOpen'],
          ['is', 'closing', 'close', 4321, 'bye'],
          ['is', 'open', 'isOpen'],
          ['is', 'sent', 'send', 'too late'],
          ['is', 'again', 'close', 1000],
          ['is', 'async', 'sendAsync', 'too late'],
          ['drained'],
          ['log', 'drained'],
        ],
      });
      client.send('go');
      expect(await client.closed()).toEqual({ code: 4321, reason: 'bye' });
      await until(() => file.lines().some((line) => line.startsWith('closed')), 'it is closed');
      expect(file.lines()).toEqual([
        'open=true',
        'closing=true',
        'open=false',
        'sent=false',
        'again=false',
        'async=false',
        'drained',
        'closed server-close 4321 bye',
      ]);
      expect(client.messages).toEqual([]);
      await quiet(0);
    });

    it('by the handler leaves nothing for its other messages; what it said before arrives', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        receive: [['message'], ['send', 'last'], ['close', 3000, 'done']],
      });
      for (let i = 0; i < 50; i++) client.send(`m${i}`);
      expect(await client.closed()).toEqual({ code: 3000, reason: 'done' });
      await until(() => file.lines().length >= 2, 'it is closed');
      await quiet(0);
      expect(file.lines()).toEqual(['message m0', 'closed server-close 3000 done']);
      expect(client.messages).toEqual(['last']);
    });

    it('in the middle of an async callback: onClose waits for its end', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        receive: [['close'], ['log', 'closed it'], ['later', 5], ['log', 'end of onReceive']],
      });
      client.send('go');
      await client.closed();
      await until(() => file.lines().length === 3, 'all is told');
      expect(file.lines()).toEqual(['closed it', 'end of onReceive', 'closed server-close 1000 ']);
      await quiet(0);
    });

    it('in onOpen and in init closes what has just been opened', async () => {
      for (const when of ['open', 'init'] as const) {
        const file = log();
        const client = await open({
          log: file.path,
          [when]: [
            ['send', 'hello'],
            ['close', 1000, 'no'],
          ],
        });
        expect(await client.closed()).toEqual({ code: 1000, reason: 'no' });
        expect(client.messages).toEqual(['hello']);
        await until(() => file.lines().length > 0, 'onClose is told');
        expect(file.lines()).toEqual(['closed server-close 1000 no']);
      }
      await quiet(0);
    });

    it('by send with close = true comes behind the message', async () => {
      const client = await open({ receive: [['send', 'the last', true]] });
      client.send('go');
      expect(await client.next()).toBe('the last');
      expect(await client.closed()).toEqual({ code: 1000, reason: '' });
      await quiet(0);
    });

    it.each([999, 1004, 1005, 1006, 1015, 2999, 5000, 1000.5])(
      'with %d is refused: an error, and it stays open',
      async (code) => {
        const client = await open();
        client.tell(['close', code]);
        expect(await client.ask('still here')).toBe('still here');
        client.ws.close();
        await quiet(1);
      },
    );

    it('with a reason of 123 bytes works, with 124 it is refused', async () => {
      const client = await open();
      client.tell(['close', 1000, 'x'.repeat(124)]);
      expect(await client.ask('still here')).toBe('still here');
      client.tell(['close', 1000, `${'ü'.repeat(61)}!`]);
      expect(await client.closed()).toEqual({ code: 1000, reason: `${'ü'.repeat(61)}!` });
      await quiet(1);
    });

    it('tells onClose once when both sides close at the same time', async () => {
      const files = Array.from({ length: 30 }, () => log());
      await Promise.all(
        files.map(async (file) => {
          const client = await open({ log: file.path, receive: [['close', 4000]] });
          client.send('go');
          client.ws.close(4001);
          await client.closed();
        }),
      );
      await quiet(0);
      await until(() => files.every((file) => file.lines().length > 0), 'all are told');
      await quiet(0);
      for (const file of files) expect(file.lines()).toHaveLength(1);
    });
  });

  describe('callbacks that throw', () => {
    const throwing: [string, Step[]][] = [
      ['at once', [['throw']]],
      ['later', [['later'], ['throw']]],
    ];

    it.each(throwing)('%s are logged, and the channel lives', async (_, receive) => {
      const client = await open({ open: receive, ping: receive, closed: receive });
      client.ws.ping();
      expect(await client.ask('hello')).toBe('hello');
      client.ws.close();
      await client.closed();
      await until(() => test.errors.length >= 3, 'all three are logged');
      for (const { message, error } of test.errors) {
        expect(message).toContain('a callback failed');
        expect((error as Error).message).toBe('thrown on purpose');
      }
      await quiet(3);
    });

    it.each(throwing)('%s close the channel with 1011 when closeOnError is set', async (_, receive) => {
      const file = log();
      const client = await open({ log: file.path, options: { closeOnError: true }, receive });
      client.send('go');
      expect(await client.closed()).toEqual({ code: 1011, reason: 'Internal error' });
      await until(() => file.lines().length > 0, 'onClose is told');
      expect(file.lines()).toEqual(['closed server-close 1011 Internal error']);
      await quiet(1);
    });

    it('an async onOpen that rejects does not hold up the messages', async () => {
      const client = await open({ open: [['later'], ['throw']] });
      expect(await client.ask('hello')).toBe('hello');
      client.ws.close();
      await quiet(1);
    });
  });

  describe('a handler', () => {
    it('whose response stands beside the channel has it dropped, which is logged', async () => {
      const client = await open({ returns: 'response' });
      expect(await client.ask('hello')).toBe('hello');
      await until(() => test.errors.length > 0, 'it is logged');
      expect(test.errors[0]?.message).toContain('a response returned beside a channel is dropped');
      client.ws.close();
      await quiet(1);
    });

    it('may return nothing, and may be async before and behind the channel', async () => {
      for (const script of [
        { returns: 'nothing' as const },
        { before: [['later', 2] as const] },
        { after: [['later', 2] as const] },
      ]) {
        const client = await open(script);
        expect(await client.ask('hello')).toBe('hello');
        client.ws.close();
      }
      await quiet(0);
    });

    it('that throws behind its channel is logged, and the channel lives', async () => {
      for (const after of [[['throw']], [['later'], ['throw']]] as Step[][]) {
        const client = await open({ after });
        expect(await client.ask('hello')).toBe('hello');
        client.ws.close();
        await client.closed();
      }
      await quiet(2);
    });

    it('may answer an upgrade with an ordinary response', async () => {
      await expect(open({ refuse: 403 })).rejects.toThrow('Unexpected server response: 403');
      await quiet(0);
    });

    it('whose client leaves before it accepts gets a channel that is closed', async () => {
      const file = log();
      const free = gate();
      const opening = open(
        {
          log: file.path,
          before: [
            ['log', 'asked'],
            ['gate', free.path],
          ],
          open: [['send', 'x']],
        },
        {
          handshakeTimeout: 300,
        },
      );
      await expect(opening).rejects.toThrow();
      await until(() => test.server.stats().open === 0, 'the server has noticed');
      free.open();
      await until(() => file.lines().length === 2, 'onClose is told');
      expect(file.lines()).toEqual(['asked', 'closed client-close 0 ']);
      await quiet(0);
    });
  });

  describe('pings', () => {
    it('are answered at once, and shown to onPing in their place', async () => {
      const file = log();
      const client = await open({ log: file.path, ping: [['message']], receive: [['message'], ['echo']] });
      client.send('before');
      client.ws.ping('abc');
      client.send('behind');
      client.ws.ping();
      await until(() => client.pongs.length === 2, 'both pongs come');
      expect(client.pongs.map(String)).toEqual(['abc', '']);
      await until(() => file.lines().length === 4, 'all is told');
      expect(file.lines()).toEqual(['message before', 'message 616263', 'message behind', 'message ']);
      client.ws.close();
      await quiet(0);
    });
  });

  describe("Ring's shape", () => {
    it('{ websocket: listener } has the same callbacks, onClose with code and reason', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        ring: {},
        open: [['send', 'hello']],
        ping: [['message']],
        receive: [['later'], ['echo']],
      });
      expect(await client.next()).toBe('hello');
      client.ws.ping('p');
      expect(await client.ask('echo')).toBe('echo');
      client.ws.close(4000, 'bye');
      await until(() => file.lines().length === 2, 'all is told');
      expect(file.lines()).toEqual(['message 70', 'closed 4000 bye']);
      await quiet(0);
    });

    it('takes a subprotocol', async () => {
      const client = await open(
        { ring: { protocol: 'two' }, log: log().path },
        { protocols: ['one', 'two'] },
      );
      expect(client.ws.protocol).toBe('two');
      client.ws.close();
      await quiet(0);
    });

    it('answers a request that is no handshake with 426', async () => {
      const response = await fetch(`${test.url}${target({ ring: {}, log: log().path })}`);
      expect(response.status).toBe(426);
      expect(response.headers.get('upgrade')).toBe('websocket');
      await quiet(0);
    });
  });

  describe('a reader that is slow', () => {
    it('is never sent less than everything that was accepted, in order', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        receive: [
          ['is', 'flood', 'flood', 50_000, 1000],
          ['is', 'refused', 'sendMuch', 50_000],
          ['is', 'open', 'isOpen'],
          ['drained'],
          ['is', 'waiting', 'bufferedAmount'],
          ['send', 'end'],
        ],
      });
      client.ws.pause();
      client.send('go');
      await until(() => file.lines().length >= 3, 'it has sent what it could');
      const [flood, refused, isOpen] = file.lines();
      // At least the mebibyte of the mark; how much the kernel took beyond it is its affair.
      const count = Number(flood?.slice('flood='.length));
      expect(count).toBeGreaterThanOrEqual(20);
      expect([refused, isOpen]).toEqual([count < 1000 ? 'refused=false' : 'refused=true', 'open=true']);
      client.ws.resume();
      await until(() => client.messages.at(-1) === 'end', 'everything has come', 15_000);
      expect(client.messages.filter((message) => message.length === 50_000)).toHaveLength(count);
      expect(file.lines()).toContain('waiting=0');
      client.ws.close();
      await quiet(0);
    });

    it('is closed with 1013 when it is over the mark, if the channel says so', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        options: { highWater: 100_000, overflow: 'close' },
        receive: [
          ['is', 'flood', 'flood', 90_000, 1000],
          ['is', 'open', 'isOpen'],
        ],
      });
      client.ws.pause();
      client.send('go');
      await until(() => file.lines().length === 3, 'it is closed');
      expect(file.lines().slice(1)).toEqual(['open=false', 'closed server-close 1013 Too slow']);
      client.ws.resume();
      expect(await client.closed()).toEqual({ code: 1013, reason: 'Too slow' });
      await quiet(0);
    });

    it('that reads again gets new messages, if what did not fit was to be dropped', async () => {
      const file = log();
      const client = await open({ log: file.path, options: { highWater: 3000, overflow: 'drop' } });
      client.ws.pause();
      client.tell(['is', 'flood', 'flood', 100_000, 1000], ['send', 'dropped'], ['is', 'dropped', 'dropped']);
      await until(() => file.lines().length === 2, 'it has sent what it could');
      expect(file.lines()[1]).toBe('dropped=2');
      client.ws.resume();
      client.tell(['drained'], ['send', 'new']);
      await until(() => client.messages.at(-1) === 'new', 'new messages come');
      client.ws.close();
      await quiet(0);
    });

    it.each(['wait', 'drop', 'close'] as const)(
      'is not what one is that reads everything: nothing is refused, however low the mark (%s)',
      async (overflow) => {
        const client = await open({ options: { highWater: 1000, overflow } });
        for (let i = 0; i < 60; i++) {
          const text = String(i).padEnd(i % 2 === 0 ? 300 : 950, '.');
          expect(await client.ask(text)).toBe(text);
        }
        client.ws.close();
        await quiet(0);
      },
    );
  });

  describe('sendAsync', () => {
    it('waits for room, and is true when the bytes have left', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        options: { highWater: 100_000 },
        receive: [
          ['is', 'a', 'sendMuchAsync', 70_000],
          ['sendMuch', 60_000],
          ['is', 'b', 'sendMuchAsync', 70_000],
          ['is', 'waiting', 'bufferedAmount'],
        ],
      });
      client.send('go');
      await until(() => file.lines().length === 3, 'all is sent');
      expect(file.lines()).toEqual(['a=true', 'b=true', 'waiting=0']);
      await until(() => client.messages.length === 3, 'all has come');
      client.ws.close();
      await quiet(0);
    });

    it('with close = true is true as well, and closes', async () => {
      const file = log();
      const client = await open({ log: file.path, receive: [['is', 'sent', 'sendAsync', 'bye', true]] });
      client.send('go');
      expect(await client.next()).toBe('bye');
      expect(await client.closed()).toEqual({ code: 1000, reason: '' });
      await until(() => file.lines().length === 2, 'all is told');
      expect(file.lines()).toEqual(['sent=true', 'closed server-close 1000 ']);
      await quiet(0);
    });

    it('is false when the client goes away before', async () => {
      const file = log();
      const client = await open({
        log: file.path,
        receive: [
          ['log', 'go'],
          ['is', 'sent', 'sendMuchAsync', 15_000_000],
        ],
      });
      client.ws.pause();
      client.send('go');
      await until(() => file.lines().length === 1, 'it is sent');
      await until(() => test.server.stats().channels === 1, 'it is open');
      client.ws.terminate();
      await until(() => file.lines().length === 3, 'all is told');
      expect(file.lines()).toEqual(['go', 'sent=false', 'closed going-away 1006 ']);
      await quiet(0);
    });
  });

  it('is counted while it is open, and the 101 is among the answers', async () => {
    const before = test.server.stats().answers['101'] ?? 0;
    const clients = await Promise.all(Array.from({ length: 10 }, () => open()));
    expect(test.server.stats().channels).toBe(10);
    expect(test.server.stats().open).toBe(10);
    expect(test.server.stats().answers['101']).toBe(before + 10);
    const { pool } = test.server.stats();
    if (pool !== null) expect(pool.workers.reduce((sum, { channels }) => sum + channels, 0)).toBe(10);
    for (const client of clients) client.ws.close();
    await quiet(0);
    if (pool !== null)
      await until(
        () => test.server.stats().pool?.workers.every(({ channels }) => channels === 0),
        'no worker has channels',
      );
  });
});

describe('a young server', () => {
  // In a process of its own: what can go wrong depends on what else happens to its memory.
  const startChild = async (dispatch: boolean, env: NodeJS.ProcessEnv): Promise<[ChildProcess, number]> => {
    const source = `
      import { runServer } from 'offloop';
      const server = await runServer('test/fixtures/channels/accept.mjs', { port: 0, ip: '127.0.0.1', dispatch: ${dispatch} });
      process.send(server.port);
      process.on('disconnect', () => process.exit());`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', source], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    onTestFinished(() => void child.kill());
    const [port] = (await once(child, 'message')) as [number];
    return [child, port];
  };

  it.each([true, false])(
    'cuts no WebSocket that it has just accepted (dispatch: %s)',
    async (dispatch) => {
      for (let round = 0; round < 5; round++) {
        const [child, port] = await startChild(dispatch, {});
        const open: WebSocket[] = [];
        for (let i = 0; i < 100; i++) {
          const socket = new WebSocket(`ws://127.0.0.1:${port}/?room${i % 3}`);
          open.push(socket);
          await once(socket, 'message');
        }
        expect(open.filter(({ readyState }) => readyState !== WebSocket.OPEN)).toHaveLength(0);
        child.disconnect();
        await once(child, 'exit');
      }
    },
    60_000,
  );

  // An upgrade frees some of the memory of a connection, and the engine looks there again. What glibc writes there, where all
  // threads may take it, says that the connection is to be closed.
  const overwritten = { MALLOC_PERTURB_: '16', GLIBC_TUNABLES: 'glibc.malloc.tcache_count=1' };
  it.each([
    { dispatch: true, body: '' },
    { dispatch: true, body: 'hello' },
    { dispatch: false, body: '' },
    { dispatch: false, body: 'hello' },
  ])(
    'nor one of many whose memory somebody else gets (dispatch: $dispatch, body: $body)',
    async ({ dispatch, body }) => {
      const [, port] = await startChild(dispatch, overwritten);
      const sockets: RawWebSocket[] = [];
      for (let i = 0; i < 50; i++) {
        const client = await RawClient.open(port, '127.0.0.1', null);
        client.send(handshake(`/?${i}`, `Content-Length: ${body.length}`) + body);
        sockets.push(await RawWebSocket.opened(client));
      }
      for (const socket of sockets) expect(await socket.text()).toBe('one more');
      // Whoever answers has been read from after all that.
      for (const socket of sockets) socket.send(frame(OPCODE.ping, 'there?'));
      for (const socket of sockets)
        expect(await socket.next()).toMatchObject({ opcode: OPCODE.pong, payload: Buffer.from('there?') });
    },
  );
});
