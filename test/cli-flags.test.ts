import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  type Flag,
  type FromFlags,
  OWN_FLAGS,
  readFlags,
  SERVER_FLAGS,
  variableOf,
} from '../src/cli/flags.js';
import { makePlan } from '../src/cli/plan.js';
import { OPTION_RULES } from '../src/options.js';
import { fixture } from './support/server.js';

const HELLO = fixture('../../examples/hello/handler.js');
const DOCS = readFileSync(new URL('../docs/cli.md', import.meta.url), 'utf8');
const plain = Object.entries(SERVER_FLAGS).filter((entry): entry is [string, Flag] => entry[1] !== null);
const all = [...plain.map(([, flag]) => flag), ...Object.values(OWN_FLAGS)];

/** One that the option takes. */
const VALUES: Record<string, [text: string, value: unknown]> = {
  ip: ['127.0.0.1', '127.0.0.1'],
  unix: ['/tmp/x', '/tmp/x'],
  unixMode: ['660', 0o660],
  tls: ['cert=/a.pem,key=/b.pem,passphrase=x=y', { cert: '/a.pem', key: '/b.pem', passphrase: 'x=y' }],
  trustProxy: ['10.0.0.0/8, loopback', ['10.0.0.0/8', 'loopback']],
  proxyProtocol: ['optional', 'optional'],
  proxyProtocolFrom: ['10.1.2.3', ['10.1.2.3']],
  dispatch: ['inline', false],
  streamBody: ['true', true],
  development: ['1', true],
  wsCompression: ['shared', 'shared'],
  wsIdleTimeout: ['9000', 9000],
  maxBody: ['Infinity', Number.POSITIVE_INFINITY],
  recycleAfter: ['requests=10,heapMb=1.5', { requests: 10, heapMb: 1.5 }],
  resourceLimits: ['maxOldGenerationSizeMb=64', { maxOldGenerationSizeMb: 64 }],
  execArgv: ['--no-warnings,--trace-uncaught', ['--no-warnings', '--trace-uncaught']],
  niceIncrement: ['5', 5],
  prefix: ['w-', 'w-'],
  serverHeader: ['none', null],
};

const server = (given: Parameters<typeof readFlags>[0], env = {}): FromFlags['server'] =>
  readFlags(given, env).server;

