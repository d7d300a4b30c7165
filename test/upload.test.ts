import { createHash } from 'node:crypto';
import type { Browser } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { launch, noBrowser } from './support/chromium.js';
import { type Program, startProgram } from './support/program.js';
import { content, MB } from './support/upload.js';

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

let upload: Program;
beforeEach(async () => {
  upload = await startProgram('examples/upload/server.js', { PORT: '0' });
});
afterEach(() => upload.kill());

describe('the upload', () => {
  it('is hashed, and tells who asks how far it is', async () => {
    const url = new URL('/some-name', upload.urls[0]);
    const bytes = content(12 * MB);
    const events = await fetch(url);
    expect(events.headers.get('content-type')).toBe('text/event-stream');
    const answer = await fetch(url, { method: 'PUT', body: bytes });
    const done = { size: bytes.byteLength, sha256: sha256(bytes) };
    expect(await answer.json()).toEqual(done);
    const told = [...(await events.text()).matchAll(/event: (\w+)\ndata: (.*)\n\n/g)].map(
      ([, event, data]) => [String(event), JSON.parse(String(data))] as const,
    );
    expect(told.at(-1)).toEqual(['done', done]);
    const steps = told.slice(0, -1).map(([event, data]) => {
      expect(event).toBe('progress');
      expect(data).toMatchObject({ of: bytes.byteLength });
      return (data as { size: number }).size;
    });
    expect(steps.length).toBeGreaterThan(5);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    expect(await upload.stop()).toBe(0);
  });

  it('may be empty, and has to have a name', async () => {
    const put = (path: string): Promise<Response> => fetch(new URL(path, upload.urls[0]), { method: 'PUT' });
    expect(await (await put('/a')).json()).toEqual({ size: 0, sha256: sha256(new Uint8Array(0)) });
    expect((await put('/a/b')).status).toBe(404);
    expect((await fetch(new URL('/a', upload.urls[0]), { method: 'DELETE' })).status).toBe(405);
    expect(await upload.stop()).toBe(0);
  });
});

describe.skipIf(noBrowser)('the page of the upload', () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser.close());

  it('shows how far the server is, and the hash of the file', async () => {
    const page = await browser.newPage();
    const failed: string[] = [];
    page.on('pageerror', (error) => failed.push(String(error)));
    await page.goto(String(upload.urls[0]));
    for (const size of [3, 20 * MB]) {
      const bytes = content(size, 31);
      await page.setInputFiles('#file', { name: 'some.bin', mimeType: 'application/x', buffer: bytes });
      await page.waitForFunction('document.getElementById("output").value.includes("SHA-256")');
      expect(await page.inputValue('#file')).toContain('some.bin');
      const output = await page.evaluate('document.getElementById("output").value');
      expect(output).toBe(`some.bin: ${size} bytes, SHA-256 ${sha256(bytes)}`);
      await page.evaluate('document.getElementById("output").value = ""');
    }
    expect(failed).toEqual([]);
    await page.close();
    expect(await upload.stop()).toBe(0);
  });
});
