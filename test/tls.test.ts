import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { connect as connectPlain } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions, TLSSocket } from 'node:tls';
import { pathToFileURL } from 'node:url';
import { type InlineHandler, runServer, type ServerOptions } from 'offloop';
import { asChannel } from 'offloop/handlers';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type ClientOptions, WebSocket } from 'ws';
import { certificate, encrypted, expired, folder, issued } from './support/certificates.js';
import { RawClient, WAYS } from './support/http-raw.js';
import { fixture, serve, until, within } from './support/server.js';

const RSA = ['rsa:2048'];
const main = certificate('localhost');
const QUIET = { ip: '127.0.0.1', port: 0, errorLogger: () => undefined, warnLogger: () => undefined };
const inline = (options: ServerOptions): ServerOptions => ({ dispatch: false, ...options });
const hello: InlineHandler = () => ({ body: 'hello' });

/** Connect, and see whom one talks to. */
async function meet(
  port: number,
  options: ConnectionOptions = {},
): Promise<{ client: RawClient; name: string; version: string }> {
  const client = await RawClient.open(port, '127.0.0.1', options);
  const socket = client.socket as TLSSocket;
  return {
    client,
    name: String(socket.getPeerCertificate().subject.CN),
    version: String(socket.getProtocol()),
  };
}
const nameAt = async (port: number, servername?: string): Promise<string> =>
  (await meet(port, servername === undefined ? {} : { servername })).name;
const failure = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: Error & { code?: string }) => `${error.code} ${error.message}`,
  );

/** What is left of keys that were given as text. */
const leftovers = (): string[] =>
  ['/dev/shm', tmpdir()].flatMap((place) =>
    existsSync(place)
      ? readdirSync(place)
          .filter((name) => /^offloop-pem-/.test(name))
          .map((name) => join(place, name))
      : [],
  );

describe.each(WAYS)('over TLS, $way', ({ dispatch }) => {
  it('sees https, and its clients an https url', async () => {
    const test = await serve(fixture('http/request.mjs'), {
      tls: main,
      dispatch,
      ...(dispatch && { nMax: 1 }),
    });
    expect(test.url).toBe(`https://127.0.0.1:${test.port}`);
    const { client } = await meet(test.port);
    for (let i = 0; i < 3; i++) {
      const seen = JSON.parse((await client.ask('GET', '/')).body.toString()) as Record<string, unknown>;
      expect(seen).toMatchObject({
        scheme: 'https',
        serverPort: 443,
        serverName: 'localhost',
        remoteAddr: '127.0.0.1',
      });
    }
  });
});

