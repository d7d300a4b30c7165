import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SCRIPT, type Script, type Step, Stream, target } from './support/channel-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { gate, log } from './support/pool-client.js';
import { startServer, type TestServer, until } from './support/server.js';

describe.each(WAYS)('an HTTP channel of $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(SCRIPT, dispatch ? { nMin: 2, nMax: 2 } : { dispatch });
  });
  afterAll(() => test.stop());

  async function quiet(errors = 0): Promise<void> {
    await until(
      () => test.server.stats().channels + test.server.stats().open === 0,
      'all channels are closed',
    );
    const logged = test.errors.splice(0);
    expect(logged, JSON.stringify(logged.map(({ message, error }) => [message, String(error)]))).toHaveLength(
      errors,
    );
  }
  const get = (script: Script, headers: string[] = []): string =>
    `${[`GET ${target(script)} HTTP/1.1`, 'Host: h', ...headers].join('\r\n')}\r\n\r\n`;
  const fetched = (script: Script, init: RequestInit = {}): Promise<Response> =>
    fetch(`${test.url}${target(script)}`, init);

  describe('that answers once', () => {
    it('is an ordinary response with a length: a long poll', async () => {
      const file = log();
      const free = gate();
      const client = await RawClient.open(test.port);
      client.send(
        get({
          log: file.path,
          open: [
            ['log', 'open'],
            ['gate', free.path],
            ['is', 'sent', 'send', 'news'],
          ],
        }),
      );
      await until(() => file.lines().length === 1 && test.server.stats().channels === 1, 'it is open');
      free.open();
      const response = await client.response();
      expect([response.status, response.body.toString(), response.header('content-length')]).toEqual([
        200,
        'news',
        '4',
      ]);
      expect(response.header('transfer-encoding')).toBeUndefined();
      await until(() => file.lines().length === 3, 'it is closed');
      expect(file.lines()).toEqual(['open', 'sent=true', 'closed server-close 0 ']);
      expect((await client.ask('GET', '/plain')).status).toBe(200);
      await quiet();
    });

    it('may have a status and headers, its own or those of the channel', async () => {
      const own = await fetched({
        open: [['send', { status: 404, headers: { 'x-a': '1' }, body: 'none' }]],
      });
      expect([own.status, own.headers.get('x-a'), await own.text()]).toEqual([404, '1', 'none']);
      const given = await fetched({
        options: { status: 202, headers: { 'x-b': '2' } },
        open: [['send', 'bare']],
      });
      expect([given.status, given.headers.get('x-b'), await given.text()]).toEqual([202, '2', 'bare']);
      await quiet();
    });

    it('may have bytes, or a body that has to be read first', async () => {
      const bytes = await fetched({ open: [['sendBytes', [1, 2, 255]]] });
      expect([...new Uint8Array(await bytes.arrayBuffer())]).toEqual([1, 2, 255]);
      const stream = await fetched({ open: [['sendStream', ['a', 'b', 'c']]] });
      expect(await stream.text()).toBe('abc');
      await quiet();
    });

    it('says no to everything behind the answer', async () => {
      const file = log();
      const script: Script = {
        log: file.path,
        open: [
          ['send', 'answer'],
          ['is', 'open', 'isOpen'],
          ['is', 'second', 'send', 'more'],
          ['is', 'close', 'close'],
          ['is', 'async', 'sendAsync', 'more'],
        ],
      };
      expect(await (await fetched(script)).text()).toBe('answer');
      await until(() => file.lines().length === 5, 'all is told');
      expect(file.lines()).toEqual([
        'open=false',
        'second=false',
        'close=false',
        'async=false',
        'closed server-close 0 ',
      ]);
      await quiet();
    });

    it('closed before anything is sent is answered 200 without a body, or as its options say', async () => {
      const client = await RawClient.open(test.port);
      client.send(get({ open: [['close']] }));
      const bare = await client.response();
      expect([bare.status, bare.body.length, bare.header('content-length')]).toEqual([200, 0, '0']);
      client.send(get({ options: { status: 204, headers: { 'x-c': '3' } }, open: [['later'], ['close']] }));
      const given = await client.response();
      expect([given.status, given.header('x-c')]).toEqual([204, '3']);
      expect((await client.ask('GET', '/plain')).status).toBe(200);
      await quiet();
    });

    it('with sendAsync is told that it has left', async () => {
      const file = log();
      const response = await fetched({ log: file.path, open: [['is', 'sent', 'sendAsync', 'answer']] });
      expect(await response.text()).toBe('answer');
      await until(() => file.lines().length === 2, 'all is told');
      expect(file.lines()).toEqual(['sent=true', 'closed server-close 0 ']);
      await quiet();
    });

    it('with something impossible throws, and may still answer', async () => {
      const bad = { status: 200, headers: { 'x-split': 'a\r\nb: c' }, body: 'bad' };
      const response = await fetched({
        open: [['send', bad]],
        after: [['send', { status: 201, body: 'good' }]],
      });
      expect([response.status, await response.text()]).toEqual([201, 'good']);
      await quiet(1);
    });

    it('is a 500 when its handler threw behind it and nothing has been said: nobody would wait for more', async () => {
      const file = log();
      const response = await fetched({ log: file.path, after: [['later'], ['throw']] });
      expect(response.status).toBe(500);
      await until(() => file.lines().length === 1, 'it is closed');
      expect(file.lines()).toEqual(['closed server-close 0 ']);
      await quiet(1);
    });

    it('whose body breaks is a 500, and no empty 200', async () => {
      const file = log();
      const response = await fetched({ log: file.path, open: [['sendStream', ['half'], true, true]] });
      expect(response.status).toBe(500);
      await until(() => file.lines().length === 1, 'it is closed');
      expect(file.lines()).toEqual(['closed server-close 0 ']);
      await quiet(1);
    });
  });

  describe('that streams', () => {
    it('sends each chunk when it is sent, with the status and headers of the first', async () => {
      const [one, two] = [gate(), gate()];
      const file = log();
      const stream = await Stream.open(test.port, {
        log: file.path,
        open: [
          [
            'is',
            'first',
            'send',
            { status: 201, headers: { 'x-a': '1', 'set-cookie': ['a=1', 'b=2'] }, body: 'one' },
            false,
          ],
          ['gate', one.path],
          ['send', 'two ä€😀', false],
          ['gate', two.path],
          ['sendBytes', [33], false],
          ['is', 'last', 'send', { status: 500, body: 'end' }],
        ],
      });
      expect([stream.status, stream.header('x-a'), stream.header('transfer-encoding')]).toEqual([
        201,
        '1',
        'chunked',
      ]);
      expect(stream.head.match(/set-cookie: /gi)).toHaveLength(2);
      await stream.has('one');
      expect(stream.ended).toBe(false);
      one.open();
      await stream.has(`one${Buffer.from('two ä€😀').toString('latin1')}`);
      two.open();
      expect(await stream.whole()).toBe(`one${Buffer.from('two ä€😀!end').toString('latin1')}`);
      await until(() => file.lines().length === 3, 'all is told');
      expect(file.lines()).toEqual(['first=true', 'last=true', 'closed server-close 0 ']);
      expect((await stream.client.ask('GET', '/plain')).status).toBe(200);
      await quiet();
    });

    it('leaves a connection that can be used again and again', async () => {
      const client = await RawClient.open(test.port);
      for (let i = 0; i < 10; i++) {
        const stream = await Stream.open(
          test.port,
          { open: [['send', `a${i}`, false], ['later'], ['send', 'b', false], ['close']] },
          { client },
        );
        expect(await stream.whole()).toBe(`a${i}b`);
        expect((await client.ask('GET', '/plain')).status).toBe(200);
      }
      await quiet();
    });

    it('has its head from the first thing sent, which goes out with the first chunk', async () => {
      const stream = await Stream.open(test.port, {
        open: [
          ['send', { status: 203 }, false],
          ['later'],
          ['send', '', false],
          ['send', 'x', false],
          ['close'],
        ],
      });
      expect(stream.status).toBe(203);
      expect(await stream.whole()).toBe('x');
      await quiet();
    });

    it.each(['204', '205', '304'])('cannot with the status %s: that is the answer', async (status) => {
      const file = log();
      const client = await RawClient.open(test.port);
      client.send(
        get({
          log: file.path,
          open: [
            ['send', { status: Number(status), body: 'x' }, false],
            ['is', 'more', 'send', 'y'],
          ],
        }),
      );
      const response = await client.response();
      expect([response.status, response.header('transfer-encoding'), response.body.length]).toEqual([
        Number(status),
        undefined,
        0,
      ]);
      expect((await client.ask('GET', '/plain')).status).toBe(200);
      await until(() => file.lines().length === 2, 'all is told');
      expect(file.lines()).toEqual(['more=false', 'closed server-close 0 ']);
      await quiet();
    });

    it('answers a HEAD with the head alone, and is closed by that', async () => {
      const file = log();
      const client = await RawClient.open(test.port);
      const response = await client.ask(
        'HEAD',
        target({
          log: file.path,
          open: [
            ['is', 'first', 'send', { status: 201, headers: { 'x-a': '1' }, body: 'one' }, false],
            ['is', 'more', 'send', 'two'],
          ],
        }),
      );
      expect([response.status, response.header('x-a')]).toEqual([201, '1']);
      // The body of a GET would be longer than its first chunk.
      expect(response.header('content-length')).toBeUndefined();
      await until(() => file.lines().length === 3, 'all is told');
      expect(file.lines()).toEqual(['first=true', 'more=false', 'closed server-close 0 ']);
      expect((await client.ask('GET', '/plain')).status).toBe(200);
      await quiet();
    });

    it('answers a HEAD whose GET would be answered at once with the length of that', async () => {
      const client = await RawClient.open(test.port);
      const response = await client.ask('HEAD', target({ open: [['send', 'four']] }));
      expect([response.status, response.header('content-length')]).toEqual([200, '4']);
      expect((await client.ask('GET', '/plain')).status).toBe(200);
      await quiet();
    });

    it('is cut when a body breaks in its middle, so that nobody takes it for whole', async () => {
      const file = log();
      const stream = await Stream.open(test.port, {
        log: file.path,
        open: [
          ['send', 'begun', false],
          ['sendStream', ['half'], true, true],
        ],
      });
      await stream.client.closed();
      expect([stream.text, stream.ended]).toEqual(['begun', false]);
      await until(() => file.lines().length === 1, 'it is closed');
      expect(file.lines()).toEqual(['closed server-close 0 ']);
      await quiet(1);
    });

    it.each([
      ['the request', ['Connection: close'], {}],
      ['the response', [], { connection: 'close' }],
    ])('says that the connection ends with it when %s says so', async (_, headers, given) => {
      const stream = await Stream.open(
        test.port,
        { options: { headers: given }, open: [['send', 'a', false], ['later'], ['send', 'b']] },
        { headers },
      );
      expect(stream.header('connection')).toBe('close');
      expect(await stream.whole()).toBe('ab');
      // Behind what was streamed the engine only does as the client asked; others close when they have read it.
      if (headers.length > 0) expect(await stream.client.closed()).toBe('fin');
      await quiet();
    });

    it('can answer a POST, behind its body', async () => {
      const response = await fetched(
        { open: [['send', 'a', false], ['later'], ['send', 'b']] },
        { method: 'POST', body: 'x'.repeat(100_000) },
      );
      expect(await response.text()).toBe('ab');
      await quiet();
    });
  });

  describe('whose client goes away', () => {
    const states: [string, Step[], string][] = [
      ['before anything is sent', [], ''],
      ['in the middle of a stream', [['send', 'some', false]], 'some'],
    ];
    it.each(states)('%s is closed as client-close, and req.signal aborts', async (_, steps, text) => {
      for (const go of ['leave', 'reset'] as const) {
        const file = log();
        const client = await RawClient.open(test.port);
        client.send(
          get({
            log: file.path,
            open: [['watchSignal'], ...steps, ['log', 'open']],
            closed: [
              ['is', 'late', 'send', 'x'],
              ['is', 'open', 'isOpen'],
            ],
          }),
        );
        await until(() => file.lines().length === 1, 'it is open');
        if (text !== '') await until(() => client.rest.includes(text), 'the first chunk has come');
        client[go]();
        await until(() => file.lines().length === 5, 'it is closed');
        expect(file.lines()).toEqual([
          'open',
          'signal OFFLOOP_ABORTED',
          'closed client-close 0 ',
          'late=false',
          'open=false',
        ]);
      }
      await quiet();
    });

    it('while its handler waits to open it is closed from the start', async () => {
      const file = log();
      const free = gate();
      const client = await RawClient.open(test.port);
      client.send(
        get({
          log: file.path,
          before: [
            ['log', 'asked'],
            ['gate', free.path],
          ],
          open: [['is', 'sent', 'send', 'x', false]],
        }),
      );
      await until(() => file.lines().length === 1, 'the handler runs');
      client.leave();
      await until(() => test.server.stats().open === 0, 'the server has noticed', 15_000);
      free.open();
      await until(() => file.lines().some((line) => line.startsWith('closed')), 'it is closed');
      expect(file.lines().at(-1)).toBe('closed client-close 0 ');
      await quiet();
    });

    it('after the answer hears nothing of it', async () => {
      const file = log();
      const client = await RawClient.open(test.port);
      client.send(get({ log: file.path, open: [['watchSignal'], ['send', 'x']] }));
      expect((await client.response()).status).toBe(200);
      client.leave();
      await until(() => file.lines().length === 1, 'it is closed');
      await quiet();
      expect(file.lines()).toEqual(['closed server-close 0 ']);
    });
  });

  describe('whose client reads slowly', () => {
    const paused = async (script: Script): Promise<RawClient> => {
      const client = await RawClient.open(test.port);
      client.socket.pause();
      client.send(get(script));
      return client;
    };
    /** What has come when the end has. */
    async function drain(client: RawClient): Promise<number> {
      client.socket.resume();
      await until(() => client.rest.endsWith('\r\n0\r\n\r\n'), 'the response ends', 15_000);
      return client.rest.match(/[xyz]/g)?.length ?? 0;
    }

    it('is sent no more than fits, and everything that was accepted', async () => {
      const file = log();
      const client = await paused({
        log: file.path,
        open: [
          ['is', 'flood', 'flood', 50_000, 2000],
          ['is', 'refused', 'sendMuch', 50_000, false],
          ['is', 'open', 'isOpen'],
          ['drained'],
          ['is', 'waiting', 'bufferedAmount'],
          ['send', 'z'],
        ],
      });
      await until(() => file.lines().length >= 3, 'it has sent what it could');
      expect(file.lines().slice(1, 3)).toEqual(['refused=false', 'open=true']);
      const count = Number(file.lines()[0]?.slice('flood='.length));
      expect(count).toBeGreaterThanOrEqual(20);
      expect(count).toBeLessThan(2000);
      const marks = await drain(client);
      // Letters of the head are few.
      expect(marks).toBeGreaterThanOrEqual(count * 50_000);
      expect(marks).toBeLessThan(count * 50_000 + 50);
      expect(file.lines()).toContain('waiting=0');
      await quiet();
    });

    it('takes everything in order when the handler waits with sendAsync', async () => {
      const file = log();
      const steps = Array.from({ length: 60 }, (): Step => ['sendMuchAsync', 200_000, false]);
      const client = await paused({ log: file.path, open: [...steps, ['log', 'all'], ['close']] });
      expect(await drain(client)).toBeGreaterThanOrEqual(60 * 200_000);
      await until(() => file.lines().length === 2, 'it is closed');
      expect(file.lines()).toEqual(['all', 'closed server-close 0 ']);
      await quiet();
    });

    it('is cut off in its middle, if the channel is to be closed when it is over the mark', async () => {
      const file = log();
      const client = await paused({
        log: file.path,
        options: { highWater: 100_000, overflow: 'close' },
        open: [
          ['is', 'flood', 'flood', 90_000, 1000],
          ['is', 'open', 'isOpen'],
        ],
      });
      await until(() => file.lines().length === 3, 'it is closed');
      expect(file.lines().slice(1)).toEqual(['open=false', 'closed server-close 0 ']);
      client.socket.resume();
      await quiet();
    });

    it('loses what did not fit, if that was to be dropped, and gets what comes later', async () => {
      const file = log();
      const client = await paused({
        log: file.path,
        options: { highWater: 1000, overflow: 'drop' },
        open: [
          ['flood', 30_000, 1000],
          ['sendMuch', 30_000, false],
          ['is', 'dropped', 'dropped'],
          ['drained'],
          ['send', 'z'],
        ],
      });
      await until(() => file.lines().length > 0, 'it has sent what it could');
      expect(file.lines()[0]).toBe('dropped=2');
      client.socket.resume();
      await until(() => client.rest.endsWith('z\r\n0\r\n\r\n'), 'the last has come');
      await quiet();
    });

    it('and goes away: sendAsync is false, drained comes to its end', async () => {
      const file = log();
      const client = await paused({
        log: file.path,
        open: [
          ['log', 'go'],
          ['is', 'sent', 'sendMuchAsync', 20_000_000, false],
          ['drained'],
          ['log', 'drained'],
        ],
      });
      await until(() => file.lines().length === 1, 'it is open');
      client.reset();
      await until(() => file.lines().length === 4, 'it is closed', 15_000);
      expect(file.lines()).toEqual(['go', 'sent=false', 'drained', 'closed client-close 0 ']);
      await quiet();
    });
  });

  it('is closed when closeOnError is set and a callback throws', async () => {
    const stream = await Stream.open(test.port, {
      options: { closeOnError: true },
      open: [['send', 'begun', false], ['later', 2], ['throw']],
    });
    await until(() => stream.ended || stream.client.ended !== undefined, 'it is closed');
    await quiet(1);
  });
});
