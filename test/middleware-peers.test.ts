import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));

/** What needs which package. */
const NEEDS: [call: string, name: string][] = [
  ['cookies()', 'cookie'],
  [`session({ secret: 'x'.repeat(32) })`, 'cookie'],
  ['params({ nested: true })', 'qs'],
  ['multipart()', '@fastify/busboy'],
  ['accessLog()', 'sonic-boom'],
  ['errorPage({ enabled: true })', 'youch'],
];
/** What needs none of them. */
const NEEDS_NOTHING = [
  'params()',
  'jsonBody()',
  'jsonResponse()',
  'compress()',
  'notModified()',
  'contentType()',
  'head()',
  'cors()',
  'csrf()',
  'securityHeaders()',
  'httpsRedirect()',
  'requestId()',
  `basicAuth({ users: { a: 'b' } })`,
  'forwarded({ trust: 1 })',
  `forwarded({ trust: 1, header: 'forwarded' })`,
  'timeout({ ms: 1 })',
  'accessLog({ to: () => undefined })',
  'rateLimit({ limiter: memoryLimiter({ points: 1, duration: 1000 }) })',
  'memoryStore()',
  'errorPage({ enabled: false })',
  'writeErrors(() => undefined)',
  `staticFiles('.')`,
];

describe('the package without its optional peers', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'offloop-bare-'));
    cpSync(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
    mkdirSync(join(folder, 'node_modules'));
    for (const name of ['mrmime', 'forwarded-parse'])
      symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name), 'junction');
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const run = (calls: string[]): (string | null)[] => {
    const tries = calls.map((call) => `attempt(() => { const { ${nameOf(call)} } = door; ${call}; })`);
    const code = `
      import * as door from './dist/middleware/index.js';
      const { memoryLimiter } = door;
      const attempt = (f) => { try { f(); return null; } catch (error) { return error.code + ': ' + error.message; } };
      console.log(JSON.stringify([${tries.join(', ')}]));`;
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', code], {
      cwd: folder,
      encoding: 'utf8',
    });
    return JSON.parse(out) as (string | null)[];
  };
  const nameOf = (call: string): string => call.slice(0, call.indexOf('('));

  it('says what to install when a middleware that needs one is made', () => {
    const said = run(NEEDS.map(([call]) => call));
    for (const [i, [call, name]] of NEEDS.entries()) {
      expect(said[i], call).toMatch(/^OFFLOOP_MISSING_PACKAGE: /);
      expect(said[i], call).toContain(
        `needs the package ${name}, which is not installed: npm install ${name}`,
      );
    }
  });

  it('makes all the others', () => {
    expect(run(NEEDS_NOTHING).filter((error) => error !== null)).toEqual([]);
  });

  it('names each of them in package.json, as optional', () => {
    const { peerDependencies, peerDependenciesMeta } = JSON.parse(
      readFileSync(join(root, 'package.json'), 'utf8'),
    );
    for (const [, name] of NEEDS) {
      expect(peerDependencies[name], name).toBeDefined();
      expect(peerDependenciesMeta[name], name).toEqual({ optional: true });
    }
  });
});
