import { asChannel, compose, type Handler, type HttpRequest } from 'offloop/handlers';
import { derive, jsonBody, jsonResponse, type ParamRecord, params } from 'offloop/middleware';
import { inject } from 'offloop/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, type RawResponse, WAYS_AND_BODIES } from './support/http-raw.js';
import { fixture, serve, startServer, type TestServer } from './support/server.js';

describe.each(WAYS_AND_BODIES)('middleware around $way', ({ dispatch, streamBody }) => {
  let test: TestServer;
  beforeAll(async () => {
    test = await startServer(fixture('middleware/params.mjs'), {
      dispatch,
      streamBody,
      ...(dispatch && { nMax: 1 }),
    });
  });
  afterAll(() => test.stop());

  const post = async (path: string, body: string, type?: string): Promise<RawResponse> => {
    const client = await RawClient.open(test.port);
    const headers = type === undefined ? '' : `Content-Type: ${type}\r\n`;
    client.send(
      `POST ${path} HTTP/1.1\r\nHost: a\r\n${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n`,
    );
    client.send(Buffer.from(body));
    return client.response();
  };
  const get = async (path: string): Promise<RawResponse> =>
    (await RawClient.open(test.port)).ask('GET', path);
  const seen = (response: RawResponse): { query: ParamRecord; form: ParamRecord; all: ParamRecord } => {
    expect(response.status, response.body.toString()).toBe(200);
    const { polluted, ...rest } = JSON.parse(response.body.toString());
    expect(polluted).toBe(null);
    return rest;
  };
  const FORM = 'application/x-www-form-urlencoded';

  describe('that reads parameters', () => {
    it('has those of the query', async () => {
      expect(seen(await get('/flat?a=1&b=x+y%26&a=2&c&=empty')).query).toEqual({
        a: ['1', '2'],
        b: 'x y&',
        c: '',
        '': 'empty',
      });
      expect(seen(await get('/flat')).all).toEqual({});
      expect(seen(await get('/flat?')).all).toEqual({});
    });

    it('has those of a form, and lets them win', async () => {
      expect(seen(await post('/flat?a=query&b=2', 'a=form&gr%C3%BC%C3%9Fe=%E2%82%AC', FORM))).toEqual({
        query: { a: 'query', b: '2' },
        form: { a: 'form', grüße: '€' },
        all: { a: 'form', b: '2', grüße: '€' },
      });
      expect(seen(await post('/flat', 'a=1', `${FORM.toUpperCase()}; charset="UTF-8"`)).form).toEqual({
        a: '1',
      });
      expect(seen(await post('/flat', '', FORM)).form).toEqual({});
    });

    it('leaves other bodies alone', async () => {
      expect(seen(await post('/flat', 'a=1', 'text/plain')).form).toEqual({});
      expect(seen(await post('/flat', 'a=1')).form).toEqual({});
    });

    it('refuses a form in another charset than UTF-8', async () => {
      expect((await post('/flat', 'a=1', `${FORM}; charset=iso-8859-1`)).status).toBe(415);
    });

    it('keeps what is no percent-encoding as it came, and shows what is no UTF-8 as U+FFFD', async () => {
      expect(seen(await get('/flat?a=%zz&b=%&c=%E0%A4&%f=1')).query).toEqual({
        a: '%zz',
        b: '%',
        c: '�',
        '%f': '1',
      });
      expect(seen(await get('/nested?a=%zz&b=%&c=%E0%A4')).query).toEqual({ a: '%zz', b: '%', c: '%E0%A4' });
    });

    it.each(['/flat', '/nested'])(
      'takes names that objects have for names like any other: %s',
      async (path) => {
        const names = 'constructor=1&toString=2&hasOwnProperty=3';
        expect(seen(await get(`${path}?${names}`)).query).toEqual(
          Object.assign(Object.create(null), { constructor: '1', toString: '2', hasOwnProperty: '3' }),
        );
        for (const attack of ['__proto__=1', '__proto__[polluted]=1', 'a[__proto__][polluted]=1'])
          seen(await get(`${path}?${encodeURI(attack)}`));
        for (const attack of ['constructor[prototype][polluted]=1', '__proto__.polluted=1'])
          seen(await post(path, attack, FORM));
      },
    );

    it('gives records without a prototype', async () => {
      expect(JSON.parse((await post('/bare?a[b]=1', 'c=1', FORM)).body.toString())).toEqual([
        true,
        true,
        true,
        true,
      ]);
    });

    it('refuses more parameters than its limit with a 400', async () => {
      expect((await get('/small?a&b&c')).status).toBe(200);
      expect((await get('/small?a&b&c&d')).status).toBe(400);
      expect((await get('/small?&&&')).status).toBe(400);
      expect((await post('/small', 'a&b&c&d', FORM)).status).toBe(400);
      const many = (n: number): string => Array.from({ length: n }, (_, i) => `p${i}=${i}`).join('&');
      expect(Object.keys(seen(await post('/flat', many(1000), FORM)).form)).toHaveLength(1000);
      const refused = await post('/flat', many(1001), FORM);
      expect([refused.status, refused.body.toString()]).toEqual([400, 'more than 1000 parameters']);
      expect((await post('/nested', many(51), FORM)).status).toBe(400);
    });

    it('refuses a form of more bytes than its limit with a 413', async () => {
      expect((await post('/small', `a=${'x'.repeat(18)}`, FORM)).status).toBe(200);
      expect((await post('/small', `a=${'x'.repeat(19)}`, FORM)).status).toBe(413);
    });

    it('reads brackets, if it is told to', async () => {
      expect(seen(await get('/nested?a[b][c]=1&a[b][d]=2&e[]=3&e[]=4&f=5')).query).toEqual({
        a: { b: { c: '1', d: '2' } },
        e: ['3', '4'],
        f: '5',
      });
      expect(seen(await get('/flat?a[b]=1')).query).toEqual({ 'a[b]': '1' });
    });

    it('refuses brackets too deep and arrays too long with a 400', async () => {
      expect((await get('/shallow?a[b]=1')).status).toBe(200);
      expect((await get('/shallow?a[b][c]=1')).status).toBe(400);
      expect((await get('/shallow?a[]=1&a[]=2')).status).toBe(200);
      expect((await get('/shallow?a[]=1&a[]=2&a[]=3')).status).toBe(400);
      expect((await get('/nested?a[999999999]=1')).status).toBe(400);
      expect((await post('/nested', `a${'[b]'.repeat(100_000)}=1`, FORM)).status).toBe(400);
      expect((await post('/nested', '['.repeat(300_000), FORM)).status).toBe(200);
    });

    it('lets a handler that answers at once do so', async () => {
      expect((await get('/sync?a=1')).body.toString()).toBe('1');
    });
  });

  describe('that reads JSON', () => {
    const JSON_TYPE = 'application/json';
    const sees = async (path: string, body: string, type: string): Promise<unknown> =>
      JSON.parse((await post(path, body, type)).body.toString());

    it('has the parsed body', async () => {
      for (const type of [JSON_TYPE, 'application/vnd.api+json; charset=utf-8', 'APPLICATION/JSON'])
        expect(await sees('/json', '{"a":[1,"ü"]}', type)).toEqual({ body: { a: [1, 'ü'] }, type: 'object' });
      expect(await sees('/json', 'null', JSON_TYPE)).toEqual({ body: null, type: 'object' });
      expect(await sees('/revived', '{"n":2}', JSON_TYPE)).toEqual({ n: 4 });
    });

    it('has undefined where there is none', async () => {
      const none = { body: null, type: 'undefined' };
      expect(JSON.parse((await get('/json')).body.toString())).toEqual(none);
      expect(await sees('/json', '', JSON_TYPE)).toEqual(none);
      expect(await sees('/json', '{"a":1}', 'text/plain')).toEqual(none);
      expect(await sees('/json', '{"a":1}', 'application/jsonp')).toEqual(none);
      expect(await sees('/json', '{"a":1}', 'text/json')).toEqual(none);
    });

    it.each(['{', '{"a":1,}', 'nope', '\u0000', '{"a":1}x', '{"__proto__":{"polluted":1}}'])(
      'answers 400 to what is not JSON: %j',
      async (body) => {
        const answer = await post('/json', body, JSON_TYPE);
        expect([answer.status, answer.body.toString()]).toEqual([400, 'Malformed JSON in request body.']);
      },
    );

    it('finds a member that would change prototypes, however it is written and however deep', async () => {
      for (const name of ['__proto__', '\\u005f_proto__', '__\\u0070roto__'])
        expect((await post('/json', `[[{"a":{"${name}":1}}]]`, JSON_TYPE)).status).toBe(400);
      expect((await post('/json', '{"a":"__proto__","b":"\\u00fc"}', JSON_TYPE)).status).toBe(200);
      const deep = `${'['.repeat(50_000)}"__proto__"${']'.repeat(50_000)}`;
      expect((await post('/strict', deep, JSON_TYPE)).status).not.toBe(413);
      expect((await get('/json')).status).toBe(200);
    });

    it('answers 413 to a body over its limit, and 415 to another charset', async () => {
      expect((await post('/json', `"${'x'.repeat(98)}"`, JSON_TYPE)).status).toBe(200);
      expect((await post('/json', `"${'x'.repeat(99)}"`, JSON_TYPE)).status).toBe(413);
      expect((await post('/json', '{}', 'application/json; charset=utf-16')).status).toBe(415);
    });

    it('answers 415 to what is not JSON, if it is told to', async () => {
      const refused = await post('/strict', 'a=1', FORM);
      expect([refused.status, refused.header('accept')]).toEqual([415, 'application/json']);
      expect((await post('/strict', '1', JSON_TYPE)).status).toBe(200);
      expect((await get('/strict')).body.toString()).toBe('"none"');
    });

    it('puts the members into the parameters, if it is told to', async () => {
      expect(seen(await post('/merged?a=1&b=2', '{"a":3,"constructor":4}', JSON_TYPE)).all).toEqual(
        Object.assign(Object.create(null), { a: 3, b: '2', constructor: 4 }),
      );
      expect(seen(await post('/merged?a=1', '[1]', JSON_TYPE)).all).toEqual({ a: '1' });
    });
  });

  describe('that writes JSON', () => {
    const TYPE = 'application/json; charset=utf-8';
    it.each([
      ['object', 201, '{"a":[1,null],"b":"5"}', TYPE],
      ['array', 200, '["a","b"]', TYPE],
      ['number', 200, '42', TYPE],
      ['date', 200, '"1970-01-01T00:00:00.000Z"', TYPE],
      ['typed', 200, '{"title":"no"}', 'application/problem+json'],
      ['map', 200, '{}', 'application/x+json'],
      ['instance', 201, '{"of":"a class"}', TYPE],
      ['later', 200, '{"later":true}', TYPE],
      ['string', 200, 'as it is', undefined],
      ['bytes', 200, 'hi', undefined],
      ['generator', 200, 'of pieces', undefined],
      ['web', 202, '{"web":true}', 'application/json'],
      ['nothing', 404, '', undefined],
    ])('sends a body made as %s', async (name, status, body, type) => {
      const answer = await get(`/out?${name}`);
      expect([answer.status, answer.body.toString(), answer.header('content-type')]).toEqual([
        status,
        body,
        type,
      ]);
      if (name === 'object') expect(answer.header('x-a')).toBe('b');
      if (name === 'instance') expect(answer.header('x-inherited')).toBe('yes');
    });

    it('fails as a handler fails for what JSON has no word for', async () => {
      expect((await get('/out?circle')).status).toBe(500);
    });
  });
});

