import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { launch, noBrowser } from './support/chromium.js';
import { type Program, runProgram, startProgram } from './support/program.js';

describe('the demo', () => {
  it('says in one sentence that its port is in use, and exits with code 2', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => other.once('listening', resolve));
    const { port } = other.address() as AddressInfo;
    try {
      const { code, output } = await runProgram('examples/demo/server.js', { PORT: String(port) });
      expect(output).toBe(`Port ${port} is in use. Take another: PORT=8091 npm run demo\n`);
      expect(code).toBe(2);
    } finally {
      other.close();
    }
  });

  it('refuses commands it does not know', async () => {
    const demo = await startProgram('examples/demo/server.js', { PORT: '0' });
    try {
      const command = async (body: string, method = 'POST'): Promise<number> =>
        (await fetch(`${demo.urls[0]}/load`, method === 'POST' ? { method, body } : { method })).status;
      expect(await command('{"fire":1}')).toBe(204);
      expect(await command('{"fire":101}')).toBe(422);
      expect(await command('{"where":"elsewhere"}')).toBe(422);
      expect(await command('null')).toBe(422);
      expect(await command('fire!')).toBe(400);
      expect(await command('', 'GET')).toBe(405);
      expect((await fetch(`${demo.urls[0]}/server.js`)).status).toBe(404);
      expect(await demo.stop()).toBe(0);
    } finally {
      await demo.kill();
    }
  });
});

// Where there is no browser the page goes untested, except where it must not.
describe.skipIf(noBrowser)('the page of the demo', { timeout: 60_000 }, () => {
  let browser: Browser;
  let demo: Program;
  let page: Page;
  const wrong: string[] = [];

  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(async () => {
    await browser?.close();
  });

  async function open(width: number, colorScheme: 'light' | 'dark'): Promise<void> {
    demo = await startProgram('examples/demo/server.js', { PORT: '0' });
    page = await browser.newPage({ viewport: { width, height: 900 }, colorScheme });
    wrong.length = 0;
    page.on('pageerror', (error) => wrong.push(String(error)));
    page.on('console', (message) => {
      // The browser notes every refused ping. That they are refused is what the page shows.
      const refused = message.location().url.includes('/ping-worker') && message.text().includes('503');
      if (message.type() === 'error' && !refused) wrong.push(`${message.text()} ${message.location().url}`);
    });
    page.on('request', (request) => {
      const { origin } = new URL(request.url());
      if (origin !== demo.urls[0] && !request.url().startsWith('data:')) wrong.push(`asked ${origin}`);
    });
    await page.goto(String(demo.urls[0]));
  }
  afterEach(async () => {
    await page?.close();
    await demo?.kill();
  });

  const number = async (id: string): Promise<number> => Number(await page.textContent(`#${id}`));
  const busy = (): Promise<number> => page.locator('#workers .busy').count();
  const until = (condition: () => Promise<boolean>): Promise<void> =>
    expect.poll(condition, { timeout: 30_000, interval: 25 }).toBe(true);

  it('shows workers busy, answers and refusals when a hundred requests are fired, and pings answered all the while', async () => {
    await open(1280, 'light');
    const pings: number[] = [];
    page.on('response', (answer) => {
      if (new URL(answer.url()).pathname === '/ping') pings.push(answer.status());
    });
    await page.click('text=Fire 100');
    await until(async () => (await busy()) >= 2);
    await until(async () => (await number('count-503')) > 0 && (await number('queued')) > 0);
    // Keep them busy, however fast this machine is.
    await page.check('#keep');
    const before = pings.length;
    await until(async () => pings.length > before + 5 && (await busy()) > 0);
    expect(await page.textContent('#explain')).toMatch(/503 with Retry-After: \d+/);

    await page.uncheck('#keep');
    await until(async () => (await number('count-open')) === 0);
    expect((await number('count-200')) + (await number('count-503'))).toBeGreaterThanOrEqual(100);
    // Two workers or more, and 32 places in the queue, one of which a ping of the page may have had.
    expect(await number('count-200')).toBeGreaterThanOrEqual(33);
    expect(new Set(pings)).toEqual(new Set([200]));
    expect(await page.textContent('#inline-p99')).toMatch(/^[\d.]+(ms|s)$/);
    await until(async () => (await page.textContent('#story'))?.startsWith('Nothing to do') === true);

    expect(wrong).toEqual([]);
    expect(await demo.stop()).toBe(0);
    await until(async () => await page.isVisible('#gone'));
  });

  it('shows pings waiting when the work runs inline instead', async () => {
    await open(1280, 'dark');
    await page.check('[value=inline]');
    await page.click('#keep');
    await until(async () => /^(\d{3}ms|[\d.]+s)$/.test((await page.textContent('#inline-p50')) ?? ''));
    await until(
      async () => (await page.textContent('#story'))?.includes('runs inline, on the I/O thread') === true,
    );

    await page.check('[value=pool]');
    await until(async () => (await busy()) > 0);
    await page.click('#keep');
    await until(async () => (await number('count-open')) === 0);
    expect(wrong).toEqual([]);
    expect(await demo.stop()).toBe(0);
  });

  it('fits a phone', async () => {
    await open(360, 'dark');
    await page.click('text=Fire 1');
    await until(async () => (await number('count-200')) > 0);
    await page.click('summary');
    const [content, screen] = (await page.evaluate(
      '[document.documentElement.scrollWidth, innerWidth]',
    )) as number[];
    expect(content).toBe(screen);
    expect(wrong).toEqual([]);
    expect(await demo.stop()).toBe(0);
  });
});
