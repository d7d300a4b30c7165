import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';

const CONNECTIONS = 1000;
/** Files that a process has open besides its connections. */
const OTHERS = 200;
const SECONDS = 4;

/** The part of a result of the bench that is looked at here. */
interface Sample {
  readonly failure?: string;
  readonly violations: Record<string, number>;
  readonly memory: { readonly growth: number };
  readonly load: {
    readonly connections: number;
    readonly mostOpen: number;
    readonly answered: number;
    readonly kills: number;
    readonly ends: Record<string, number>;
  };
  readonly stats: {
    readonly channels: number;
    readonly pool: { readonly crashed: number };
  };
}

/** The bench in a process of its own, which starts the server and its clients in two more. */
async function bench(...args: string[]): Promise<Sample> {
  const { out, err } = await new Promise<{ out: string; err: string }>((resolve) => {
    const run = fileURLToPath(new URL('../bench/run.js', import.meta.url));
    const child = execFile(process.execPath, [run, ...args, '--json', '--rounds', '1'], (_, out, err) =>
      resolve({ out, err }),
    );
    onTestFinished(() => void child.kill('SIGKILL'));
  });
  if (out === '') throw new Error(err);
  const { scenarios } = JSON.parse(out) as { scenarios: { servers: { samples: Sample[] }[] }[] };
  return scenarios[0]?.servers[0]?.samples[0] as Sample;
}

/** Connections that a process may have here: Node raises its limit of open files as far as it may. */
function room(): number {
  const { userLimits } = process.report.getReport() as unknown as {
    userLimits?: { open_files?: { hard: number | 'unlimited' } };
  };
  const hard = userLimits?.open_files?.hard ?? 'unlimited';
  return hard === 'unlimited' ? Number.POSITIVE_INFINITY : hard - OTHERS;
}

it('a thousand WebSockets that come, talk and go at random while workers are ended leave nothing behind', async (test) => {
  if (room() < CONNECTIONS) {
    const why = `${CONNECTIONS} connections need ${CONNECTIONS + OTHERS} open files; the limit here leaves ${room()} connections`;
    console.warn(`skipped: ${why}`);
    test.skip(why);
  }
  const sample = await bench('storm', '--connections', String(CONNECTIONS), '--duration', String(SECONDS));
  expect(sample.failure).toBeUndefined();
  const { violations, load, memory, stats } = sample;
  // Callbacks twice, never or out of order, ends without a reason, objects and subscriptions that are left.
  expect(Object.fromEntries(Object.entries(violations).filter(([, count]) => count > 0))).toEqual({});
  expect(load.mostOpen).toBe(CONNECTIONS);
  expect(load.connections).toBeGreaterThan(CONNECTIONS);
  expect(load.answered).toBeGreaterThan(CONNECTIONS);
  expect(load.ends['1012']).toBeGreaterThan(0);
  expect(stats.channels).toBe(0);
  expect(load.kills).toBeGreaterThan(4);
  expect(stats.pool.crashed).toBeGreaterThan(0);
  expect(memory.growth).toBeLessThan(1.5);
}, 90_000);