describe('the options', () => {
  it.each([
    ['params: option limit is 0 (number)', () => params({ limit: 0 })],
    ['params: option nested is "yes" (string)', () => params({ nested: 'yes' as never })],
    ['params: there is no option deep (its value was 1 (number))', () => params({ deep: 1 } as never)],
    ['params: option object is null', () => params(null as never)],
    ['jsonBody: option limit is -1 (number)', () => jsonBody({ limit: -1 })],
    ['jsonBody: option reviver is {} (object)', () => jsonBody({ reviver: {} as never })],
    ['jsonResponse: option replacer is 1 (number)', () => jsonResponse({ replacer: 1 as never })],
  ])('are refused with their value and its type: %s', (message, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_OPTION' }));
    expect(make).toThrow(message);
  });
});

describe('the types', () => {
  it('tell a handler what the middleware around it adds and accepts', () => {
    const handler: Handler = compose(params(), jsonBody(), jsonResponse(), (req) => {
      const all: ParamRecord = req.params;
      const body: unknown = req.jsonBody;
      return { body: { all, body, path: req.path } };
    });
    const plain = compose((req) => ({ body: req.path }));
    // @ts-expect-error without jsonResponse an object is no body
    const bad: Handler = compose(params(), (req) => ({ body: { all: req.params } }));
    // @ts-expect-error nothing has added params
    const worse: Handler = compose(jsonBody(), (req: HttpRequest) => ({ body: String(req.params) }));
    expect([handler, plain, bad, worse].every((made) => typeof made === 'function')).toBe(true);
  });
});

