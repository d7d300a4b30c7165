import { getPriority } from 'node:os';
import { describe, expect, it } from 'vitest';
import { ask } from './support/pool-client.js';
import { fixture, serve } from './support/server.js';

const NICE = fixture('pool/nice.mjs');
const one = { nMin: 1, nMax: 1 };

/** The nice value of the worker. Elsewhere than on Linux it is that of the process, which nobody touches. */
async function niceOfWorker(options: { niceIncrement?: number }): Promise<number> {
  const { url } = await serve(NICE, { ...one, ...options });
  return Number((await ask(url)).text);
}

describe.runIf(process.platform === 'linux')('a worker', () => {
  const own = getPriority();

  it('is less urgent than the process by ten', async () => {
    expect(await niceOfWorker({})).toBe(Math.min(19, own + 10));
    expect(getPriority()).toBe(own);
  });

  it('is less urgent by niceIncrement', async () => {
    expect(await niceOfWorker({ niceIncrement: 3 })).toBe(Math.min(19, own + 3));
    expect(await niceOfWorker({ niceIncrement: 19 })).toBe(19);
  });

  it('is as urgent with a niceIncrement of 0', async () => {
    expect(await niceOfWorker({ niceIncrement: 0 })).toBe(own);
  });
});
