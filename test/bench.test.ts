import { execFile, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';

const bench = fileURLToPath(new URL('../bench/', import.meta.url));
// storm.test.ts looks at a run of storm.
const scenarios = readdirSync(`${bench}scenarios`)
  .map((file) => file.replace(/\.js$/, ''))
  .filter((name) => name !== 'index' && name !== 'storm');

/** Each has a driver, servers and clients: more at a time than this, and they wait for one another. */
const AT_ONCE = 2;
/** Those behind wait for those before. */
const LIMIT = 240_000;

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

let running = 0;
const waiting: (() => void)[] = [];

/** Run a program of the bench to its end, when its turn has come. */
async function run(onEnd: (stop: () => void) => void, ...args: string[]): Promise<Ended> {
  if (running === AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  else running++;
  try {
    return await node(onEnd, ...args);
  } finally {
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
  }
}

function node(onEnd: (stop: () => void) => void, ...args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      args,
      { cwd: fileURLToPath(new URL('../', import.meta.url)), maxBuffer: 2 ** 26 },
      (_, out, err) => resolve({ code: child.exitCode ?? 1, out, err }),
    );
    // Its servers and clients end with it.
    onEnd(() => void child.kill('SIGTERM'));
  });
}

const hasWrk = spawnSync('wrk', ['-v']).error === undefined;
const isClone = spawnSync('git', ['rev-parse', 'HEAD'], { cwd: bench }).status === 0;

describe('the bench', () => {
  // In a fresh clone what it is measured against is not installed, and two of them at once would be in each other's way.
  beforeAll(async () => {
    const install = `const { needPeers } = await import(${JSON.stringify(`${bench}lib/needs.js`)}); needPeers();`;
    const { code, err } = await node(() => undefined, '--input-type=module', '-e', install);
    expect(code, err).toBe(0);
  }, LIMIT);

  for (const name of scenarios) {
    it.concurrent(`runs ${name}`, { timeout: LIMIT }, async ({ expect, onTestFinished, skip }) => {
      const { code, out, err } = await run(onTestFinished, 'bench/run.js', name, '--smoke');
      if (!hasWrk && err.includes('wrk is not installed')) skip('wrk is not installed');
      expect(code, err + out).toBe(0);
      expect(out).toContain(`## ${name}: `);
    });
  }

  it.concurrent('times the pieces, each alone', { timeout: LIMIT }, async ({ expect, onTestFinished }) => {
    const args = ['--import', 'tsx', 'bench/micro/run.js', '--smoke'];
    const { code, out, err } = await run(onTestFinished, ...args);
    expect(code, err).toBe(0);
    expect(out).toContain('| claim an invocation ');
  });

  it.concurrent('compares what is here with a commit, and leaves nothing behind', {
    timeout: LIMIT,
  }, async ({ expect, onTestFinished, skip }) => {
    if (!hasWrk || !isClone) skip('wrk or git is missing');
    const args = ['HEAD', 'hello', '--servers', 'offloop-inline', '--smoke', '--json'];
    const { code, out, err } = await run(onTestFinished, 'bench/compare.js', ...args);
    expect(code, err).toBe(0);
    const { scenarios: results, folder } = JSON.parse(out);
    expect(results[0].servers[0]).toMatchObject({
      name: 'offloop-inline',
      rate: { pairs: 1, differs: false },
    });
    expect(() => readdirSync(folder)).toThrow('ENOENT');
  });

  it('calls a difference one only when chance would hardly bring it about', async () => {
    const pairs = (...ratios: number[]): [number, number][] => ratios.map((ratio) => [ratio * 1000, 1000]);
    const cases = {
      everyTime: pairs(1.02, 1.03, 1.01, 1.04, 1.02, 1.03),
      tooFew: pairs(1.5, 1.5, 1.5, 1.5, 1.5),
      backAndForth: pairs(1.3, 0.8, 1.1, 0.9, 1.2, 0.85, 1.02, 0.97),
      slower: pairs(0.9, 0.92, 1.01, 0.88, 0.9, 0.91, 0.93, 0.9, 0.9, 0.9),
      many: pairs(...Array.from({ length: 30 }, (_, i) => (i % 5 === 0 ? 0.99 : 1.02))),
    };
    const code = `
      const { compared } = await import(${JSON.stringify(`${bench}lib/compare.js`)});
      const cases = ${JSON.stringify(cases)};
      console.log(JSON.stringify(Object.entries(cases).map(([name, pairs]) => [name, compared(pairs)])));`;
    const { out, err } = await node(() => undefined, '--input-type=module', '-e', code);
    expect(out, err).not.toBe('');
    const found = Object.fromEntries(
      JSON.parse(out) as [string, { differs: boolean; p: number; median: number }][],
    );
    expect(Object.entries(found).map(([name, { differs }]) => [name, differs])).toEqual([
      ['everyTime', true],
      ['tooFew', false],
      ['backAndForth', false],
      ['slower', true],
      ['many', true],
    ]);
    // Of six, only as they are and all exchanged come out as far.
    expect(found['everyTime']).toMatchObject({ p: 2 / 64, median: 1.025 });
  });

  it.concurrent('has every figure of docs/benchmarks.md from a run that is kept', {
    timeout: LIMIT,
  }, async ({ expect, onTestFinished }) => {
    const { code, err } = await run(onTestFinished, 'bench/docs.js', '--check');
    expect(code, err).toBe(0);
  });
});
