import { createWorkerPool } from 'offloop';
import { asChannel, publish } from 'offloop/handlers';
import { describe, expect, it } from 'vitest';
import { Client, SCRIPT, Stream, target } from './support/channel-client.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { log, MAY_GO_ELSEWHERE, poolOf } from './support/pool-client.js';
import { serve, until } from './support/server.js';

const topics = (...names: string[]): { options: { topics: string[] } } => ({ options: { topics: names } });
const threadOf = async (client: Client): Promise<number> => {
  client.tell(['where']);
  return (JSON.parse(String(await client.next())) as { threadId: number }).threadId;
};
const idOf = async (client: Client): Promise<string> => {
  client.tell(['id']);
  return String(await client.next());
};
async function poll(port: number, ...names: string[]): Promise<RawClient> {
  const client = await RawClient.open(port);
  client.send(`GET ${target({ ...topics(...names), init: [] })} HTTP/1.1\r\nHost: h\r\n\r\n`);
  return client;
}

describe.each(WAYS)('topics, with $way', ({ dispatch }) => {
  const options = dispatch ? { nMin: 3, nMax: 3 } : { dispatch };

  it('reach every subscriber of every worker: WebSockets and streams', async () => {
    const test = await serve(SCRIPT, options);
    const clients: Client[] = [];
    for (let i = 0; i < 9; i++) clients.push(await Client.open(test.port, topics('news')));
    if (dispatch) expect(new Set(await Promise.all(clients.map(threadOf))).size).toBe(3);
    else for (const client of clients) await threadOf(client);
    const other = await Client.open(test.port, topics('sport'));
    const stream = await Stream.open(test.port, { ...topics('news'), open: [['send', ':', false]] });
    const [first] = clients as [Client];
    first.tell(['publish', 'news', 'hello ä€😀']);
    for (const client of clients) expect(await client.next()).toBe('hello ä€😀');
    await stream.has(`:${Buffer.from('hello ä€😀').toString('latin1')}`);
    // A round trip behind it: nothing has come to who has not asked.
    expect(await other.ask('mine')).toBe('mine');
  });

  it('keep the order in which one handler publishes and sends', async () => {
    const test = await serve(SCRIPT, options);
    const client = await Client.open(test.port, topics('t'));
    client.tell(
      ['publish', 't', '1'],
      ['send', '2'],
      ['publish', 't', '3'],
      ['publish', 't', '4'],
      ['send', '5'],
    );
    const got: unknown[] = [];
    for (let i = 0; i < 5; i++) got.push(await client.next());
    expect(got).toEqual(['1', '2', '3', '4', '5']);
  });

  it('do not lose what is published right before a close', async () => {
    const test = await serve(SCRIPT, options);
    const client = await Client.open(test.port, topics('t'));
    client.tell(['publish', 't', 'last'], ['close', 4000]);
    expect(await client.closed()).toEqual({ code: 4000, reason: '' });
    expect(client.messages).toEqual(['last']);
  });

  it('can leave out the channel a message came from, WebSocket or stream', async () => {
    const test = await serve(SCRIPT, options);
    const [a, b] = [await Client.open(test.port, topics('t')), await Client.open(test.port, topics('t'))];
    const stream = await Stream.open(test.port, {
      ...topics('t'),
      open: [
        ['send', ':', false],
        ['publishToOthers', 't', 'from the stream'],
        ['send', '.', false],
      ],
    });
    expect(await a.next()).toBe('from the stream');
    expect(await b.next()).toBe('from the stream');
    await stream.has(':.');
    a.tell(['publishToOthers', 't', 'from a'], ['send', 'done']);
    expect(await b.next()).toBe('from a');
    expect(await a.next()).toBe('done');
    await stream.has(':.from a');
  });

  it('can be left, and joined later', async () => {
    const test = await serve(SCRIPT, options);
    const client = await Client.open(test.port);
    const say = async (text: string): Promise<string> => {
      client.tell(['publish', 't', text], ['send', '.']);
      const got = [await client.next()];
      if (got[0] !== '.') got.push(await client.next());
      return got.join('');
    };
    expect(await say('one')).toBe('.');
    client.tell(['subscribe', 't'], ['subscribe', 't']);
    expect(await say('two')).toBe('two.');
    client.tell(['unsubscribe', 't'], ['unsubscribe', 'never joined']);
    expect(await say('three')).toBe('.');
    const stream = await Stream.open(test.port, {
      open: [
        ['subscribe', 't'],
        ['send', ':', false],
        ['unsubscribe', 't'],
      ],
    });
    await stream.has(':');
    expect(await say('four')).toBe('.');
    client.tell(['subscribe', '']);
    await until(() => test.errors.length === 1, 'an empty topic is refused');
    await stream.has(':');
  });

  it('end long polls when they are published with close, and leave streams open without', async () => {
    const test = await serve(SCRIPT, options);
    const polls = [await poll(test.port, 't'), await poll(test.port, 't', 'u'), await poll(test.port, 'u')];
    const stream = await Stream.open(test.port, { ...topics('t'), open: [['send', ':', false]] });
    const client = await Client.open(test.port, topics('t'));
    await until(() => test.server.stats().channels === 5, 'all are open');
    test.server.publish('t', 'a', { close: true });
    for (const one of polls.slice(0, 2)) {
      const response = await one.response();
      expect([response.status, response.body.toString(), response.header('content-length')]).toEqual([
        200,
        'a',
        '1',
      ]);
    }
    expect(await stream.whole()).toBe(':a');
    expect(await client.next()).toBe('a');
    // The WebSocket stays, and so does the other poll.
    expect(await client.ask('hello')).toBe('hello');
    expect(test.server.stats().channels).toBe(2);
    test.server.publish('u', 'begins');
    const rest = polls[2] as RawClient;
    expect(await rest.head()).toContain('chunked');
    await until(() => rest.rest === '6\r\nbegins', 'a poll becomes a stream');
  });

  it('can be published by the server, as text and as bytes', async () => {
    const test = await serve(SCRIPT, options);
    const client = await Client.open(test.port, topics('t'));
    await until(() => test.server.stats().channels === 1, 'it is open');
    expect(await client.ask('ready')).toBe('ready');
    test.server.publish('t', 'text');
    test.server.publish('t', new Uint8Array([1, 2, 255]));
    test.server.publish('nobody', 'lost');
    expect(await client.next()).toBe('text');
    expect(await client.next()).toEqual(Buffer.from([1, 2, 255]));
    for (const bad of [() => test.server.publish('', 'x'), () => test.server.publish('t', 5 as never)])
      expect(bad).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_CHANNEL' }));
  });

  it('are left by channels that close: their counts are gone', async () => {
    const test = await serve(SCRIPT, options);
    const client = await Client.open(test.port, topics('t'));
    const others = await Promise.all(Array.from({ length: 10 }, () => Client.open(test.port, topics('t'))));
    const stream = await Stream.open(test.port, { ...topics('t'), open: [['send', ':', false]] });
    others.forEach(({ ws }, i) => {
      if (i % 2 === 0) ws.close();
      else ws.terminate();
    });
    stream.client.leave();
    await until(() => test.server.stats().channels === 1, 'they are closed');
    client.tell(['publish', 't', 'who is there']);
    expect(await client.next()).toBe('who is there');
    client.ws.close();
    await until(() => test.server.stats().channels + test.server.stats().open === 0, 'all are closed');
    expect(test.errors).toEqual([]);
  });

  it('reach a slow WebSocket and a slow stream within a bound, and the others at once', async () => {
    const test = await serve(SCRIPT, options);
    const slow = await Client.open(test.port, topics('t'));
    const stuck = await Stream.open(test.port, { ...topics('t'), open: [['send', ':', false]] });
    const quick = await Client.open(test.port, topics('t'));
    expect(await slow.ask('ready')).toBe('ready');
    expect(await quick.ask('ready')).toBe('ready');
    slow.ws.pause();
    stuck.client.socket.pause();
    const before = process.memoryUsage();
    const part = 'x'.repeat(256 * 1024);
    for (let i = 0; i < 300; i++) {
      test.server.publish('t', part);
      // The quick one has it before the next is published.
      await quick.next();
    }
    // 75 MiB have been published; 16 may wait for each, and the test itself holds what the quick one got.
    const { external, arrayBuffers } = process.memoryUsage();
    expect(external + arrayBuffers - before.external - before.arrayBuffers).toBeLessThan(120 * 1024 * 1024);
    slow.ws.resume();
    stuck.client.socket.resume();
    await until(() => slow.messages.length > 20, 'the slow one reads on');
    expect(slow.messages.length).toBeLessThan(200);
    await until(() => stuck.client.received > 5_000_000, 'the slow stream reads on');
    expect(stuck.client.received).toBeLessThan(60_000_000);
  });
});