describe('a derived request', () => {
  const seenBy = async (make: (req: HttpRequest) => HttpRequest): Promise<Record<string, unknown>> => {
    let seen: Record<string, unknown> = {};
    const handler = (req: HttpRequest) => {
      const inner = make(req) as HttpRequest & Record<string, unknown>;
      const { method, path, headers, signal, contentLength } = inner;
      seen = {
        method,
        path,
        host: headers['host'],
        signal,
        contentLength,
        a: inner['a'],
        b: inner['b'],
        outer: req.method,
      };
      return asChannel(inner, { onOpen: (channel) => channel.send('from the inner one') });
    };
    const { url } = await serve(handler, { dispatch: false });
    const answer = await fetch(`${url}/x`, { method: 'POST', body: 'four' });
    expect(await answer.text()).toBe('from the inner one');
    return seen;
  };

  it.each<[string, (req: HttpRequest) => HttpRequest]>([
    ['with fields', (req) => derive(derive(req, { a: 1 }), { b: 2 })],
    [
      'with fields and replaced ones',
      (req) => derive(derive(req, { a: 0, method: 'GET' }), { a: 1, b: 2, method: 'POST' }),
    ],
    [
      'with getters',
      (req) =>
        derive(
          derive(req, {
            get a() {
              return 1;
            },
          }),
          {
            get b() {
              return (this as { a?: number }).a === undefined ? 2 : 2;
            },
          },
        ),
    ],
    [
      'from one that a handler has derived by hand',
      (req) => derive(Object.create(req, { a: { value: 1 } }) as HttpRequest, { b: 2 }),
    ],
    [
      'by hand from one of ours',
      (req) => Object.create(derive(req, { a: 1 }), { b: { value: 2 } }) as HttpRequest,
    ],
  ])('is the request, and more: %s', async (_, make) => {
    const seen = await seenBy(make);
    expect(seen).toMatchObject({ method: 'POST', path: '/x', contentLength: 4, a: 1, b: 2, outer: 'POST' });
    expect(seen['signal']).toBeInstanceOf(AbortSignal);
    expect(seen['host']).toMatch(/^127/);
  });

  it('keeps a getter from being asked by who only passes it on', async () => {
    let asked = 0;
    const counting =
      (handler: Handler): Handler =>
      (req) =>
        handler(
          derive(req, {
            get costly() {
              return ++asked;
            },
          }),
        );
    const handler = compose(counting, params(), jsonBody(), (req) => ({
      body: `${(req as { costly?: number }).costly}`,
    }));
    const passing = compose(counting, params(), jsonBody(), () => ({ body: `${asked}` }));
    expect(await (await inject(handler)).text()).toBe('1');
    expect(await (await inject(passing)).text()).toBe('1');
  });
});

