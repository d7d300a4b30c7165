import { afterEach, describe, expect, it } from 'vitest';
import { type Program, startProgram } from './support/program.js';

describe('the examples', () => {
  let example: Program | undefined;
  afterEach(async () => {
    await example?.kill();
    example = undefined;
  });

  async function start(name: string, servers = 1): Promise<Program> {
    example = await startProgram(`examples/${name}/server.js`, { PORT: '0' }, servers);
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
});

async function status(url: string, init?: RequestInit): Promise<number> {
  const answer = await fetch(url, init);
  await answer.body?.cancel();
  return answer.status;
}

async function derive(url = ''): Promise<{ key: string; ms: number }> {
  return (await (await fetch(url)).json()) as { key: string; ms: number };
}