describe('certificates', () => {
  it('are shown by the name the client asks for', async () => {
    const [a, wild] = [certificate('a.test'), certificate('*.b.test', RSA)];
    const sni = { 'a.test': a, '*.b.test': wild, 'C.test': certificate('c.test') };
    const test = await serve(({ serverName }) => ({ body: serverName }), inline({ tls: { ...main, sni } }));
    expect(await nameAt(test.port)).toBe('localhost');
    expect(await nameAt(test.port, 'a.test')).toBe('a.test');
    expect(await nameAt(test.port, 'x.b.test')).toBe('*.b.test');
    expect(await nameAt(test.port, 'c.test')).toBe('c.test');
    for (const other of ['b.test', 'x.y.b.test', 'unknown.test'])
      expect(await nameAt(test.port, other)).toBe('localhost');
    // Whatever the name, requests get to the same handlers, WebSockets too.
    const { client } = await meet(test.port, { servername: 'x.b.test' });
    expect((await client.ask('POST', '/x', 'Content-Length: 0')).body.toString()).toBe('localhost');
    await test.server.mount((req) => asChannel(req, { onOpen: (channel) => void channel.send('open') }), {
      path: '/ws',
      dispatch: false,
    });
    const options: ClientOptions & { servername: string } = {
      servername: 'a.test',
      rejectUnauthorized: false,
    };
    const ws = new WebSocket(`wss://127.0.0.1:${test.port}/ws`, options);
    onTestFinished(() => ws.terminate());
    const said = await within(
      new Promise((resolve) => ws.once('message', (data: Buffer) => resolve(data.toString()))),
      'a message',
    );
    expect(said).toBe('open');
  });

  it('may be files, URLs, text or bytes, with their keys encrypted or not, and leave no copies behind', async () => {
    const before = leftovers();
    const key = encrypted(main.key, 'secret');
    const pem = (path: string): string => readFileSync(path, 'utf8');
    const good: ServerOptions['tls'][] = [
      { cert: pathToFileURL(main.cert), key: pathToFileURL(main.key).href },
      { cert: pem(main.cert), key: pem(main.key) },
      { cert: readFileSync(main.cert), key: new Uint8Array(readFileSync(main.key)) },
      { cert: main.cert, key, passphrase: 'secret' },
      { cert: pem(main.cert), key: pem(key), passphrase: 'secret' },
      certificate('rsa.test', RSA),
      certificate('ed.test', ['ed25519']),
    ];
    for (const tls of good) {
      const test = await serve(hello, inline({ tls: tls as NonNullable<typeof tls> }));
      const { client } = await meet(test.port);
      expect((await client.ask('GET', '/')).body.toString()).toBe('hello');
      expect(test.warnings).toEqual([]);
    }
    expect(leftovers()).toEqual(before);
  });

  it('that have expired are used, with a warning', async () => {
    const old = expired('old.test');
    const test = await serve(hello, inline({ tls: old }));
    expect(test.warnings.map(({ message }) => message).join()).toMatch(/tls\.cert .*old\.test.* expired on /);
  });

  it('speak TLS 1.2 and newer, or 1.3 only', async () => {
    const both = await serve(hello, inline({ tls: main }));
    expect((await meet(both.port)).version).toBe('TLSv1.3');
    expect((await meet(both.port, { maxVersion: 'TLSv1.2' })).version).toBe('TLSv1.2');
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    expect(await failure(meet(both.port, old))).toContain('alert');
    const sni = { 'a.test': certificate('a.test') };
    const newer = await serve(hello, inline({ tls: { ...main, sni, minVersion: 'TLSv1.3' } }));
    for (const servername of ['localhost', 'a.test']) {
      expect((await meet(newer.port, { servername })).version).toBe('TLSv1.3');
      expect(await failure(meet(newer.port, { servername, maxVersion: 'TLSv1.2' }))).toContain('alert');
    }
  });

  it('of clients are asked for with `ca`: a foreign one is refused, none is let in', async () => {
    const ca = certificate('authority.test', RSA);
    const mine = issued('client.test', ca);
    const test = await serve(hello, inline({ tls: { ...main, ca: ca.cert } }));
    const show = ({ cert, key }: typeof mine): ConnectionOptions => ({
      cert: readFileSync(cert),
      key: readFileSync(key),
    });
    const ask = async (options: ConnectionOptions): Promise<number> =>
      (await (await meet(test.port, options)).client.ask('GET', '/')).status;
    expect(await ask(show(mine))).toBe(200);
    expect(await ask({})).toBe(200);
    expect(await failure(ask(show(certificate('stranger.test'))))).not.toBe('none');
    expect(await failure(ask({ ...show(certificate('stranger.test')), maxVersion: 'TLSv1.2' }))).not.toBe(
      'none',
    );
  });
});