describe('the flags', () => {
  it('are one for each option of runServer that is a plain value', () => {
    expect(Object.keys(SERVER_FLAGS).sort()).toEqual(Object.keys(OPTION_RULES).sort());
    const none = Object.entries(SERVER_FLAGS).filter(([, flag]) => flag === null);
    // Functions, objects that cannot be written down, and what the command line decides itself.
    expect(none.map(([name]) => name).sort()).toEqual([
      'env',
      'errorLogger',
      'eventLogger',
      'eventNames',
      'reusePort',
      'warnLogger',
      'workerPool',
    ]);
  });

  it('have names of their own, and a variable each', () => {
    const names = all.map(({ flag }) => flag);
    expect(new Set(names).size).toBe(names.length);
    expect(variableOf(SERVER_FLAGS.queueSize as Flag)).toBe('OFFLOOP_QUEUE_SIZE');
  });

  it('stand in the documentation', () => {
    expect(all.map(({ flag }) => flag).filter((flag) => !DOCS.includes(`| \`--${flag}\``))).toEqual([]);
  });

  it.each(plain)('%s is read from the environment', (name, flag) => {
    const [text, value] = VALUES[name] ?? ['100', 100];
    expect(server({}, { [variableOf(flag)]: text })).toEqual({ [name]: value });
    expect(OPTION_RULES[name as keyof typeof OPTION_RULES].ok(value)).toBe(true);
  });

  it('read who is trusted as it is meant', () => {
    for (const [given, trustProxy] of [
      ['true', true],
      ['false', false],
      ['2', 2],
      ['1', 1],
      ['uniquelocal', ['uniquelocal']],
    ] as const)
      expect(server({ trustProxy: given })).toEqual({ trustProxy });
    expect(() => server({ trustProxy: '10.0.0.0/99' })).toThrow('--trust-proxy is "10.0.0.0/99"; allowed:');
    expect(() => server({ unixMode: '888' })).toThrow('an octal number');
    expect(() => server({ tls: 'cert.pem' })).toThrow('--tls');
  });

  it('win over the environment; an empty variable is none', () => {
    expect(server({ port: '1' }, { OFFLOOP_PORT: '2', OFFLOOP_N_MIN: '' })).toEqual({ port: 1 });
    expect(server({ development: false }, { OFFLOOP_DEVELOPMENT: 'true' })).toEqual({ development: false });
  });

  it('say what is wrong with a value, where it came from, and what is allowed', () => {
    expect(() => server({ port: 'x' })).toThrow('--port is "x"; allowed: a whole number from 0 to 65535.');
    expect(() => server({}, { OFFLOOP_PORT: 'tcp://10.0.0.1:80' })).toThrow(
      'OFFLOOP_PORT is "tcp://10.0.0.1:80"; allowed:',
    );
    expect(() => server({ port: '1e3' })).toThrow('--port');
    expect(() => server({ dispatch: 'false' })).toThrow(
      "--dispatch is \"false\"; allowed: 'pool' or 'inline'.",
    );
    expect(() => server({}, { OFFLOOP_STREAM_BODY: 'yes' })).toThrow(
      'OFFLOOP_STREAM_BODY is "yes"; allowed: true or false.',
    );
    expect(() => server({ recycleAfter: 'often' })).toThrow('some of requests=n, ms=n, heapMb=n');
    expect(() => server({ recycleAfter: 'requests=many' })).toThrow('--recycle-after');
    expect(() => readFlags({ processes: '0' }, {})).toThrow(
      '--processes is "0"; allowed: a whole number from 1 to 256.',
    );
  });

  it('know variables that mean nothing', () => {
    expect(readFlags({}, { OFFLOOP_QUEUESIZE: '1', OTHER: '2' }).unknown).toEqual(['OFFLOOP_QUEUESIZE']);
  });
});

describe('what is to be served', () => {
  const plan = (given: Parameters<typeof readFlags>[0], module = HELLO): ReturnType<typeof makePlan> =>
    makePlan(module, readFlags(given, {}));

  it('is the module, and those for other places', () => {
    const { mounts, pool, server } = plan({
      nMin: '2',
      nMax: '3',
      mount: [`/api=${HELLO}`],
      mountInline: [`x.org/ping=${HELLO}`],
    });
    expect(mounts).toMatchObject([
      { path: '/', dispatch: true },
      { path: '/api', dispatch: true, virtualHost: undefined },
      { path: '/ping', dispatch: false, virtualHost: 'x.org' },
    ]);
    expect({ pool, server }).toEqual({ pool: { nMin: 2, nMax: 3 }, server: {} });
  });

  it.each([
    [{}, './nowhere.js', 'there is no handler module ./nowhere.js: looked for /'],
    [{}, fixture('cli'), 'is no file'],
    [{ mount: ['api'] }, HELLO, '--mount is "api"; allowed: a path'],
    [{ mount: ['/a b=x.js'] }, HELLO, '--mount /a b=x.js: path is "/a b"'],
    [{ mount: [`/a=${HELLO}`, `/a=${HELLO}`] }, HELLO, '/a is claimed twice'],
    [{ readyPath: '/a', statsPath: '/a' }, HELLO, '/a is claimed twice'],
    [{ readyPath: 'ready' }, HELLO, '--ready-path is "ready"'],
    [{ nMin: '3', nMax: '2' }, HELLO, 'nMin'],
    [{ unix: '/tmp/x', port: '1' }, HELLO, 'port'],
  ])('is refused when it cannot be: %j', (given, module, says) => {
    expect(() => plan(given, module)).toThrow(says);
  });
});
