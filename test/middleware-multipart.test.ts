import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { compose, type HttpRequest } from 'offloop/handlers';
import { multipart } from 'offloop/middleware';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, type RawResponse, WAYS_AND_BODIES } from './support/http-raw.js';
import { fixture, startServer, type TestServer } from './support/server.js';

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

interface Seen {
  files: {
    name: string;
    filename: string;
    contentType: string;
    size: number;
    hash?: string;
    value?: unknown;
  }[];
  form: Record<string, unknown>;
  all: Record<string, unknown>;
  polluted: unknown;
}

// One for all: the process loads the module of an inline handler only once, and that reads the variable then.
const folder = mkdtempSync(join(tmpdir(), 'offloop-uploads-'));
process.env['UPLOAD_FOLDER'] = folder;
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(WAYS_AND_BODIES)('multipart around $way', ({ dispatch, streamBody }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(fixture('middleware/uploads.mjs'), {
      dispatch,
      streamBody,
      ...(dispatch && { nMax: 1 }),
    });
  });
  afterAll(() => test.stop());

  const send = (path: string, form: FormData): Promise<Response> =>
    fetch(`${test.url}${path}`, { method: 'POST', body: form });
  const seen = async (answer: Response): Promise<Seen> => {
    const body = await answer.text();
    expect(answer.status, body).toBe(200);
    return JSON.parse(body) as Seen;
  };
  const formOf = (...entries: [string, string | Blob, string?][]): FormData => {
    const form = new FormData();
    for (const [name, value, filename] of entries) {
      if (typeof value === 'string') form.append(name, value);
      else form.append(name, value, filename);
    }
    return form;
  };
  /** Send exactly these bytes as the body. */
  const raw = async (
    path: string,
    body: string | Buffer,
    type = 'multipart/form-data; boundary=B',
  ): Promise<RawResponse> => {
    const client = await RawClient.open(test.port);
    const bytes = Buffer.from(body);
    client.send(
      `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Type: ${type}\r\nContent-Length: ${bytes.length}\r\n\r\n`,
    );
    client.send(bytes);
    return client.response();
  };
  const part = (disposition: string, body = 'x', ...headers: string[]): string =>
    `--B\r\n${[`Content-Disposition: ${disposition}`, ...headers].join('\r\n')}\r\n\r\n${body}\r\n`;
  const nothingLeft = (): Promise<void> => expect.poll(() => readdirSync(folder)).toEqual([]);

  it('has fields and files, which lie in a folder of their own until the answer is made', async () => {
    const large = randomBytes(1_000_000);
    const form = formOf(
      ['a', '1'],
      ['grüße', '€'],
      ['a', '2'],
      ['file', new Blob([large], { type: 'image/png' }), 'bild ü.png'],
      ['file', new Blob(['small']), 'blob'],
    );
    const { files, form: fields, all } = await seen(await send('/upload/seen?q=3&a=0', form));
    expect(files).toEqual([
      {
        name: 'file',
        filename: 'bild ü.png',
        contentType: 'image/png',
        size: 1_000_000,
        hash: hash(large),
        inFolder: true,
        mode: 0o600,
      },
      {
        name: 'file',
        filename: 'blob',
        contentType: 'application/octet-stream',
        size: 5,
        hash: hash(Buffer.from('small')),
        inFolder: true,
        mode: 0o600,
      },
    ]);
    expect(fields).toEqual({ a: ['1', '2'], grüße: '€' });
    expect(all).toEqual({ q: '3', a: ['1', '2'], grüße: '€' });
    await nothingLeft();
  });

  it('is nothing to other requests', async () => {
    const plain = await fetch(`${test.url}/upload/seen?a=1`);
    expect(await seen(plain)).toMatchObject({ files: [], form: {}, all: { a: '1' } });
    const form = await fetch(`${test.url}/upload/seen`, {
      method: 'POST',
      body: new URLSearchParams({ b: '2' }),
    });
    expect(await seen(form)).toMatchObject({ files: [], form: { b: '2' }, all: { b: '2' } });
  });

  it('puts files into the system’s folder by default', async () => {
    expect(await (await send('/where', formOf(['f', new Blob(['x']), 'x']))).text()).toBe(tmpdir());
  });

  it('leaves out a file input with nothing chosen', async () => {
    const body = `${part('form-data; name="f"; filename=""', '', 'Content-Type: application/octet-stream')}--B--\r\n`;
    expect(JSON.parse((await raw('/upload/seen', body)).body.toString())).toMatchObject({
      files: [],
      form: {},
    });
  });

  it.each(['text', 'bytes', 'nothing', 'throws', 'channel'])(
    'removes its files behind an answer that is there: %s',
    async (name) => {
      const answer = await send(`/upload/${name}`, formOf(['f', new Blob(['the file']), 'x']));
      expect(answer.status).toBe({ nothing: 404, throws: 500 }[name] ?? 200);
      expect(await answer.text()).toBe(
        { text: 'done', bytes: 'hi', channel: '1', throws: 'Internal Server Error' }[name] ?? '',
      );
      await nothingLeft();
    },
  );

  it.each(['stream', 'file', 'generator', 'web'])(
    'keeps them while an answer is read from them: %s',
    async (name) => {
      const bytes = randomBytes(300_000);
      const answer = await send(`/upload/${name}`, formOf(['f', new Blob([bytes]), 'x']));
      expect(answer.status).toBe(200);
      if (name === 'file') expect(answer.headers.get('content-type')).toBe('text/x-back');
      if (name === 'web') expect(answer.headers.get('x-web')).toBe('yes');
      expect(hash(Buffer.from(await answer.arrayBuffer()))).toBe(hash(bytes));
      await nothingLeft();
    },
  );

  it('removes them when the client goes away while it is read', async () => {
    const client = await RawClient.open(test.port);
    const body = `${part('form-data; name="f"; filename="x"', 'x'.repeat(50_000))}--B--\r\n`;
    client.send(
      `POST /upload/endless HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    expect(await client.head()).toContain(' 200 ');
    client.reset();
    await nothingLeft();
  });

  it('answers 404 for one that the handler has moved away', async () => {
    expect((await send('/upload/gone', formOf(['f', new Blob(['x']), 'x']))).status).toBe(404);
    await nothingLeft();
  });

  it.each([
    ['too many fields', formOf(['a', '1'], ['b', '2'], ['c', '3'])],
    ['too large a field', formOf(['a', 'x'.repeat(11)])],
    ['too long a name', formOf(['x'.repeat(300), '1'])],
    [
      'too many files',
      formOf(['a', new Blob(['1']), 'a'], ['b', new Blob(['2']), 'b'], ['c', new Blob(['3']), 'c']),
    ],
    ['too large a file', formOf(['a', new Blob([randomBytes(101)]), 'a'])],
    [
      'too large a file among others',
      formOf(['a', new Blob(['1']), 'a'], ['b', new Blob([randomBytes(500_000)]), 'b']),
    ],
  ])('answers 413 for %s', async (_, form) => {
    expect((await send('/small/text', form)).status).toBe(413);
    await nothingLeft();
  });

  it('takes what is just within the limits', async () => {
    const form = formOf(
      ['a', 'x'.repeat(10)],
      ['b', '2'],
      ['c', new Blob([randomBytes(100)]), 'c'],
      ['d', new Blob(['2']), 'd'],
    );
    expect((await seen(await send('/small/seen', form))).files).toHaveLength(2);
    expect((await send('/none/text', formOf(['a', '1']))).status).toBe(200);
    expect((await send('/none/text', formOf(['a', new Blob(['1']), 'a']))).status).toBe(413);
  });

  it.each([
    ['no boundary', 'x', 'multipart/form-data'],
    ['an empty boundary', 'x', 'multipart/form-data; boundary='],
    ['nothing', '', undefined],
    ['no part', 'nonsense', undefined],
    ['a part that does not end', part('form-data; name="a"; filename="x"', 'x'.repeat(1000)), undefined],
    ['half a boundary', `${part('form-data; name="a"')}--B-`, undefined],
  ])('answers 400 for %s', async (_, body, type) => {
    const answer = await raw('/upload/text', body, type);
    expect(answer.status).toBe(400);
    await nothingLeft();
  });

  it.each([
    ['path', 'form-data; name="f"; filename="../../../../etc/passwd"'],
    ['Windows path', 'form-data; name="f"; filename="C:\\\\temp\\\\evil.txt"'],
    ['NUL', 'form-data; name="f"; filename="a\0b"'],
    ['slash', 'form-data; name="f"; filename="/"'],
    ['dots', 'form-data; name="f"; filename=".."'],
    ['quotes', 'form-data; name="f\\""; filename="\\"; x=\\""'],
    ['encoded path', 'form-data; name="f"; filename*=utf-8\'\'..%2F..%2Fevil'],
    ['bad encoding', 'form-data; name="f"; filename*=utf-8\'\'%zz%E0'],
    ['prototype', 'form-data; name="__proto__"; filename="constructor"'],
  ])('never goes by the name a client gives a file: %s', async (_, disposition) => {
    const answer = await raw('/upload/seen', `${part(disposition)}--B--\r\n`);
    expect([200, 400]).toContain(answer.status);
    if (answer.status === 200) {
      const { files, polluted } = JSON.parse(answer.body.toString()) as Seen;
      expect(polluted).toBe(null);
      for (const one of files) {
        expect(one).toMatchObject({ size: 1, inFolder: true });
        expect(one.filename).not.toMatch(/[/\\]/);
      }
    }
    await nothingLeft();
  });

  it('changes no prototype by the names of fields', async () => {
    const body = ['__proto__', 'constructor', '__proto__[polluted]', 'toString']
      .map((name) => part(`form-data; name="${name}"`))
      .join('');
    const { form, polluted } = JSON.parse(
      (await raw('/upload/seen', `${body}--B--\r\n`)).body.toString(),
    ) as Seen;
    expect(polluted).toBe(null);
    expect(Object.keys(form)).toEqual(expect.arrayContaining(['constructor', 'toString']));
  });

  it('survives heads without end, many parts, and parts within parts', async () => {
    const many = Array.from({ length: 3000 }, (_, i) => part(`form-data; name="p${i}"`)).join('');
    expect((await raw('/upload/text', `${many}--B--\r\n`)).status).toBe(413);
    const headers = Array.from({ length: 5000 }, (_, i) => `X-${i}: ${i}`);
    expect([200, 400, 413]).toContain(
      (await raw('/upload/text', `${part('form-data; name="a"', 'x', ...headers)}--B--\r\n`)).status,
    );
    const nested = part(
      'form-data; name="a"',
      '--C\r\n\r\nx\r\n--C--',
      'Content-Type: multipart/mixed; boundary=C',
    );
    expect((await raw('/upload/text', `${nested}--B--\r\n`)).status).toBe(200);
    const huge = `--B\r\nContent-Disposition: form-data; name="${'x'.repeat(200_000)}"\r\n\r\nx\r\n--B--\r\n`;
    expect([200, 400, 413]).toContain((await raw('/upload/text', huge)).status);
    expect((await send('/upload/text', formOf(['a', '1']))).status).toBe(200);
    await nothingLeft();
  });

  it('removes what it has when the client goes away in the middle', async () => {
    const client = await RawClient.open(test.port);
    client.send(
      'POST /upload/text HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=B\r\nContent-Length: 5000000\r\n\r\n',
    );
    client.send(part('form-data; name="f"; filename="x"', 'x'.repeat(100_000)));
    client.reset();
    expect((await send('/upload/text', formOf(['a', '1']))).status).toBe(200);
    await nothingLeft();
  });

  describe('with a sink', () => {
    const large = randomBytes(500_000);
    const form = (): FormData =>
      formOf(['a', '1'], ['f', new Blob([large]), 'x.bin'], ['b', '2'], ['g', new Blob(['small']), 'y']);

    it('gives it each file as a stream, and keeps what it makes of it', async () => {
      const { files, form: fields } = await seen(await send('/sink?hash', form()));
      expect(files).toEqual([
        {
          name: 'f',
          filename: 'x.bin',
          contentType: 'application/octet-stream',
          size: 500_000,
          value: hash(large),
        },
        {
          name: 'g',
          filename: 'y',
          contentType: 'application/octet-stream',
          size: 5,
          value: hash(Buffer.from('small')),
        },
      ]);
      expect(fields).toEqual({ a: '1', b: '2' });
    });

    it('reads over what it leaves unread', async () => {
      const { files, form: fields } = await seen(await send('/sink?ignores', form()));
      expect(files.map(({ value, size }) => [value, size])).toEqual([
        ['not read', 500_000],
        ['not read', 5],
      ]);
      expect(fields).toEqual({ a: '1', b: '2' });
    });

    it.each(['throws', 'rejects', 'destroys'])('fails when the sink fails: %s', async (name) => {
      expect((await send(`/sink?${name}`, form())).status).toBe(500);
      await expect
        .poll(() => String(test.errors.at(-1)?.error))
        .toMatch(/the sink (is full|of an upload has destroyed)/);
      expect((await seen(await send('/sink?hash', form()))).files).toHaveLength(2);
    });
  });
});

describe('a multipart body that comes bit by bit', () => {
  const folder = mkdtempSync(join(tmpdir(), 'offloop-bits-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const file = randomBytes(20_000).toString('base64');
  const text = `--B\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n${file}\r\n--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nü\r\n--B--\r\n`;

  /** A request whose body comes in small pieces, and goes wrong after `failAt` of them. */
  const request = (failAt = Number.POSITIVE_INFINITY): { req: HttpRequest; cancelled: () => boolean } => {
    const bytes = Buffer.from(text);
    let at = 0;
    let pieces = 0;
    let cancelled = false;
    const body = new ReadableStream({
      async pull(controller) {
        await turn();
        if (pieces++ >= failAt) controller.error(new Error('the client is gone'));
        else if (at >= bytes.length) controller.close();
        else controller.enqueue(bytes.subarray(at, at + 7));
        at += 7;
      },
      cancel() {
        cancelled = true;
      },
    });
    const req = {
      method: 'POST',
      headers: {},
      contentType: 'multipart/form-data; boundary=B',
      contentLength: null,
      body,
    };
    return { req: req as unknown as HttpRequest, cancelled: () => cancelled };
  };

  it('is read to its end', async () => {
    const handler = compose(multipart({ folder }), ({ files, formParams }) => ({
      body: `${files[0]?.size} ${readFileSync(String(files[0]?.path), 'utf8') === file} ${formParams['a']}`,
    }));
    expect(await handler(request().req)).toMatchObject({ body: `${file.length} true ü` });
    expect(readdirSync(folder)).toEqual([]);
  });

  it('leaves nothing behind when it breaks off', async () => {
    const handler = compose(multipart({ folder }), () => null);
    for (const failAt of [0, 1, 5, 1000]) {
      await expect(handler(request(failAt).req)).rejects.toThrow('the client is gone');
      expect(readdirSync(folder)).toEqual([]);
    }
  });

  it('is let go of when a limit is hit or the sink fails', async () => {
    const limited = request();
    expect(await compose(multipart({ folder, fileSize: 100 }), () => null)(limited.req)).toMatchObject({
      status: 413,
    });
    expect([limited.cancelled(), readdirSync(folder)]).toEqual([true, []]);
    const failing = request();
    const sink = (): never => {
      throw new Error('the sink is full');
    };
    await expect(compose(multipart({ sink }), () => null)(failing.req)).rejects.toThrow('the sink is full');
    expect(failing.cancelled()).toBe(true);
  });
});

describe('the options', () => {
  it.each([
    ['multipart: option folder is "" (string)', () => multipart({ folder: '' })],
    ['multipart: option sink is {} (object)', () => multipart({ sink: {} as never })],
    ['multipart: option fields is -1 (number)', () => multipart({ fields: -1 })],
    [
      'multipart: option fileSize is Infinity (number)',
      () => multipart({ fileSize: Number.POSITIVE_INFINITY }),
    ],
    ['multipart: there is no option limits', () => multipart({ limits: {} } as never)],
  ])('are refused with their value and its type: %s', (message, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_OPTION' }));
    expect(make).toThrow(message);
  });
});
