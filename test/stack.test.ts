import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { describe, expect, it, onTestFinished } from 'vitest';
import { captureStack } from '../src/pool/stack.js';
import { log } from './support/pool-client.js';
import { until } from './support/server.js';

/** A thread that does this, and has begun with it: that is what `began` is for. */
async function thread(body: string): Promise<Worker> {
  const source = `
    const { workerData: began } = require('node:worker_threads');
    setTimeout(() => { ${body} }, 1);
  `;
  const began = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(source, { eval: true, workerData: began });
  onTestFinished(async () => void (await worker.terminate()));
  await until(() => began[0] === 1, 'it has begun');
  return worker;
}

const SPIN = 'function innermost() { for (;;) began[0] = 1; } function outer() { innermost(); } outer();';

describe('the stack of a thread', () => {
  it('names the functions it is in, innermost first, and where they stand', async () => {
    const { threadId } = await thread(SPIN);
    const stack = await captureStack(threadId, 5000);
    expect(stack).toMatch(/^ {4}at innermost \(.*:\d+:\d+\)\n {4}at outer \(/);
  });

  it('is that of the right one of several threads', async () => {
    const threads = [await thread(SPIN), await thread(SPIN.replaceAll('innermost', 'other'))];
    const stacks = await Promise.all(threads.map(({ threadId }) => captureStack(threadId, 5000)));
    expect(stacks.map((stack) => stack?.match(/at (\w+)/)?.[1])).toEqual(['innermost', 'other']);
  });

  it('leaves the thread running, and fit to be ended', async () => {
    const worker = await thread(SPIN);
    for (let i = 0; i < 3; i++) expect(await captureStack(worker.threadId, 5000)).toContain('innermost');
    expect(await worker.terminate()).toBe(1);
  });

  it('cannot be had of a thread that is in native code or gone, and nothing waits for it for long', async () => {
    const { path } = log();
    const command = `echo there >> '${path}'; sleep 2`;
    const { threadId } = await thread(
      `began[0] = 1; require('node:child_process').execSync(${JSON.stringify(command)})`,
    );
    await until(() => readFileSync(path, 'utf8') !== '', 'it waits for a process');
    expect(await captureStack(threadId, 100)).toBeUndefined();
    expect(await captureStack(999_999, 50)).toBeUndefined();
  });

  it('is given up in time also by one who has to wait for others', async () => {
    const { path } = log();
    const command = `echo there >> '${path}'; sleep 3`;
    const hangs = await thread(
      `began[0] = 1; require('node:child_process').execSync(${JSON.stringify(command)})`,
    );
    await until(() => readFileSync(path, 'utf8') !== '', 'it waits for a process');
    const { threadId } = await thread(SPIN);
    const stacks = [
      captureStack(hangs.threadId, 300),
      captureStack(threadId, 200),
      captureStack(threadId, 9000),
    ];
    expect(await Promise.all(stacks)).toEqual([
      undefined,
      undefined,
      expect.stringMatching(/^ {4}at innermost /),
    ]);
  });

  it('is taken without harm to the timers of the thread that asks', async () => {
    const { threadId } = await thread(SPIN);
    let over = false;
    // Timers set and cleared all the time: whatever interrupts this thread finds them half done.
    const churn = (): void => {
      const timers = Array.from({ length: 200 }, () => setTimeout(() => undefined, 500));
      for (const timer of timers) clearTimeout(timer);
      if (!over) setTimeout(churn, 0);
    };
    churn();
    for (let i = 0; i < 15; i++) expect(await captureStack(threadId, 5000)).toContain('innermost');
    over = true;
    await sleep(500);
  });
});
