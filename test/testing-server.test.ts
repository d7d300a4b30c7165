import { createWorkerPool } from 'offloop';
import { createTestServer } from 'offloop/testing';
import { describe, expect, it } from 'vitest';
import { fixture } from './support/server.js';

const HELLO = fixture('../../examples/hello/handler.js');

describe('a test server', () => {
  it('serves a module on a free port, and is gone at the end of its block', async () => {
    let url: string;
    {
      await using hello = await createTestServer(HELLO);
      url = hello.url;
      expect(url).toBe(`http://127.0.0.1:${hello.port}`);
      expect(await (await hello.fetch('/there')).text()).toBe('Hello from /there\n');
      expect(hello.server.stats().pool?.workers.length).toBe(1);
    }
    await expect(fetch(url)).rejects.toThrow();
  });

  it('runs a function inline, and remembers what was logged instead of printing it', async () => {
    await using broken = await createTestServer(() => {
      throw new RangeError('no');
    });
    expect((await broken.fetch()).status).toBe(500);
    expect(broken.errors).toMatchObject([{ error: expect.any(RangeError) }]);
    expect(broken.warnings).toEqual([]);
  });

  it('takes the options of runServer, and its loggers', async () => {
    const pool = createWorkerPool({ nMin: 1, nMax: 1 });
    const told: unknown[] = [];
    const server = await createTestServer(HELLO, {
      workerPool: pool,
      serverHeader: 'x',
      errorLogger: (m) => told.push(m),
    });
    expect((await server.fetch('/', { method: 'HEAD' })).headers.get('server')).toBe('x');
    await server.stop();
    await server.stop();
    await pool.close();
    expect(server.server.status).toBe('stopped');
  });

  it('rejects as runServer does', async () => {
    await expect(createTestServer('./nowhere.js')).rejects.toMatchObject({
      code: 'OFFLOOP_MODULE_NOT_FOUND',
    });
    await expect(createTestServer(HELLO, { port: -1 })).rejects.toMatchObject({ code: 'OFFLOOP_BAD_OPTION' });
  });
});