describe('certificates that are replaced', () => {
  it('are met by new connections, while those that are open go on with theirs', async () => {
    const live = { cert: join(folder(), 'live.crt'), key: join(folder(), 'live.key') };
    const install = (name: string): void => {
      const from = certificate(name);
      writeFileSync(live.cert, readFileSync(from.cert));
      writeFileSync(live.key, readFileSync(from.key));
    };
    install('first.test');
    const test = await serve(
      (req) =>
        asChannel(req, {
          topics: ['all'],
          onReceive: (channel, data) => void channel.send(`echo ${data}`),
        }),
      inline({ tls: { ...live, sni: { 'a.test': certificate('a.test') } } }),
    );
    await test.server.mount(hello, { path: '/hello', dispatch: false });
    const old = await meet(test.port);
    const oldNamed = await meet(test.port, { servername: 'a.test' });
    const sockets = [await socketOf(test.port)];
    for (let round = 2; round < 5; round++) {
      install(`number-${round}.test`);
      expect(await nameAt(test.port)).not.toBe(`number-${round}.test`);
      await test.server.reloadTls();
      expect(await nameAt(test.port)).toBe(`number-${round}.test`);
      sockets.push(await socketOf(test.port));
      for (const { client } of [old, oldNamed])
        expect((await client.ask('GET', '/hello')).body.toString()).toBe('hello');
    }
    // Topics reach over all of them, whoever publishes.
    test.server.publish('all', 'to all');
    for (const socket of sockets) expect(await socket.next()).toBe('to all');
    await test.server.reloadTls({ ...main, sni: { 'b.test': certificate('b.test') } });
    expect([
      await nameAt(test.port),
      await nameAt(test.port, 'b.test'),
      await nameAt(test.port, 'a.test'),
    ]).toEqual(['localhost', 'b.test', 'localhost']);
    expect((await oldNamed.client.ask('GET', '/hello')).status).toBe(200);
    for (const socket of sockets) {
      socket.ws.send('x');
      expect(await socket.next()).toBe('echo x');
    }
    const port = test.port;
    await test.server.stop();
    await Promise.all(sockets.map(({ closed }) => within(closed, 'the WebSockets to be closed')));
    await expect(RawClient.open(port)).rejects.toThrow();
  });

  it('lose no connection that has been made', async () => {
    const test = await serve(hello, inline({ tls: main }));
    let over = false;
    let answers = 0;
    const clients = Array.from({ length: 4 }, async () => {
      while (!over) {
        // One that is just being made may have to be made again.
        const met = await meet(test.port).catch((error: NodeJS.ErrnoException) => {
          expect(error.code).toMatch(/^ECONN(RESET|REFUSED)$/);
        });
        if (met === undefined) continue;
        expect((await met.client.ask('GET', '/')).status).toBe(200);
        met.client.leave();
        answers++;
      }
    });
    for (let i = 0; i < 20; i++) {
      const before = answers;
      await test.server.reloadTls();
      await until(() => answers > before + 4, 'clients are answered');
    }
    over = true;
    await Promise.all(clients);
    expect(test.server.stats().answers).toEqual({ '200': answers });
  });

  it('that are no good change nothing', async () => {
    const test = await serve(hello, inline({ tls: main }));
    const { server } = test;
    expect(await failure(server.reloadTls({ cert: main.cert, key: certificate('a.test').key }))).toContain(
      'OFFLOOP_BAD_TLS',
    );
    expect(await failure(server.reloadTls({ cert: '/nowhere', key: main.key }))).toContain('ENOENT');
    expect(await failure(server.reloadTls({} as never))).toContain('OFFLOOP_BAD_OPTION');
    expect(await nameAt(test.port)).toBe('localhost');
    await server.reloadTls();
    await server.stop();
    expect(await failure(server.reloadTls())).toContain('OFFLOOP_STOPPED');
    const plain = await serve(hello, inline({}));
    expect(await failure(plain.server.reloadTls(main))).toContain('without tls');
  });

  it('are replaced on a Unix domain socket as well', async () => {
    const unix = join(folder(), 'socket');
    const test = await serve(hello, inline({ unix, unixMode: 0o600, tls: main }));
    await test.server.reloadTls(certificate('a.test'));
    const client = await RawClient.open(unix, '', {});
    expect((client.socket as TLSSocket).getPeerCertificate().subject.CN).toBe('a.test');
    expect((await client.ask('GET', '/')).status).toBe(200);
    await test.stop();
    expect(existsSync(unix)).toBe(false);
  });
});