describe('a body that comes bit by bit', () => {
  /** A request whose length is not known, and whose body comes in pieces of one byte. */
  const request = (
    type: string,
    text: string,
  ): { req: HttpRequest; left: () => number; cancelled: () => boolean } => {
    const bytes = Buffer.from(text);
    let at = 0;
    let cancelled = false;
    const body = new ReadableStream({
      pull(controller) {
        if (at === bytes.length) controller.close();
        else controller.enqueue(bytes.subarray(at, ++at));
      },
      cancel() {
        cancelled = true;
      },
    });
    const req = {
      method: 'POST',
      path: '/',
      query: null,
      headers: {},
      contentType: type,
      contentLength: null,
      body,
    };
    return { req: req as unknown as HttpRequest, left: () => bytes.length - at, cancelled: () => cancelled };
  };
  const FORM = 'application/x-www-form-urlencoded';

  it('is read as a whole', async () => {
    const form = compose(params(), (req) => ({ body: String(req.formParams['grüße']) }));
    expect(await form(request(FORM, 'gr%C3%BC%C3%9Fe=ü€𝄞').req)).toEqual({ body: 'ü€𝄞' });
    const body = compose(jsonBody(), (req) => ({ body: JSON.stringify(req.jsonBody) }));
    expect(await body(request('application/json', '{"a":"ü€𝄞"}').req)).toEqual({ body: '{"a":"ü€𝄞"}' });
    expect(await body(request('application/json', '').req)).toEqual({ body: undefined });
  });

  it('is let go of when it grows too large', async () => {
    for (const [type, limited] of [
      [FORM, compose(params({ formLimit: 100 }), () => null)],
      ['application/json', compose(jsonBody({ limit: 100 }), () => null)],
    ] as const) {
      const { req, left, cancelled } = request(type, 'x'.repeat(10_000));
      expect(await limited(req)).toMatchObject({ status: 413 });
      expect([cancelled(), left() > 9000]).toEqual([true, true]);
    }
  });
});
