import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { curl, curlIsHere } from './support/curl.js';
import { type Program, startProgram } from './support/program.js';
import { connect } from './support/socket.js';

/** A picture of one colour. `rows`: only so many are really there. */
function png(width: number, height: number, rows = height): Buffer<ArrayBuffer> {
  const chunk = (type: string, data: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(data.length, 0);
    frame.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
  };
  const head = Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0]);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  const pixels = Buffer.alloc(rows * (1 + 3 * width), 0);
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', head),
    chunk('IDAT', deflateSync(pixels)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

describe('the examples', () => {
  let example: Program | undefined;
  afterEach(async () => {
    await example?.kill();
    example = undefined;
  });

  async function start(name: string, servers = 1, env: Record<string, string> = {}): Promise<Program> {
    example = await startProgram(`examples/${name}/server.js`, { PORT: '0', ...env }, servers);
    return example;
  }

  it('hello says hello, and stops with exit code 0', async () => {
    const { urls, stop } = await start('hello');
    const answer = await fetch(`${urls[0]}/there`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toBe('text/plain; charset=utf-8');
    expect(await answer.text()).toBe('Hello from /there\n');
    expect(await stop()).toBe(0);
  });

  it('json-api creates, lists, reads and deletes notes', async () => {
    const { urls, stop } = await start('json-api');
    const notes = String(urls[0]);
    expect(await (await fetch(notes)).json()).toEqual([]);

    const created = await fetch(notes, { method: 'POST', body: JSON.stringify({ text: 'milk' }) });
    expect(created.status).toBe(201);
    expect(created.headers.get('location')).toBe('/notes/1');
    await created.body?.cancel();
    // Every request meets the same notes, since there is one worker.
    const lists = await Promise.all(Array.from({ length: 20 }, async () => (await fetch(notes)).json()));
    for (const list of lists) expect(list).toEqual([{ id: 1, text: 'milk' }]);
    expect(await (await fetch(`${notes}/1`)).json()).toEqual({ id: 1, text: 'milk' });

    expect((await fetch(`${notes}/1`, { method: 'DELETE' })).status).toBe(204);
    expect(await status(`${notes}/1`)).toBe(404);
    expect(await stop()).toBe(0);
  });

  it('json-api tells the client what was wrong with a request', async () => {
    const { urls, stop } = await start('json-api');
    const notes = String(urls[0]);
    expect(await status(notes, { method: 'POST', body: '{' })).toBe(400);
    expect(await status(notes, { method: 'POST', body: '{"text":1}' })).toBe(422);
    expect(await status(notes, { method: 'PUT', body: '{}' })).toBe(405);
    expect(await status(notes, { method: 'POST', body: 'x'.repeat(70_000) })).toBe(413);
    expect(await status(`${notes}/1/2`)).toBe(404);
    expect(await stop()).toBe(0);
  });

  it('cpu-bound derives a key, the same for the same password', async () => {
    const { urls, stop } = await start('cpu-bound');
    const [one, two] = await Promise.all([derive(urls[0]), derive(urls[0])]);
    expect(one.key).toMatch(/^[0-9a-f]{64}$/);
    expect(two.key).toBe(one.key);
    expect(one.ms).toBeGreaterThan(0);
    expect(await status(new URL('/', urls[0]).href)).toBe(400);
    expect(await stop()).toBe(0);
  });

  it('inline-and-pooled computes on workers, and answers for its health while they do', async () => {
    const { urls, stop } = await start('inline-and-pooled');
    expect(await (await fetch(`${urls[0]}/fib/20`)).json()).toEqual({ n: 20, fib: 6765 });
    expect(await status(`${urls[0]}/fib/many`)).toBe(400);
    expect(await status(`${urls[0]}/elsewhere`)).toBe(404);

    let done = false;
    const slow = Array.from({ length: 4 }, () => fetch(`${urls[0]}/fib/36`).then((answer) => answer.json()));
    const all = Promise.all(slow).finally(() => {
      done = true;
    });
    let busy = 0;
    while (busy === 0 && !done) {
      const health = (await (await fetch(`${urls[0]}/health`)).json()) as { ok: boolean; busy: number };
      expect(health.ok).toBe(true);
      busy = health.busy;
    }
    expect(busy).toBeGreaterThan(0);
    for (const answer of await all) expect(answer).toEqual({ n: 36, fib: 14_930_352 });
    expect(await stop()).toBe(0);
  });

  it('hono-app answers, streams and hashes what it is sent', async () => {
    const { urls, stop } = await start('hono-app');
    expect(await (await fetch(`${urls[0]}/hello/you`)).json()).toEqual({ hello: 'you' });
    expect(await (await fetch(`${urls[0]}/count`)).text()).toBe('1\n2\n3\n4\n5\n');
    const body = new Uint8Array(3_000_000);
    const sha = createHash('sha256').update(body).digest('hex');
    expect(await (await fetch(`${urls[0]}/sha256`, { method: 'POST', body })).text()).toBe(`${sha}\n`);
    expect(await status(`${urls[0]}/nowhere`)).toBe(404);
    expect(await stop()).toBe(0);
  });

  it('express-app shows a form, and registers who fills it in', async () => {
    const { urls, stop } = await start('express-app');
    expect(await (await fetch(String(urls[0]))).text()).toContain('<form method="post" action="/register">');
    const register = (form: Record<string, string>): Promise<Response> =>
      fetch(`${urls[0]}/register`, { method: 'POST', body: new URLSearchParams(form) });
    const answer = await register({ name: 'ann', password: 'secret' });
    expect(answer.headers.getSetCookie()).toEqual(['name=ann; Path=/; HttpOnly']);
    expect(await answer.json()).toMatchObject({ name: 'ann', key: expect.stringMatching(/^[0-9a-f]{64}$/) });
    expect((await register({ name: 'ann' })).status).toBe(422);
    expect(await stop()).toBe(0);
  });

  it('react-ssr sends a page, and its table when that has come', async () => {
    const { urls, stop } = await start('react-ssr');
    const answer = await fetch(`${urls[0]}/30`);
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    const reader = (answer.body as ReadableStream<Uint8Array>)
      .pipeThrough(new TextDecoderStream())
      .getReader();
    const first = (await reader.read()).value ?? '';
    expect(first).toContain('<h1>Seats</h1>');
    expect(first).not.toContain('<table>');
    let all = first;
    for (let next = await reader.read(); !next.done; next = await reader.read()) all += next.value;
    expect(all.match(/<tr>/g)).toHaveLength(30);
    expect(all.endsWith('</body></html>')).toBe(true);
    expect(await status(`${urls[0]}/many`)).toBe(404);
    expect(await stop()).toBe(0);
  });

  it('shared-pool answers on two ports from the same few threads', async () => {
    const { urls, stop } = await start('shared-pool', 2);
    const threads = new Set<string>();
    for (const url of urls) {
      const text = await (await fetch(url)).text();
      const [, port, thread] = /^port (\d+), answered on thread (\d+)\n$/.exec(text) ?? [];
      expect(port).toBe(new URL(url).port);
      threads.add(String(thread));
    }
    expect(threads.size).toBeLessThanOrEqual(2);
    expect(await stop()).toBe(0);
  });

  it('image-resize makes a picture smaller, and refuses what is none', async () => {
    const { urls, stop } = await start('image-resize');
    const post = (query: string, body: Uint8Array<ArrayBuffer>): Promise<Response> =>
      fetch(`${urls[0]}/?${query}`, { method: 'POST', body });
    const answer = await post('width=50', png(200, 120));
    expect(answer.status, answer.statusText).toBe(200);
    expect(answer.headers.get('content-type')).toBe('image/png');
    const small = Buffer.from(await answer.arrayBuffer());
    expect([small.readUInt32BE(16), small.readUInt32BE(20)]).toEqual([50, 30]);

    const statuses = async (answers: Promise<Response>[]): Promise<number[]> =>
      (await Promise.all(answers)).map(({ status }) => status);
    const broken = png(20, 20);
    broken.fill(0xff, 50, broken.length - 20);
    expect(
      await statuses([
        post('width=0', png(20, 20)),
        post('width=10', Buffer.from('GIF89a, or so it says, at least')),
        post('width=10', png(100_000, 100_000, 1)),
        post('width=10', broken),
        post('width=10', png(20, 20)),
      ]),
    ).toEqual([422, 415, 413, 422, 200]);
    expect(await stop()).toBe(0);
  });

  it('static-site serves a folder, its index, and nothing else', async () => {
    const { urls, stop } = await start('static-site');
    const site = new URL(String(urls[0]));
    const page = await fetch(site);
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    const links = [...(await page.text()).matchAll(/(?:href|src)="([^"]+)"/g)].map(([, link]) =>
      String(link),
    );
    expect(links).toHaveLength(3);
    const types = links.map(async (link) => (await fetch(new URL(link, site))).headers.get('content-type'));
    expect(await Promise.all(types)).toEqual(['image/svg+xml', 'text/css; charset=utf-8', 'image/svg+xml']);
    const etag = String(page.headers.get('etag'));
    expect(await status(site.href, { headers: { 'if-none-match': etag } })).toBe(304);
    for (const path of ['nowhere', '..%2fhandler.js', '%2e%2e/handler.js', 'index.html/'])
      expect(await status(`${site.href}${path}`)).toBe(404);
    expect(await status(site.href, { method: 'POST', body: 'x' })).toBe(405);
    expect(await stop()).toBe(0);
  });

  it.runIf(curlIsHere)('big-download sends curl the rest of what it has begun with', async () => {
    const { urls, stop } = await start('big-download');
    const url = String(urls[0]);
    const whole = readFileSync(process.execPath);
    const folder = mkdtempSync(join(tmpdir(), 'offloop-download-'));
    try {
      const part = join(folder, 'node.bin');
      const have = Math.floor(whole.length * 0.7);
      writeFileSync(part, whole.subarray(0, have));
      expect(await curl('-C', '-', '-o', part, url)).toBe(`206 ${whole.length - have}`);
      expect(readFileSync(part).equals(whole)).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
    const head = await fetch(url, { method: 'HEAD' });
    expect(head.headers.get('content-disposition')).toBe('attachment; filename="node.bin"');
    expect(head.headers.get('content-length')).toBe(String(whole.length));
    expect(await stop()).toBe(0);
  });

  it('echo sends text back as text and bytes as bytes, to several clients at once', async () => {
    const { urls, stop } = await start('echo');
    expect(await status(String(urls[0]))).toBe(426);
    const clients = await Promise.all(Array.from({ length: 8 }, () => connect(String(urls[0]))));
    await Promise.all(
      clients.map(async ({ socket, next }, i) => {
        for (let n = 0; n < 20; n++) socket.send(`${i}: ${n} Grüße`);
        for (let n = 0; n < 20; n++) expect(await next()).toBe(`${i}: ${n} Grüße`);
        const answered = once(socket, 'message') as Promise<[Buffer, boolean]>;
        socket.send(Buffer.from([0, 255, 1]));
        const [data, isBinary] = await answered;
        expect([...data], String(isBinary)).toEqual([0, 255, 1]);
        expect(isBinary).toBe(true);
      }),
    );
    expect(await stop()).toBe(0);
    for (const { closed } of clients) expect(await closed).toEqual([1001, 'Server is shutting down']);
  });

  it('progress counts primes and tells how far it is', async () => {
    const { urls, stop } = await start('progress');
    const { origin } = new URL(String(urls[0]));
    expect(await status(`${origin}/`)).toBe(400);
    const answer = await fetch(`${origin}/?below=200000`);
    expect(answer.headers.get('content-type')).toBe('text/event-stream');
    const steps = Array.from({ length: 20 }, (_, i) => `event: progress\ndata: ${5 * (i + 1)}\n\n`);
    const done = 'event: done\ndata: {"below":200000,"primes":17984}\n\n';
    expect(await answer.text()).toBe(`: \n\n${steps.join('')}${done}`);

    // What is sent is there before all is done, and who leaves is noticed.
    const aborter = new AbortController();
    const slow = await fetch(`${origin}/?below=50000000`, { signal: aborter.signal });
    let text = '';
    for await (const chunk of slow.body as ReadableStream<Uint8Array>) {
      text += Buffer.from(chunk).toString();
      if (text.includes('data: 10\n')) break;
    }
    aborter.abort();
    expect(await stop()).toBe(0);
  });

  it('long-poll gives everybody who waits the next notification, and lets go of who has waited too long', async () => {
    const { urls, stop } = await start('long-poll', 1, { PATIENCE: '4000' });
    const url = String(urls[0]);
    expect(await status(url, { method: 'PUT', body: 'x' })).toBe(405);
    const polls = Array.from({ length: 6 }, async () => {
      const answer = await fetch(url);
      return `${answer.status} ${await answer.text()}`;
    });
    await new Promise((resolve) => setTimeout(resolve, 1500)); // until all of them wait
    expect(await status(url, { method: 'POST', body: 'lunch is ready' })).toBe(202);
    for (const answer of await Promise.all(polls)) expect(answer).toBe('200 lunch is ready');

    expect(await status(url)).toBe(204);
    expect(await stop()).toBe(0);
  });

  it('long-poll lets clients wait for longer than the engine would by itself', {
    timeout: 40_000,
  }, async () => {
    const { urls, stop } = await start('long-poll', 1, { PATIENCE: '13000' });
    // On a new connection, and on one that has been used.
    expect(await status(String(urls[0]), { method: 'PUT', body: 'x' })).toBe(405);
    expect(await Promise.all([status(String(urls[0])), status(String(urls[0]))])).toEqual([204, 204]);
    expect(await stop()).toBe(0);
  });

  it('download sends a table of several megabytes, to a slow reader too', async () => {
    const { urls, stop } = await start('download');
    const { origin } = new URL(String(urls[0]));
    expect(await status(`${origin}/`)).toBe(400);
    const answer = await fetch(`${origin}/?rows=300000`);
    expect(answer.headers.get('content-disposition')).toBe('attachment; filename="table.csv"');
    const lines: string[] = [];
    let rest = '';
    let size = 0;
    for await (const chunk of answer.body as ReadableStream<Uint8Array>) {
      if (size === 0) await new Promise((resolve) => setTimeout(resolve, 300));
      size += chunk.byteLength;
      const parts = (rest + Buffer.from(chunk).toString()).split('\n');
      rest = String(parts.pop());
      lines.push(...parts);
    }
    expect(size).toBeGreaterThan(4 * 1024 * 1024);
    expect(lines.length).toBe(300_001);
    expect(lines[0]).toBe('n,square root');
    expect(lines[4]).toBe('4,2');
    expect(lines.at(-1)).toBe(`300000,${Math.sqrt(300_000)}`);
    expect(await stop()).toBe(0);
  });

  it('csv-export sends a table of any size, and a small one as a whole', async () => {
    const { urls, stop } = await start('csv-export');
    const { origin } = new URL(String(urls[0]));
    expect(await status(`${origin}/`)).toBe(400);
    const small = await fetch(`${origin}/?rows=2`);
    expect(small.headers.get('content-length')).toBe('84');
    expect(await small.text()).toBe(
      'order,customer,amount\r\n1,"Grace ""Amazing"" Hopper",79.19\r\n2,"Lamarr, Hedy",158.38\r\n',
    );
    const large = await fetch(`${origin}/?rows=200000`);
    expect([large.headers.get('content-length'), large.headers.get('content-type')]).toEqual([
      null,
      'text/csv',
    ]);
    const lines = (await large.text()).split('\r\n');
    expect(lines.length).toBe(200_002);
    expect(lines[3]).toBe('3,Ada Lovelace,237.57');
    expect(lines.at(-2)).toBe('200000,"Lamarr, Hedy",0.00');

    // Who leaves in the middle leaves nothing behind.
    const aborter = new AbortController();
    const left = await fetch(`${origin}/?rows=100000000`, { signal: aborter.signal });
    await left.body?.getReader().read();
    aborter.abort();
    expect(await stop()).toBe(0);
  });

  it('ticker sends prices to sockets and streams, each those it asked for', async () => {
    const { urls, stop } = await start('ticker', 1, { EVERY: '20' });
    const { origin } = new URL(String(urls[0]));
    expect(await status(`${origin}/NOBODY`)).toBe(404);
    const sockets = await Promise.all(
      ['ACME', 'GLOBEX', 'ACME', 'GLOBEX'].map(async (symbol) => ({
        symbol,
        client: await connect(`${origin}/${symbol}`),
      })),
    );
    for (const { symbol, client } of sockets) {
      for (let i = 0; i < 3; i++) {
        const tick = JSON.parse(await client.next()) as { symbol: string; price: string };
        expect(tick.symbol).toBe(symbol);
        expect(tick.price).toMatch(/^\d+\.\d\d$/);
      }
    }
    const stream = await fetch(`${origin}/ACME`);
    let text = '';
    for await (const chunk of stream.body as ReadableStream<Uint8Array>) {
      text += Buffer.from(chunk).toString();
      if (text.split('data: ').length > 3) break;
    }
    expect(text).toMatch(/^: \n\n(data: \{"symbol":"ACME","price":"\d+\.\d\d"\}\n\n)+$/);
    expect(await stop()).toBe(0);
    for (const { client } of sockets) expect((await client.closed)[0]).toBe(1001);
  });

  it('survivor comes through crashes and reloads with what it has heard', async () => {
    const { urls, stop, signal } = await start('survivor');
    const { socket, next, closed } = await connect(String(urls[0]));
    const say = async (word: string): Promise<string> => {
      socket.send(word);
      return await next();
    };
    const worker = (answer: string): string => answer.split(' ', 2)[1] as string;
    expect(await next()).toBe('say something, or crash');
    const first = await say('one');
    expect(first).toMatch(/^worker \d+ has heard: one$/);
    socket.send('crash');
    const second = await say('two');
    expect(second).toMatch(/heard: one, two$/);
    expect(worker(second)).not.toBe(worker(first));
    signal('SIGHUP');
    let words = 'one, two';
    await expect
      .poll(
        async () => {
          const answer = await say('again');
          words = `${words}, again`.split(', ').slice(-5).join(', ');
          expect(answer).toContain(`heard: ${words}`);
          return worker(answer);
        },
        { interval: 20, timeout: 5000 },
      )
      .not.toBe(worker(second));
    // What was logged of the crash is an error.
    await expect(stop()).rejects.toThrow('a callback was lost with its worker');
    expect(await closed).toEqual([1001, 'Server is shutting down']);
  });

  it.runIf(curlIsHere)(
    'tenants have a handler for all subdomains, and one answer for all other hosts',
    async () => {
      const { urls, stop } = await start('tenants');
      const ask = async (host: string, path: string): Promise<string> =>
        curl('-H', `Host: ${host}`, urls[0] + path);
      expect(await ask('ada.example.com', '/notes')).toContain(
        '{"tenant":"ada","context":"","rest":"/notes"}',
      );
      expect(await ask('bob.example.com', '/api/v1')).toContain(
        '{"tenant":"bob","context":"/api","rest":"/v1"}',
      );
      expect(await ask('example.com', '/')).toBe('no such tenant\n421 15');
      expect(await stop()).toBe(0);
    },
  );

  it('dev shows errors as a page', async () => {
    const { urls, stop } = await start('dev', 1, { CI: 'true' });
    expect(await (await fetch(String(urls[0]))).text()).toContain('<h1>Hello</h1>');
    const page = await fetch(`${urls[0]}/oops`, { headers: { accept: 'text/html' } });
    expect([page.status, page.headers.get('content-type')]).toEqual([500, 'text/html; charset=utf-8']);
    expect(await page.text()).toContain('this is what the error page is for');
    await stop().catch((output: Error) => expect(output.message).toContain('GET /oops'));
  });

  it('game remembers its number and the guesses of each connection', async () => {
    const { urls, stop } = await start('game');
    expect(await status(String(urls[0]))).toBe(426);
    const play = async (): Promise<void> => {
      const { socket, next, closed } = await connect(String(urls[0]));
      expect(await next()).toBe('I think of a number from 1 to 100.');
      socket.send('forty');
      expect(await next()).toBe('That is no whole number.');
      let [low, high, guesses] = [1, 100, 0];
      for (;;) {
        const guess = Math.floor((low + high) / 2);
        socket.send(String(guess));
        guesses++;
        const answer = await next();
        if (answer === 'Higher.') low = guess + 1;
        else if (answer === 'Lower.') high = guess - 1;
        else {
          expect(answer).toBe(`Yes! You took ${guesses}.`);
          break;
        }
      }
      expect(guesses).toBeLessThanOrEqual(7);
      expect(await closed).toEqual([1000, 'guessed']);
    };
    await Promise.all(Array.from({ length: 6 }, play));
    expect(await stop()).toBe(0);
  });
});

async function status(url: string, init?: RequestInit): Promise<number> {
  const answer = await fetch(url, init);
  await answer.body?.cancel();
  return answer.status;
}

async function derive(url = ''): Promise<{ key: string; ms: number }> {
  return (await (await fetch(url)).json()) as { key: string; ms: number };
}
