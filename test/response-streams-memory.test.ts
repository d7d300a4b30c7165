import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { askAndStall, bodyOf, fetchBody, standsStill } from './support/body-client.js';
import { WAYS } from './support/http-raw.js';
import { startProgram } from './support/program.js';
import { until } from './support/server.js';

const MB = 1024 * 1024;

describe.each(WAYS)('the memory of a server with $way', ({ dispatch }) => {
  async function start(): Promise<{ url: string; most: () => Promise<number> }> {
    const program = await startProgram('test/fixtures/http/streams-server.mjs', {
      DISPATCH: dispatch ? '1' : '0',
    });
    onTestFinished(program.kill);
    const url = program.urls[0] as string;
    const most = async (): Promise<number> => {
      const { most } = (await (await fetch(`${url}/memory`)).json()) as { most: number };
      return most;
    };
    return { url, most };
  }

  it.each(['generator', 'async-generator', 'web-stream', 'readable', 'file'])(
    'does not grow with the size of a body: %s',
    { timeout: 60_000 },
    async (kind) => {
      const { url, most } = await start();
      const folder = mkdtempSync(join(tmpdir(), 'offloop-memory-'));
      onTestFinished(() => rmSync(folder, { recursive: true }));
      const path = join(folder, 'large');
      const bytes = 200 * MB;
      if (kind === 'file') writeFileSync(path, bodyOf(bytes));
      // What it takes to get going.
      await fetchBody(url, `/body/${kind}`, { bytes: 20 * MB, size: 65_536, path });
      const before = await most();
      const got = await fetchBody(url, `/body/${kind}`, { bytes, size: 65_536, path }, 50_000);
      expect(got).toMatchObject({ whole: true, length: bytes });
      // Garbage included, of two heaps.
      expect((await most()) - before).toBeLessThan(120 * MB);
    },
  );

  it('is no more than a window for each client that does not read', { timeout: 60_000 }, async () => {
    const { url, most } = await start();
    await fetchBody(url, '/body/generator', { bytes: 20 * MB, size: 65_536 });
    const before = await most();
    const port = Number(new URL(url).port);
    const query = { bytes: 200 * MB, size: 65_536 };
    const count = 40;
    await Promise.all(Array.from({ length: count }, () => askAndStall(port, '/body/generator', query)));
    await until(
      async () => ((await (await fetch(`${url}/memory`)).json()) as { open: number }).open > count,
      'all are under way',
    );
    await standsStill(url, '');
    // 10 MB of windows, and the garbage of what the sockets have taken.
    expect((await most()) - before).toBeLessThan(140 * MB);
  });
});
