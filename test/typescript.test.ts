import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ask, program, scratch, tally } from './support/pool-client.js';
import { fixture, serve } from './support/server.js';

const TYPED = fixture('pool/typed.ts');

describe('a handler module in TypeScript', () => {
  it('runs on the workers, with enums, imports by .js names and top-level await', async () => {
    const { url } = await serve(TYPED, { nMin: 2, nMax: 2 });
    const replies = await Promise.all(['ann', 'bob', 'cyd'].map((name) => ask(url, { name })));
    expect(tally(replies)).toEqual({ 200: 3 });
    expect(replies.map((reply) => reply.text)).toEqual(['hello, ann 1', 'hello, bob 1', 'hello, cyd 1']);
  });

  it('has its errors point at the lines of the source', async () => {
    const { url, errors } = await serve(TYPED, { nMin: 1, nMax: 1 });
    expect((await ask(url)).status).toBe(500);
    expect(errors[0]?.error).toBeInstanceOf(RangeError);
    expect((errors[0]?.error as Error | undefined)?.stack).toMatch(/refuse .*typed\.ts:14/);
  });

  it('may be .mts and export an object with fetch', async () => {
    const { url } = await serve(fixture('pool/typed-fetch.mts'), { nMin: 1, nMax: 1 });
    expect((await ask(url)).text).toBe('mts GET');
  });

  it('runs in workers that replace others, too', async () => {
    const { url, server } = await serve(TYPED, { nMin: 1, nMax: 2, threadIdleTimeout: 0 });
    for (let i = 0; i < 3; i++) {
      expect(tally(await Promise.all([ask(url, { name: 'a' }), ask(url, { name: 'b' })]))).toEqual({
        200: 2,
      });
    }
    expect(server.stats().pool).toMatchObject({ crashed: 0 });
  });

  it('rejects runServer with the error of the source when it cannot be parsed', async () => {
    const path = join(scratch(), 'broken.ts');
    writeFileSync(path, 'export default (req: {) => 1;\n');
    const failure: unknown = await serve(path, { nMin: 1, nMax: 1 }).catch((error: unknown) => error);
    expect(String(failure)).toMatch(/broken\.m?ts:1/);
  });

  it('runs inline with dispatch: false, in a plain Node', async () => {
    const { code, out, err } = await program(`
      import { runServer } from 'offloop';
      const server = await runServer('./test/fixtures/pool/typed.ts', { ip: '127.0.0.1', port: 0, dispatch: false });
      console.log(await (await fetch(server.url + '?name=dan', { headers: { connection: 'close' } })).text());
      await server.stop();
    `);
    expect({ code, out, err }).toEqual({ code: 0, out: expect.stringMatching(/^hello, dan \d\n$/), err: '' });
  });
});