/** A WebSocket and its messages. */
async function socketOf(
  port: number,
): Promise<{ ws: WebSocket; next: () => Promise<string>; closed: Promise<number> }> {
  const ws = new WebSocket(`wss://127.0.0.1:${port}/`, { rejectUnauthorized: false });
  onTestFinished(() => ws.terminate());
  const messages: string[] = [];
  ws.on('message', (data: Buffer) => messages.push(data.toString()));
  const closed = new Promise<number>((resolve) => ws.once('close', resolve));
  await within(
    new Promise((resolve, reject) => ws.once('open', resolve).once('error', reject)),
    'a WebSocket',
  );
  const next = async (): Promise<string> => {
    await until(() => messages.length > 0, 'a message comes');
    return String(messages.shift());
  };
  return { ws, next, closed };
}

describe('over TLS', () => {
  it('a Fetch-style handler sees an https url', async () => {
    const test = await serve({ fetch: ({ url }) => new Response(url) }, inline({ tls: main }));
    const { client } = await meet(test.port);
    expect((await client.ask('GET', '/x')).body.toString()).toBe('https://localhost/x');
  });

  it('stopping finishes a download, with the whole of it', async () => {
    const bytes = Buffer.alloc(8 * 1024 * 1024, 'offloop');
    const test = await serve(() => ({ body: bytes }), inline({ tls: main }));
    const got = await new Promise<Buffer>((resolve, reject) => {
      const req = httpsRequest(test.url, { rejectUnauthorized: false, agent: false }, (response) => {
        const chunks: Buffer[] = [];
        response.pause();
        void test.server.stop();
        setImmediate(() => response.resume());
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => resolve(Buffer.concat(chunks)));
        response.on('error', reject);
      });
      req.on('error', reject);
      req.end();
    });
    const hash = (data: Buffer): string => createHash('sha1').update(data).digest('hex');
    expect([got.length, hash(got)]).toEqual([bytes.length, hash(bytes)]);
    await test.server.join();
  });

  it('who speaks no TLS, or breaks off, harms nobody', async () => {
    const test = await serve(hello, inline({ tls: main }));
    for (const words of [
      'GET / HTTP/1.1\r\nHost: h\r\n\r\n',
      '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
      '\0'.repeat(70_000),
      '',
    ]) {
      const socket = connectPlain(test.port, '127.0.0.1');
      socket.on('error', () => undefined);
      await new Promise((resolve) => socket.once('connect', resolve));
      socket.write(Buffer.from(words, 'latin1'));
      socket.end();
      await within(new Promise((resolve) => socket.resume().once('close', resolve)), 'the server to close');
    }
    const { client } = await meet(test.port);
    expect((await client.ask('GET', '/')).status).toBe(200);
    expect(test.errors).toEqual([]);
  });
});

