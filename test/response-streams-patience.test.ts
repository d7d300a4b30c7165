/** What takes as long as the engine waits: ten seconds and a little. Both ways of running a handler at once, therefore. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { askAndStall, bodyOf, fetchBody, hash, nothingIsOpen, STREAMS } from './support/body-client.js';
import { WAYS } from './support/http-raw.js';
import { gate, log } from './support/pool-client.js';
import { serve, type TestServer, until } from './support/server.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'offloop-streams-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const fileOf = (length: number): string => {
  const path = join(folder, `${length}`);
  if (!existsSync(path)) writeFileSync(path, bodyOf(length));
  return path;
};

const each = (story: (test: TestServer) => Promise<void>) => async (): Promise<void> => {
  const tests = WAYS.map(({ dispatch }) => serve(STREAMS, { dispatch, ...(dispatch ? { nMax: 1 } : {}) }));
  await Promise.all((await Promise.all(tests)).map(story));
};

describe('the body of a response', () => {
  it(
    'goes on after the source has said nothing for longer than the engine waits',
    {
      timeout: 40_000,
    },
    each(async (test) => {
      const free = gate();
      const bytes = 12_000_000;
      const query = { bytes, size: 100_000, before: 8_000_000, gate: free.path };
      const quick = fetchBody(test.url, '/body/async-generator', query, 30_000);
      // This one has been slow before.
      const slow = await askAndStall(test.port, '/body/async-generator', query);
      await until(() => test.server.stats().answers['200'] === 2, 'both are under way');
      slow.socket.resume();
      await until(() => slow.received > 8_000_000, 'all has come that there is');
      const before = performance.now();
      await until(() => performance.now() - before > 13_000, 'it is late', 15_000);
      free.open();
      expect(await quick).toMatchObject({ whole: true, hash: hash(bodyOf(bytes)) });
      expect(hash((await slow.response()).body)).toBe(hash(bodyOf(bytes)));
      await nothingIsOpen(test);
    }),
  );

  it(
    'goes on when its client has read slowly for longer than the engine waits',
    {
      timeout: 60_000,
    },
    each(async (test) => {
      const bytes = 60_000_000;
      const path = fileOf(bytes);
      const clients = await Promise.all(
        ['generator', 'async-generator', 'file'].map((kind) =>
          askAndStall(test.port, `/body/${kind}`, { bytes, size: 50_000, path }),
        ),
      );
      const began = performance.now();
      let slow = true;
      for (const { socket } of clients) {
        socket.on('data', () => {
          if (!slow) return;
          socket.pause();
          setTimeout(() => socket.resume(), 40);
        });
        socket.resume();
      }
      await until(() => performance.now() - began > 13_000, 'it is late', 15_000);
      expect(clients.map(({ ended }) => ended)).toEqual([undefined, undefined, undefined]);
      slow = false;
      for (const client of clients) {
        const { body } = await client.response(false, 30_000);
        expect(hash(body)).toBe(hash(bodyOf(bytes)));
      }
      await nothingIsOpen(test);
    }),
  );

  it(
    'is cut when its client reads nothing for longer than the engine waits',
    {
      timeout: 40_000,
    },
    each(async (test) => {
      const file = log();
      await askAndStall(test.port, '/body/generator', { bytes: 100_000_000, log: file.path, signal: 1 });
      await askAndStall(test.port, '/body/file', { path: fileOf(50_000_000) });
      await until(() => test.server.stats().open === 2, 'both are under way');
      await until(() => test.server.stats().open === 0, 'they are cut', 30_000);
      await nothingIsOpen(test);
      await until(() => file.lines().length === 3, 'its source is told');
      expect(file.lines()).toEqual(['begun', 'closed', 'signal OFFLOOP_ABORTED']);
    }),
  );
});