describe('topics across threads and servers', () => {
  it('are published by an inline handler to the channels of workers, and the other way round', async () => {
    const test = await serve(SCRIPT, { nMin: 2, nMax: 2 });
    await test.server.mount(
      (req) => {
        if (!req.isWebSocket) {
          publish('t', 'from inline');
          return { body: 'published' };
        }
        return asChannel(req, { topics: ['t'] });
      },
      { path: '/inline', dispatch: false },
    );
    const inline = await Client.open(test.port, {}, { path: '/inline' });
    const pooled = [await Client.open(test.port, topics('t')), await Client.open(test.port, topics('t'))];
    for (const client of pooled) expect(await client.ask('ready')).toBe('ready');
    expect(await (await fetch(`${test.url}/inline`)).text()).toBe('published');
    for (const client of [inline, ...pooled]) expect(await client.next()).toBe('from inline');
    (pooled[0] as Client).tell(['publish', 't', 'from a worker']);
    for (const client of [inline, ...pooled]) expect(await client.next()).toBe('from a worker');
  });

  it('reach the channels of every server; server.publish those of its own', async () => {
    const pool = createWorkerPool({ nMin: 2, nMax: 2 });
    const [one, two] = [await serve(SCRIPT, { workerPool: pool }), await serve(SCRIPT, { workerPool: pool })];
    const [a, b] = [await Client.open(one.port, topics('t')), await Client.open(two.port, topics('t'))];
    expect(await a.ask('ready')).toBe('ready');
    expect(await b.ask('ready')).toBe('ready');
    a.tell(['publish', 't', 'to all']);
    expect(await a.next()).toBe('to all');
    expect(await b.next()).toBe('to all');
    a.tell(['publishToOthers', 't', 'to the others'], ['send', 'done']);
    expect(await b.next()).toBe('to the others');
    expect(await a.next()).toBe('done');
    two.server.publish('t', 'to two');
    expect(await b.next()).toBe('to two');
    expect(await a.ask('nothing')).toBe('nothing');
    await one.stop();
    b.tell(['publish', 't', 'after the end of one']);
    expect(await b.next()).toBe('after the end of one');
    await two.stop();
    await pool.close();
  });

  it('are not heard by a channel that was never told to listen, whatever the names', async () => {
    const test = await serve(SCRIPT, { nMin: 1, nMax: 1 });
    for (const name of ['#', '+', 'a/b', 'a/+', 'ä€', ' ', 'x'.repeat(500), '__proto__', 'a\0b']) {
      const client = await Client.open(test.port, topics(name));
      client.tell(
        ['publish', name, 'mine'],
        ['publish', `${name}x`, 'other'],
        ['publish', 'a/c', 'other'],
        ['send', '.'],
      );
      expect([await client.next(), await client.next()]).toEqual(['mine', '.']);
      client.ws.close();
      await client.closed();
    }
  });
});