describe('tls that will not do is refused with a sentence, and nothing is started:', () => {
  const file = (name: string, text: string): string => {
    const path = join(folder(), name);
    writeFileSync(path, text);
    return path;
  };
  const other = certificate('a.test');
  const cases: [string, () => unknown, RegExp][] = [
    [
      'no file',
      () => ({ ...main, cert: 'nowhere.crt' }),
      /OFFLOOP_BAD_TLS tls\.cert: cannot read \/.*nowhere\.crt: ENOENT; .*working directory/,
    ],
    ['a folder', () => ({ ...main, key: folder() }), /tls\.key: cannot read .*: EISDIR; it is a folder/],
    [
      'a key of another certificate',
      () => ({ ...main, key: other.key }),
      /tls\.key \(.*a_?\.?test.*\) does not belong to tls\.cert \(.*\) \(DNS:localhost\)/,
    ],
    [
      'a key in place of a certificate',
      () => ({ ...main, cert: main.key }),
      /tls\.cert .* is no certificate in PEM form/,
    ],
    [
      'a certificate in place of a key',
      () => ({ ...main, key: main.cert }),
      /tls\.key .* is no private key in PEM form/,
    ],
    ['nonsense', () => ({ ...main, cert: file('nonsense', 'nonsense') }), /tls\.cert .* is no certificate/],
    ['an empty file', () => ({ ...main, key: file('empty', '') }), /tls\.key .* is no private key/],
    [
      'a cut certificate',
      () => ({ ...main, cert: readFileSync(main.cert, 'utf8').slice(0, 200) }),
      /tls\.cert is no certificate/,
    ],
    [
      'no passphrase',
      () => ({ cert: main.cert, key: encrypted(main.key, 'secret') }),
      /tls\.key .* is encrypted: give the passphrase in tls\.passphrase/,
    ],
    [
      'a wrong passphrase',
      () => ({ cert: main.cert, key: encrypted(main.key, 'secret'), passphrase: 'Secret' }),
      /tls\.passphrase does not open tls\.key/,
    ],
    [
      'a wrong passphrase of a name',
      () => ({
        ...main,
        sni: { 'x.y': { cert: main.cert, key: encrypted(main.key, 'secret'), passphrase: 'no' } },
      }),
      /tls\.sni\['x\.y'\]\.passphrase does not open/,
    ],
    [
      'an authority that is none',
      () => ({ ...main, ca: file('nonsense', 'nonsense') }),
      /tls\.ca .* is no certificate/,
    ],
    [
      'a key the engine does not know',
      () => certificate('ed448.test', ['ed448']),
      /the engine does not take tls\.cert and tls\.key, which Node does/,
    ],
    [
      'a key of a name the engine does not know',
      () => ({ ...main, sni: { 'x.y': certificate('ed448.test', ['ed448']) } }),
      /the engine does not take tls\.sni\['x\.y'\]\.cert/,
    ],
    [
      'an encryption the engine does not know',
      () => ({ cert: main.cert, key: encrypted(main.key, 'secret', '-scrypt'), passphrase: 'secret' }),
      /the engine does not take .* not scrypt/,
    ],
    [
      'no object',
      () => 'cert',
      /OFFLOOP_BAD_OPTION runServer: option tls is a string that will not do; allowed: an object with cert and key/,
    ],
    ['no cert', () => ({ key: main.key }), /option tls\.cert is missing; allowed: the path/],
    ['a number for a key', () => ({ ...main, key: 1 }), /option tls\.key is a number that will not do/],
    [
      'an unknown option',
      () => ({ ...main, ciphers: 'x' }),
      /there is no option tls\.ciphers; allowed: cert, key/,
    ],
    [
      'an old version',
      () => ({ ...main, minVersion: 'TLSv1' }),
      /option tls\.minVersion .* 'TLSv1\.2' or 'TLSv1\.3'/,
    ],
    ['an empty passphrase', () => ({ ...main, passphrase: '' }), /option tls\.passphrase/],
    ['an array of names', () => ({ ...main, sni: [] }), /option tls\.sni is an array that will not do/],
    ['a name that is none', () => ({ ...main, sni: { 'a b': main } }), /tls\.sni\['a b'\] is no name/],
    [
      'a name twice',
      () => ({ ...main, sni: { 'a.b': main, 'A.B': main } }),
      /tls\.sni\['A\.B'\] is no name, or is there twice/,
    ],
    [
      'a name without key',
      () => ({ ...main, sni: { 'a.b': { cert: main.cert } } }),
      /option tls\.sni\['a\.b'\]\.key is missing/,
    ],
  ];
  it.each(cases)('%s', async (_, tls, message) => {
    const before = leftovers();
    const given = tls();
    const said = await failure(runServer(fixture('http/slow.mjs'), { ...QUIET, tls: given as never }));
    expect(said).toMatch(message);
    const secret = (given as { passphrase?: string }).passphrase;
    if (secret) expect(said).not.toContain(secret);
    expect(said).not.toContain(readFileSync(main.key, 'utf8').split('\n')[1]);
    expect(leftovers()).toEqual(before);
  });
});
