import { formatEvent } from 'offloop/handlers';
import { EventSource } from 'undici';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { SCRIPT, type Script, Stream, target } from './support/channel-client.js';
import { WAYS } from './support/http-raw.js';
import { log } from './support/pool-client.js';
import { startServer, type TestServer, until } from './support/server.js';

describe('formatEvent', () => {
  it.each([
    ['text', 'data: text\n\n'],
    ['', 'data: \n\n'],
    ['one\ntwo\r\nthree\rfour', 'data: one\ndata: two\ndata: three\ndata: four\n\n'],
    ['ends\n', 'data: ends\ndata: \n\n'],
    [' indented: ä', 'data:  indented: ä\n\n'],
    [{ data: 'x', event: 'tick', id: '7', retry: 10 }, 'event: tick\nid: 7\nretry: 10\ndata: x\n\n'],
    [{ data: 'x', id: '' }, 'id: \ndata: x\n\n'],
  ])('writes %j as %j', (event, text) => {
    expect(formatEvent(event)).toBe(text);
  });

  it.each([
    { data: 'x', event: 'a\nb' },
    { data: 'x', id: 'a\rb' },
    { data: 'x', id: 'a\0b' },
    { data: 'x', retry: -1 },
    { data: 'x', retry: 1.5 },
    { data: 'x', event: 5 as never },
  ])('refuses %j, which would break out of its line', (event) => {
    expect(() => formatEvent(event)).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_CHANNEL' }));
  });
});

describe.each(WAYS)('an event stream of $way', ({ dispatch }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(SCRIPT, dispatch ? { nMin: 2, nMax: 2 } : { dispatch });
  });
  afterAll(() => test.stop());

  interface Got {
    readonly type: string;
    readonly data: string;
    readonly id: string;
  }
  function listen(script: Script, ...types: string[]): { source: EventSource; got: Got[] } {
    const source = new EventSource(`${test.url}${target(script)}`);
    onTestFinished(() => source.close());
    const got: Got[] = [];
    for (const type of ['message', ...types]) {
      source.addEventListener(type, (event) => {
        const { data, lastEventId } = event as unknown as { data: string; lastEventId: string };
        got.push({ type, data, id: lastEventId });
      });
    }
    return { source, got };
  }
  const quiet = (): Promise<void> =>
    until(() => test.server.stats().channels + test.server.stats().open === 0, 'nothing is open');

  it('is what an EventSource understands, with the headers proxies need', async () => {
    const stream = await Stream.open(test.port, {
      sse: { headers: { 'x-a': '1' } },
      events: [['send', 'hello']],
    });
    expect(stream.status).toBe(200);
    expect(stream.header('content-type')).toBe('text/event-stream');
    expect(stream.header('cache-control')).toBe('no-store');
    expect(stream.header('x-accel-buffering')).toBe('no');
    expect(stream.header('x-a')).toBe('1');
    await stream.has(': \n\ndata: hello\n\n');
    stream.client.leave();
    await quiet();
  });

  it('delivers types, ids, and data of several lines, whatever its line ends', async () => {
    const { source, got } = listen(
      {
        sse: {},
        events: [
          ['send', 'plain'],
          ['send', { data: 'one\ntwo\r\nthree', event: 'lines', id: 'a' }],
          ['comment', 'nobody\nsees this'],
          ['send', { data: 'ä€😀 : data: x', id: 'b' }],
        ],
      },
      'lines',
    );
    await until(() => got.length === 3, 'all events come');
    expect(got).toEqual([
      { type: 'message', data: 'plain', id: '' },
      { type: 'lines', data: 'one\ntwo\nthree', id: 'a' },
      { type: 'message', data: 'ä€😀 : data: x', id: 'b' },
    ]);
    source.close();
    await quiet();
  });

  it('knows the id of the last event when its client comes again', async () => {
    const { source, got } = listen({
      sse: {},
      events: [['lastEventId'], ['send', { data: 'news', id: '41', retry: 5 }], ['close']],
    });
    await until(() => got.length >= 4, 'it has come again');
    source.close();
    expect(got.slice(0, 4).map(({ data }) => data)).toEqual(['', 'news', '41', 'news']);
    await quiet();
  });

  it('gets what is published under its topics', async () => {
    const { source, got } = listen({ sse: { topics: ['t'] }, events: [['send', 'ready']] });
    await until(() => got.length === 1, 'it is open');
    test.server.publish('t', formatEvent({ data: 'published\ntwice', id: '1' }));
    await until(() => got.length === 2, 'it comes');
    expect(got[1]).toEqual({ type: 'message', data: 'published\ntwice', id: '1' });
    source.close();
    await quiet();
  });

  it('is kept alive by comments, which no EventSource sees', async () => {
    const script: Script = { sse: { keepAlive: 5 }, events: [['send', 'one']] };
    const stream = await Stream.open(test.port, script);
    await until(() => /^: \n\ndata: one\n\n(: \n\n){3,}$/.test(stream.text), 'comments come');
    stream.client.leave();
    const { source, got } = listen(script);
    await until(() => got.length === 1, 'it is open');
    source.close();
    await quiet();
    // The timers are gone: they would say that they cannot send.
    expect(test.errors).toEqual([]);
  });

  it('tells its end: by the server, and by the client', async () => {
    const file = log();
    const ended = await Stream.open(test.port, {
      log: file.path,
      sse: {},
      events: [['send', 'x'], ['close']],
    });
    expect(await ended.whole()).toBe(': \n\ndata: x\n\n');
    await until(() => file.lines().length === 1, 'the first end is told');
    const left = await Stream.open(test.port, { log: file.path, sse: {} });
    left.client.leave();
    await until(() => file.lines().length === 2, 'the second end is told');
    expect(file.lines()).toEqual(['closed server-close', 'closed client-close']);
    await quiet();
  });

  it('is answered 500 when its options are wrong', async () => {
    const response = await fetch(`${test.url}${target({ sse: { keepAlive: -1 } })}`);
    expect(response.status).toBe(500);
    expect(test.errors.splice(0)).toHaveLength(1);
    await quiet();
  });
});