describe('channel(id)', () => {
  it('sends to, and closes, a channel of another worker', MAY_GO_ELSEWHERE, async () => {
    const test = await serve(SCRIPT, { nMin: 2, nMax: 2 });
    const file = log();
    const a = await Client.open(test.port, { log: file.path });
    const b = await Client.open(test.port);
    expect(await threadOf(a)).not.toBe(await threadOf(b));
    const id = await idOf(a);
    b.tell(['remote', id, 'send', 'from b'], ['remote', id, 'subscribe', 't'], ['publish', 't', 'topic']);
    expect(await a.next()).toBe('from b');
    expect(await a.next()).toBe('topic');
    b.tell(
      ['remote', id, 'unsubscribe', 't'],
      ['publish', 't', 'topic'],
      ['remote', id, 'close', 4001, 'by b'],
    );
    expect(await a.closed()).toEqual({ code: 4001, reason: 'by b' });
    await until(() => file.lines().length === 1, 'onClose is told in its own worker');
    expect(file.lines()).toEqual(['closed server-close 4001 by b']);
    expect(a.messages).toHaveLength(4);
    // Gone, and nobody minds.
    b.tell(
      ['remote', id, 'send', 'too late'],
      ['remote', id, 'close'],
      ['remote', 'no such id', 'send', 'x'],
      ['send', 'fine'],
    );
    expect(await b.next()).toBe('fine');
    expect(poolOf(test.server).workers.reduce((sum, { channels }) => sum + channels, 0)).toBe(1);
    expect(test.errors).toEqual([]);
  });

  it('answers the long poll, and ends the stream, of another worker', async () => {
    const test = await serve(SCRIPT, { nMin: 2, nMax: 2 });
    const b = await Client.open(test.port);
    const stream = await Stream.open(test.port, { open: [['id']] });
    await until(() => stream.text !== '', 'it has its id');
    const id = stream.text;
    b.tell(['remote', id, 'send', ' from b'], ['remote', id, 'send', ' the end', true]);
    expect(await stream.whole()).toBe(`${id} from b the end`);
    expect(test.errors).toEqual([]);
  });
});
