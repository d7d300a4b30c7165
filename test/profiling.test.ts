import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { scratch } from './support/pool-client.js';

const root = fileURLToPath(new URL('../', import.meta.url));
const driver = join(root, 'profiling/run.js');

interface Drawn {
  checkDrawing(tool: string, file: string): string;
  checkCpuProfile(profile: object): { about: string; served: boolean };
}
// Plain JavaScript, as all of profiling/ is.
const { checkDrawing, checkCpuProfile } = (await import(
  pathToFileURL(join(root, 'profiling/lib/drawn.js')).href
)) as Drawn;

/** A page of Clinic.js with this data, as far as it is looked at. */
function page(data: object, bundled = false): string {
  const file = join(scratch(), 'page.html');
  const text = JSON.stringify(data);
  writeFileSync(
    file,
    bundled
      ? `<script>({"/x/data.json":[function(require,module,exports){\nmodule.exports=${text}\n},{}]})</script>`
      : `<script type="application/json" id="clinic-data">${text}</script>`,
  );
  return file;
}
interface Frame {
  readonly value: number;
  readonly [key: string]: unknown;
}
const frame = (fileName: string, own: number, children: Frame[] = []): Frame => ({
  functionName: 'f',
  fileName,
  onStackTop: { base: own },
  selfValue: own,
  value: children.reduce((sum, { value }) => sum + value, own),
  children,
});
const IO = frame('', 0, [frame('file:///app/dist/index.js', 5)]);

// Whether the tools themselves work is what `npm run profile:smoke` finds out.
describe('a drawing', () => {
  it('is a result when it shows something of the right thread', () => {
    const samples = [{ cpu: 0.5 }, { cpu: 0 }];
    expect(
      checkDrawing('doctor', page({ processStat: samples, analysis: { issueCategory: 'io' } })),
    ).toContain('2 samples of the process, a hint: io');
    expect(checkDrawing('flame', page({ merged: IO }, true))).toContain('5 samples on the I/O thread');
    expect(checkDrawing('heapprofiler', page({ merged: IO }, true))).toContain('5 bytes allocated');
    const node = { sources: [{}, {}], frames: [{ functionName: 'runServer' }] };
    expect(checkDrawing('bubbleprof', page({ data: [{ nodes: [node] }] }))).toBe(
      '2 asynchronous operations in 1 groups',
    );
  });

  it.each([
    ['doctor', { processStat: [], analysis: {} }, false, 'there are no samples of the process'],
    ['doctor', { processStat: [{ cpu: 0 }], analysis: {} }, false, 'there are no samples of the process'],
    ['bubbleprof', { data: [] }, false, 'there are no asynchronous operations'],
    ['bubbleprof', { data: [{ nodes: [{ sources: [{}], frames: [] }] }] }, false, 'is of the server'],
    ['flame', { merged: frame('', 0) }, true, 'there are no samples'],
    ['flame', { merged: frame('node:net', 3) }, true, 'none of the 3 samples is of the server'],
    [
      'flame',
      { merged: frame('', 0, [frame('file:///app/dist/handlers/entry.js', 3)]) },
      true,
      'it is a worker that was drawn',
    ],
    ['heapprofiler', { merged: frame('', 0) }, true, 'there are no allocations'],
    ['flame', {}, false, 'the page has no data'],
    ['doctor', {}, true, 'the page has no data'],
  ] as const)('of %s is refused when it does not: %j', (tool, data, bundled, message) => {
    expect(() => checkDrawing(tool, page(data, bundled))).toThrow(message);
  });

  it('of a thread says how busy that was, and whether with the server', () => {
    const node = (id: number, functionName: string, url: string): object => ({
      id,
      callFrame: { functionName, url },
      hitCount: 1,
    });
    const nodes = [node(1, '(idle)', ''), node(2, 'pump', 'file:///app/dist/index.js')];
    expect(checkCpuProfile({ nodes, samples: [1, 1, 1, 2] })).toEqual({
      about: '4 samples, 25 % of them busy',
      served: true,
    });
    expect(checkCpuProfile({ nodes: nodes.slice(0, 1), samples: [1] }).served).toBe(false);
    expect(() => checkCpuProfile({ nodes, samples: [] })).toThrow('there are no samples');
  });
});

describe('npm run profile:flame', () => {
  const run = async (...args: string[]): Promise<{ code: unknown; said: string }> =>
    promisify(execFile)(process.execPath, [driver, ...args]).then(
      ({ stdout }) => ({ code: 0, said: stdout }),
      (error: { code: unknown; stderr: string }) => ({ code: error.code, said: error.stderr }),
    );

  it('says what there is', async () => {
    const { code, said } = await run('--help');
    expect(code).toBe(0);
    for (const word of ['bubbleprof', 'hello-inline', '--duration']) expect(said).toContain(word);
  });

  it.each([
    [['flames'], 'there is no tool "flames"'],
    [['flame', 'hallo'], 'there is no scenario "hallo"'],
    [['flame', 'hello', 'cpu'], 'one scenario at a time'],
    [['flame', '--duration', '0'], '--duration is 0; allowed: whole seconds from 1 to 60'],
    [['flame', '--duration', 'long'], '--duration is long'],
    [['flame', '--seconds', '5'], "Unknown option '--seconds'"],
  ])('refuses %j', async (args, message) => {
    const { code, said } = await run(...args);
    expect(code).toBe(2);
    expect(said).toContain(message);
  });
});
