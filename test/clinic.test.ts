import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { envWithoutClinic } from '../src/clinic.js';
import { scratch } from './support/pool-client.js';
import { runProgram } from './support/program.js';
import { fixture } from './support/server.js';

const DOCTOR =
  '-r no-cluster.js -r sampler.js --trace-events-enabled --trace-event-categories v8 -r detect-port.js';
const INJECTS = '/app/node_modules/@clinic/doctor/injects';

describe('the environment of workers where Clinic.js runs the process', () => {
  const optionsOf = (NODE_OPTIONS: string, NODE_PATH = INJECTS): string | undefined =>
    envWithoutClinic(undefined, { NODE_PATH, NODE_OPTIONS })?.['NODE_OPTIONS'];

  it.each([
    ['doctor', DOCTOR],
    ['bubbleprof', '-r no-cluster.js -r logger.js --trace-events-enabled'],
    ['heapprofiler', '-r "/my app/node_modules/@clinic/heap-profiler/src/injects/ipc.js"'],
    [
      'any, on Windows',
      '-r "C:\\\\app\\\\node_modules\\\\@clinic\\\\heap-profiler\\\\src\\\\injects\\\\ipc.js"',
    ],
  ])('has none of its preloads (%s)', (_, options) => {
    expect(optionsOf(options)).toBe('');
  });

  it('keeps what loads modules of the user', () => {
    const own =
      '--require ./env.js --import=tsx -r "./with space.js" --import data:text/javascript,1 -C dev --enable-source-maps';
    expect(optionsOf(`${DOCTOR} ${own}`)).toBe(own);
    // Node refuses flags of the process for a thread whose NODE_OPTIONS are not those of the process.
    expect(optionsOf(`${DOCTOR} --max-http-header-size=20000 ${own}`)).toBe(own);
  });

  it('is otherwise what it was: the option env, or that of the process', () => {
    const own = { NODE_PATH: INJECTS, NODE_OPTIONS: DOCTOR, A: '1' };
    expect(envWithoutClinic(undefined, own)).toEqual({ ...own, NODE_OPTIONS: '' });
    expect(envWithoutClinic({ B: '2' }, own)).toEqual({ B: '2', NODE_OPTIONS: '' });
    expect(envWithoutClinic({ ...own, B: '2' }, own)).toEqual({ ...own, B: '2', NODE_OPTIONS: '' });
  });

  it('is left alone where Clinic.js does not run the process', () => {
    const env = { NODE_OPTIONS: '-r sampler.js --import tsx' };
    expect(envWithoutClinic(undefined, env)).toBe(undefined);
    expect(envWithoutClinic(env, env)).toBe(env);
    expect(envWithoutClinic(undefined, { NODE_PATH: '/app/node_modules' })).toBe(undefined);
  });
});

describe('a server that Clinic.js runs', () => {
  /** What it loads is here a line in a log for each thread that loads it, and for each port it hears of. */
  function injected(): { env: Record<string, string>; lines: () => string[]; program: string } {
    const folder = scratch();
    const injects = join(folder, 'node_modules/@clinic/doctor/injects');
    const log = join(folder, 'log');
    mkdirSync(injects, { recursive: true });
    writeFileSync(log, '');
    writeFileSync(
      join(injects, 'no-cluster.js'),
      `const { appendFileSync } = require('node:fs');
       const { isMainThread } = require('node:worker_threads');
       appendFileSync(${JSON.stringify(log)}, isMainThread ? 'main\\n' : 'worker\\n');
       require('node:cluster').on('listening', (_, { address, port, addressType }) =>
         appendFileSync(${JSON.stringify(log)}, 'port ' + address + ' ' + port + ' ' + addressType + '\\n'));`,
    );
    const program = join(folder, 'server.mjs');
    const dist = pathToFileURL(join(import.meta.dirname, '../dist/index.js')).href;
    writeFileSync(
      program,
      `import { runServer } from ${JSON.stringify(dist)};
       const options = { ip: '127.0.0.1', port: 0, nMin: 2, nMax: 2, ...JSON.parse(process.env.OPTIONS ?? '{}') };
       const server = await runServer(${JSON.stringify(fixture('pool/hello.mjs'))}, options);
       console.log('listening on', server.port);
       await server.stop();`,
    );
    const env = { NODE_PATH: injects, NODE_OPTIONS: '-r no-cluster.js' };
    return { env, lines: () => readFileSync(log, 'utf8').split('\n').slice(0, -1), program };
  }
  const portOf = (output: string): string | undefined => /listening on (\d+)/.exec(output)?.[1];

  it('tells it the port, and loads its preloads into the main thread only', async () => {
    const { env, lines, program } = injected();
    const { code, output } = await runProgram(program, env);
    expect(code, output).toBe(0);
    expect(lines()).toEqual(['main', `port 127.0.0.1 ${portOf(output)} 4`]);
  });

  it('does so with an environment and flags of the workers given, too', async () => {
    const { env, lines, program } = injected();
    const options = { env, execArgv: ['--no-warnings'] };
    const { code, output } = await runProgram(program, { ...env, OPTIONS: JSON.stringify(options) });
    expect(code, output).toBe(0);
    expect(lines().filter((line) => line === 'worker')).toEqual([]);
  });

  it('says nothing where it is not run by it', async () => {
    const { env, lines, program } = injected();
    const elsewhere = join(env['NODE_PATH'] as string, 'no-cluster.js').replace('@clinic', 'clinic');
    mkdirSync(join(elsewhere, '..'), { recursive: true });
    writeFileSync(elsewhere, readFileSync(join(env['NODE_PATH'] as string, 'no-cluster.js'), 'utf8'));
    const { code, output } = await runProgram(program, { NODE_OPTIONS: `-r ${elsewhere}` });
    expect(code, output).toBe(0);
    expect(lines().sort()).toEqual(['main', 'worker', 'worker']);
  });
});
