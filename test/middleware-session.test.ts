import { createHash, createHmac } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runServer } from 'offloop';
import { compose, json } from 'offloop/handlers';
import { cookies, memoryStore, type Session, type SessionStore, session } from 'offloop/middleware';
import { inject } from 'offloop/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RawClient, type RawResponse, WAYS } from './support/http-raw.js';
import { fixture, serve, startServer, type TestServer } from './support/server.js';

const NEW = 'n'.repeat(32);

describe.each(WAYS)('around $way', ({ dispatch }) => {
  let test: TestServer;
  const folder = mkdtempSync(join(tmpdir(), 'offloop-sessions-'));
  beforeAll(async () => {
    process.env['SESSION_FOLDER'] = folder;
    // Two workers, so that what a worker keeps for itself would show.
    test = await startServer(fixture('middleware/sessions.mjs'), {
      dispatch,
      ...(dispatch && { nMin: 2, nMax: 2 }),
    });
  });
  afterAll(async () => {
    await test.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const get = async (path: string, cookie?: string): Promise<RawResponse> =>
    (await RawClient.open(test.port)).ask(
      'GET',
      path,
      ...(cookie === undefined ? [] : [`Cookie: ${cookie}`]),
    );
  const body = (answer: RawResponse): Record<string, unknown> => JSON.parse(answer.body.toString());
  /** The cookie that an answer sets, as a browser sends it back. */
  const cookieOf = (answer: RawResponse): string =>
    String(answer.header('set-cookie')).split(';')[0] as string;

  describe('cookies', () => {
    it('are read when they are asked for, decoded', async () => {
      expect(body(await get('/cookies/read', 'a=1; b="quoted"; c=%C3%BC; d=%zz; a=2; e'))).toEqual({
        a: '1',
        b: '"quoted"',
        c: 'ü',
        d: '%zz',
        bare: true,
      });
      expect(body(await get('/cookies/read'))).toEqual({ bare: true });
      const odd = await get('/cookies/read', '__proto__=1; constructor=2; =3; ;;; toString=4');
      expect(odd.status).toBe(200);
      expect({}).not.toHaveProperty('polluted');
    });

    it('are set one line each, with safe attributes', async () => {
      const answer = await get('/cookies/set');
      expect(answer.all('set-cookie')).toEqual([
        'a=1%3B%20b%3D%22%C3%BC%22; Path=/; HttpOnly; SameSite=Lax',
        'b.c=x; Max-Age=60; Path=/p; SameSite=Strict',
      ]);
      expect(answer.body.toString()).toBe('set');
      expect((await get('/secure')).all('set-cookie')).toEqual([
        'a=1; Path=/x; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None',
        'b=2; Path=/y; HttpOnly; Secure; Partitioned; Priority=High; SameSite=None',
      ]);
    });

    it('are deleted with null, beside lines of the handler’s own', async () => {
      const gone = 'Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax';
      expect((await get('/cookies/delete')).all('set-cookie')).toEqual([
        'own=1',
        `a=; ${gone}`,
        `b=; ${gone.replace('Path=/', 'Path=/p')}`,
      ]);
    });

    it.each([
      { 'a b': '1' },
      { 'a\r\nX-Evil: 1': '1' },
      { a: { value: '1', path: '/;X-Evil=1' } },
      { a: { value: '1', path: '/\r\nX-Evil: 1' } },
      { a: { value: '1', domain: 'x\r\ny' } },
      { a: { value: '1', sameSite: 'evil' } },
      { a: 1 },
      { a: {} },
    ])('that could break out of their line, or are none, make the handler fail: %j', async (bad) => {
      const answer = await get(`/cookies/bad?${encodeURIComponent(JSON.stringify(bad))}`);
      expect(answer.status).toBe(500);
      expect(answer.headText).not.toContain('X-Evil');
    });

    it('whose values hold anything at all stay in their line', async () => {
      const answer = await get(
        `/cookies/bad?${encodeURIComponent(JSON.stringify({ a: 'x\r\nX-Evil: 1; Path=/' }))}`,
      );
      expect(answer.all('set-cookie')).toEqual([
        'a=x%0D%0AX-Evil%3A%201%3B%20Path%3D%2F; Path=/; HttpOnly; SameSite=Lax',
      ]);
    });
  });

  describe.each(['signed', 'stored'])('a %s session', (kind) => {
    it('is there when the client comes back, in whichever worker', async () => {
      let cookie: string | undefined;
      for (let count = 1; count <= 6; count++) {
        const answer = await get(`/${kind}/count`, cookie);
        expect(body(answer)).toEqual({ count, isNew: count === 1 });
        cookie = cookieOf(answer);
        expect(answer.header('set-cookie')).toMatch(/; Max-Age=1800; Path=\/; HttpOnly; SameSite=Lax$/);
      }
    });

    it('is no cookie before there is something to keep, and none when nothing has changed', async () => {
      expect((await get(`/${kind}/read`)).header('set-cookie')).toBe(undefined);
      const cookie = cookieOf(await get(`/${kind}/count`));
      const again = await get(`/${kind}/read`, cookie);
      expect(body(again)).toEqual({ count: 1, isNew: false });
      expect(again.header('set-cookie')).toBe(undefined);
    });

    it.each([
      'session=',
      'session=x',
      'session=x.y',
      'session=.',
      `session=${'A'.repeat(43)}`,
      `session=${'A'.repeat(4000)}.${'A'.repeat(43)}`,
      'session=%zz.%zz',
      'session=../../../../etc/passwd',
      `session=${Buffer.from('{"data":{"user":"root"},"ends":9e15}').toString('base64url')}.`,
      'session=__proto__',
    ])('that was made up is none: %s', async (made) => {
      const answer = await get(`/${kind}/count`, made);
      expect(body(answer)).toEqual({ count: 1, isNew: true });
      expect(cookieOf(answer)).not.toBe(made);
    });

    it('ends with destroy, and its cookie with it', async () => {
      const cookie = cookieOf(await get(`/${kind}/count`));
      const bye = await get(`/${kind}/logout`, cookie);
      expect(bye.header('set-cookie')).toBe(
        'session=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Lax',
      );
      expect((await get(`/${kind}/logout`)).header('set-cookie')).toBe(undefined);
    });

    it('is kept beside a response that is no plain one', async () => {
      const redirect = await get(`/${kind}/web`);
      expect([redirect.status, redirect.header('location')]).toEqual([303, 'http://example.org/']);
      expect(body(await get(`/${kind}/read`, cookieOf(redirect)))).toEqual({ seen: true, isNew: false });
      const nothing = await get(`/${kind}/nothing`);
      expect(nothing.status).toBe(404);
      expect(body(await get(`/${kind}/read`, cookieOf(nothing)))).toEqual({ seen: true, isNew: false });
    });

    it('is not kept when the handler fails', async () => {
      const cookie = cookieOf(await get(`/${kind}/count`));
      const failed = await get(`/${kind}/fail`, cookie);
      expect([failed.status, failed.header('set-cookie')]).toEqual([500, undefined]);
      expect(body(await get(`/${kind}/read`, cookie))).toEqual({ count: 1, isNew: false });
    });
  });

  describe('a signed session', () => {
    it('cannot be changed by its client', async () => {
      const cookie = cookieOf(await get('/signed/count'));
      const [payload, signature] = cookie.slice('session='.length).split('.') as [string, string];
      const forged = Buffer.from(Buffer.from(payload, 'base64url').toString().replace('1', '9')).toString(
        'base64url',
      );
      for (const made of [
        `${forged}.${signature}`,
        `${payload}.${signature.slice(0, -2)}`,
        `${payload}.${createHmac('sha256', 'x'.repeat(32)).update(`session=${payload}`).digest('base64url')}`,
        `${payload}.${createHmac('sha256', NEW).update(payload).digest('base64url')}`,
      ])
        expect(body(await get('/signed/read', `session=${made}`))).toEqual({ isNew: true });
      expect(body(await get('/signed/read', cookie))).toEqual({ count: 1, isNew: false });
    });

    it('is no good under another name', async () => {
      const value = cookieOf(await get('/signed/count')).slice('session='.length);
      expect(body(await get('/other/read', `other=${value}`))).toEqual({ isNew: true });
    });

    it('signed with an old key is taken, and signed anew', async () => {
      const old = cookieOf(await get('/old/count'));
      expect(body(await get('/signed/read', old))).toEqual({ isNew: true });
      const renewed = await get('/rotated/read', old);
      expect(body(renewed)).toEqual({ count: 1, isNew: false });
      expect(body(await get('/signed/read', cookieOf(renewed)))).toEqual({ count: 1, isNew: false });
    });

    it('ends when its time is up, and is prolonged while it is used', async () => {
      const first = cookieOf(await get('/short/count'));
      let cookie = first;
      await expect
        .poll(
          async () => {
            const answer = await get('/short/read', cookie);
            // On a machine that stands still for seconds it may have ended.
            if (answer.header('set-cookie') === undefined && body(answer)['isNew'] === true)
              cookie = cookieOf(await get('/short/count'));
            return answer.header('set-cookie');
          },
          { interval: 50, timeout: 15_000 },
        )
        .toContain('; Max-Age=3; Path=/short; HttpOnly; SameSite=Strict');
      await expect
        .poll(async () => body(await get('/short/read', first)), { interval: 100, timeout: 15_000 })
        .toEqual({ isNew: true });
    });

    it('too large for a cookie fails with an error that says so', async () => {
      const fits = await get('/signed/fill?2800');
      expect(fits.status).toBe(200);
      expect(String(fits.header('set-cookie')).length).toBeLessThanOrEqual(4096);
      const before = test.errors.length;
      expect((await get('/signed/fill?3200')).status).toBe(500);
      await expect.poll(() => test.errors.length).toBeGreaterThan(before);
      expect(test.errors.at(-1)?.error).toMatchObject({ code: 'OFFLOOP_SESSION_TOO_LARGE' });
      expect(String(test.errors.at(-1)?.error)).toMatch(/cookie of \d+ bytes, and browsers take 4096/);
    });

    it('that a channel has changed cannot be kept, which is logged', async () => {
      const before = test.errors.length;
      const answer = await get('/signed/channel');
      expect([answer.body.toString(), answer.header('set-cookie')]).toEqual(['count 1', undefined]);
      await expect.poll(() => test.errors.length).toBeGreaterThan(before);
      expect(test.errors.at(-1)?.message).toContain('it cannot set the cookie');
    });
  });

  describe('a stored session', () => {
    const idOf = (cookie: string): string => cookie.slice('session='.length);
    const keyOf = (cookie: string): string => createHash('sha256').update(idOf(cookie)).digest('base64url');

    it('has an id of 256 random bits, which the store does not see', async () => {
      const cookie = cookieOf(await get('/stored/count'));
      expect(idOf(cookie)).toMatch(/^[\w-]{43}$/);
      expect(existsSync(join(folder, keyOf(cookie)))).toBe(true);
      expect(readFileSync(join(folder, `${keyOf(cookie)}.ms`), 'utf8')).toBe('1800000');
      for (const name of readdirSync(folder)) {
        expect(name).not.toContain(idOf(cookie));
        expect(readFileSync(join(folder, name), 'utf8')).not.toContain(idOf(cookie));
      }
    });

    it('gets a new id at login, and the old one is no good any more', async () => {
      const before = cookieOf(await get('/stored/count'));
      const after = cookieOf(await get('/stored/login', before));
      expect(after).not.toBe(before);
      expect(body(await get('/stored/read', after))).toEqual({ count: 1, user: 'ada', isNew: false });
      expect(body(await get('/stored/read', before))).toEqual({ isNew: true });
    });

    it('that was ended by another request while this one ran does not come back', async () => {
      const cookie = cookieOf(await get('/stored/count'));
      const answer = await get('/stored/race', cookie);
      expect([answer.body.toString(), answer.header('set-cookie')]).toEqual(['raced', undefined]);
      expect(body(await get('/stored/read', cookie))).toEqual({ isNew: true });
    });

    it('is deleted from the store by destroy', async () => {
      const cookie = cookieOf(await get('/stored/count'));
      await get('/stored/logout', cookie);
      expect(existsSync(join(folder, keyOf(cookie)))).toBe(false);
    });

    it('is kept when a channel answers, if the client has the id', async () => {
      const cookie = cookieOf(await get('/stored/count'));
      expect((await get('/stored/channel', cookie)).body.toString()).toBe('count 2');
      await expect
        .poll(async () => body(await get('/stored/read', cookie)))
        .toEqual({ count: 2, isNew: false });
    });

    it.each([
      '',
      'nonsense',
      'null',
      '{}',
      '{"data":null}',
      '{"data":{},"ends":"soon"}',
      '[]',
      '{"data":{"a":1},"ends":1}',
    ])('that the store has lost or garbled is a new one: %j', async (garbled) => {
      const cookie = cookieOf(await get('/stored/count'));
      writeFileSync(join(folder, keyOf(cookie)), garbled);
      expect(body(await get('/stored/read', cookie))).toEqual({ isNew: true });
    });

    it('with a member called __proto__ changes no prototype', async () => {
      const cookie = cookieOf(await get('/stored/count'));
      writeFileSync(join(folder, keyOf(cookie)), '{"data":{"__proto__":{"polluted":1}},"ends":9e15}');
      expect(body(await get('/stored/proto', cookie))).toMatchObject({ polluted: null });
    });
  });
});

describe('a store on Redis, as the documentation has it', () => {
  it('keeps sessions, and lets them end', async () => {
    const page = readFileSync(new URL('../docs/middleware.md', import.meta.url), 'utf8');
    const code = /<!-- file: redis-store\.js -->\n```js\n([\s\S]*?)```/.exec(page)?.[1];
    const { redisStore } = (await import(`data:text/javascript,${encodeURIComponent(String(code))}`)) as {
      redisStore(redis: unknown): SessionStore;
    };
    const kept = new Map<string, { value: string; options: unknown }>();
    const redis = {
      get: async (key: string) => kept.get(key)?.value ?? null,
      set: async (key: string, value: string, options: unknown) => void kept.set(key, { value, options }),
      del: async (key: string) => Number(kept.delete(key)),
    };
    const counting = compose(
      session<{ count: number }>({ store: redisStore(redis), timeout: 60_000 }),
      (req) => {
        if (req.path === '/logout') req.session.destroy();
        else req.session.data.count = (req.session.data.count ?? 0) + 1;
        return json(req.session.data.count ?? null);
      },
    );
    const { url } = await serve(counting, { dispatch: false });
    const first = await fetch(url);
    const cookie = String(first.headers.get('set-cookie')).split(';')[0] as string;
    expect(await (await fetch(url, { headers: { cookie } })).json()).toBe(2);
    const [[key, entry] = []] = [...kept];
    expect([kept.size, key?.slice(0, 8), entry?.options]).toEqual([1, 'session:', { PX: 60_000 }]);
    await fetch(`${url}/logout`, { headers: { cookie } });
    expect(kept.size).toBe(0);
  });
});

describe('the memory store', () => {
  const counting = () =>
    compose(session<{ count: number }>({ store: memoryStore({ max: 2 }) }), (req) => {
      const current: Session<{ count: number }> = req.session;
      current.data.count = (current.data.count ?? 0) + 1;
      return json(current.data.count);
    });

  it('keeps sessions of inline handlers, and forgets the one unused for longest beyond its bound', async () => {
    const handler = counting();
    const visit = async (cookie = ''): Promise<[number, string]> => {
      const answer = await inject(handler, { headers: { cookie } });
      return [
        (await answer.json()) as number,
        String(answer.headers.get('set-cookie')).split(';')[0] as string,
      ];
    };
    const [, first] = await visit();
    const [, second] = await visit();
    expect((await visit(first))[0]).toBe(2);
    await visit(); // a third: the second goes
    expect((await visit(first))[0]).toBe(3);
    expect((await visit(second))[0]).toBe(1);
  });

  it('refuses to run in a worker, and says why', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'offloop-memory-'));
    const module = join(folder, 'handler.mjs');
    const door = new URL('../dist/middleware/index.js', import.meta.url).href;
    writeFileSync(
      module,
      `import { memoryStore } from '${door}';\nmemoryStore();\nexport default () => null;\n`,
    );
    try {
      const started = runServer(module, { port: 0, nMax: 1 });
      await expect(started).rejects.toMatchObject({ code: 'OFFLOOP_NOT_SHARED' });
      await expect(started).rejects.toThrow(/each worker would have its own.*dispatch: false/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the options', () => {
  it.each([
    [
      `cookies: option sameSite is "Lax" (string); allowed: 'strict', 'lax', 'none'`,
      () => cookies({ sameSite: 'Lax' as never }),
    ],
    ['cookies: option path is "/a;b" (string)', () => cookies({ path: '/a;b' })],
    ['cookies: option domain is "a b" (string)', () => cookies({ domain: 'a b' })],
    ['cookies: option expires is null (object)', () => cookies({ expires: new Date('x') })],
    ['session: option secret is undefined; allowed: a secret, or a store instead of one', () => session({})],
    [
      'session: option secret is a string of 16; allowed: a string of at least 32',
      () => session({ secret: 'short-and-secret' }),
    ],
    ['session: option secret is a number', () => session({ secret: [NEW, 7 as never] })],
    ['session: option secret is [] (array)', () => session({ secret: [] })],
    [
      'session: option store is {} (object); allowed: nothing beside secret',
      () => session({ secret: NEW, store: memoryStore() }),
    ],
    ['session: option store is {} (object)', () => session({ store: {} as never })],
    ['session: option name is "a b" (string)', () => session({ secret: NEW, name: 'a b' })],
    ['session: option timeout is 10 (number)', () => session({ secret: NEW, timeout: 10 })],
    [
      'session: cookie: there is no option maxAge',
      () => session({ secret: NEW, cookie: { maxAge: 1 } as never }),
    ],
    ['memoryStore: option max is 0 (number)', () => memoryStore({ max: 0 })],
  ])('are refused with their value and its type: %s', (message, make) => {
    expect(make).toThrow(expect.objectContaining({ code: 'OFFLOOP_BAD_OPTION' }));
    expect(make).toThrow(message);
  });

  it('shows no secret', () => {
    expect(() => session({ secret: ['x'.repeat(40), 'short-and-secret'] })).toThrow(
      /^((?!xxx|short-and).)*$/,
    );
  });
});
