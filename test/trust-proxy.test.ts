import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ServerOptions } from 'offloop';
import { asChannel } from 'offloop/handlers';
import { describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, within } from './support/server.js';

const HERE = { remoteAddr: '127.0.0.1', scheme: 'http', serverName: 'localhost', serverPort: 80 };
const FOR = (value: string): string => `X-Forwarded-For: ${value}`;
const HTTPS = 'X-Forwarded-Proto: https';

describe.each(WAYS)('what proxies say of a client, to $way', ({ dispatch }) => {
  /** What a handler sees of requests with these headers, one after the other on one connection. */
  async function seen(
    trustProxy: ServerOptions['trustProxy'],
    ...requests: string[][]
  ): Promise<Record<string, unknown>[]> {
    const options = trustProxy === undefined ? {} : { trustProxy };
    const test = await serve(fixture('http/request.mjs'), {
      dispatch,
      ...(dispatch && { nMax: 1 }),
      ...options,
    });
    const client = await RawClient.open(test.port);
    const all: Record<string, unknown>[] = [];
    for (const headers of requests)
      all.push(
        JSON.parse((await client.ask('GET', '/', ...headers)).body.toString()) as Record<string, unknown>,
      );
    return all;
  }

  it('is not believed by default', async () => {
    for (const trust of [undefined, false] as const) {
      const [one] = await seen(trust, [
        FOR('1.2.3.4'),
        HTTPS,
        'X-Forwarded-Host: x',
        'Forwarded: for=5.6.7.8;proto=https;host=y',
      ]);
      expect(one).toMatchObject(HERE);
      expect(one?.['headers']).toMatchObject({ host: 'localhost', 'x-forwarded-for': '1.2.3.4' });
    }
  });

  it('is believed from right to left, as far as it is trusted', async () => {
    const chain = [FOR('6.6.6.6, 1.2.3.4, 10.0.0.1')];
    const expected: [ServerOptions['trustProxy'], string][] = [
      [true, '6.6.6.6'],
      [1, '10.0.0.1'],
      [2, '1.2.3.4'],
      [3, '6.6.6.6'],
      [['127.0.0.1'], '10.0.0.1'],
      [['loopback', '10.0.0.0/8'], '1.2.3.4'],
      [['::ffff:7f00:1', '127.0.0.0/8', '10.0.0.1/32', '1.2.0.0/16'], '6.6.6.6'],
      [['10.0.0.0/8'], '127.0.0.1'],
    ];
    for (const [trust, remoteAddr] of expected) {
      const [one, none] = await seen(trust, chain, []);
      expect(one, JSON.stringify(trust)).toMatchObject({ remoteAddr });
      expect(none).toMatchObject(HERE);
    }
  });

  it('may be the scheme, the host and the port', async () => {
    const [all, scheme, evil] = await seen(
      1,
      [FOR('1.2.3.4'), HTTPS, 'X-Forwarded-Host: evil.example, shop.example:8443'],
      [FOR('1.2.3.4'), 'X-Forwarded-Proto: http, https'],
      [FOR('1.2.3.4'), 'X-Forwarded-Proto: javascript', 'X-Forwarded-Host: a b'],
    );
    expect(all).toMatchObject({
      remoteAddr: '1.2.3.4',
      scheme: 'https',
      serverName: 'shop.example',
      serverPort: 8443,
    });
    expect(all?.['headers']).toMatchObject({ host: 'shop.example:8443' });
    expect(scheme).toMatchObject({ scheme: 'https', serverName: 'localhost', serverPort: 443 });
    expect(evil).toMatchObject({ ...HERE, remoteAddr: '1.2.3.4' });
  });

  it('may stand in Forwarded, which is looked at when there is no X-Forwarded-For', async () => {
    const forwarded = 'Forwarded: for=6.6.6.6, for="[2001:db8::7]:4711";proto=https;host=shop.example';
    const [one, both, broken] = await seen(
      1,
      [forwarded],
      [forwarded, FOR('1.2.3.4')],
      ['Forwarded: ;;for=;"'],
    );
    expect(one).toMatchObject({
      remoteAddr: '2001:db8::7',
      scheme: 'https',
      serverName: 'shop.example',
      serverPort: 443,
    });
    expect(both).toMatchObject({ remoteAddr: '1.2.3.4', scheme: 'http', serverName: 'localhost' });
    expect(broken).toMatchObject(HERE);
  });

  it('is there for a request that another one is made from', async () => {
    const [one] = await seen(1, [FOR('1.2.3.4'), 'Content-Type: a/b']);
    expect(one).toMatchObject({ contentType: 'a/b', remoteAddr: '1.2.3.4' });
  });
});

describe('what proxies say of a client', () => {
  it('makes the url of a Fetch-style handler', async () => {
    const test = await serve(
      { fetch: ({ url }) => new Response(url) },
      { dispatch: false, trustProxy: ['loopback'] },
    );
    const client = await RawClient.open(test.port);
    const answer = await client.ask('GET', '/x?y', HTTPS, 'X-Forwarded-Host: shop.example');
    expect(answer.body.toString()).toBe('https://shop.example/x?y');
  });

  it('is believed of who comes over a Unix domain socket only when that is said', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'offloop-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    for (const [trust, address] of [
      ['unix', '1.2.3.4'],
      ['loopback', ''],
    ] as const) {
      const unix = join(folder, trust);
      await serve(({ remoteAddr }) => ({ body: remoteAddr || 'none' }), {
        unix,
        dispatch: false,
        trustProxy: [trust],
      });
      const client = await RawClient.open(unix);
      expect((await client.ask('GET', '/', FOR('1.2.3.4'))).body.toString()).toBe(address || 'none');
    }
  });

  it('holds for WebSockets', async () => {
    const test = await serve(
      (req) => asChannel(req, { onOpen: (channel) => void channel.send(`${req.scheme} ${req.remoteAddr}`) }),
      { dispatch: false, trustProxy: 1 },
    );
    const headers = { 'x-forwarded-for': '1.2.3.4', 'x-forwarded-proto': 'https' };
    const ws = new WebSocket(test.url.replace('http', 'ws'), { headers });
    onTestFinished(() => ws.terminate());
    const said = new Promise((resolve) => ws.once('message', (data: Buffer) => resolve(data.toString())));
    expect(await within(said, 'a message')).toBe('https 1.2.3.4');
  });
});
