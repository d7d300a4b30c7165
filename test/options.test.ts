import { availableParallelism } from 'node:os';
import { runServer } from 'offloop';
import { describe, expect, it } from 'vitest';
import { OffloopTypeError } from '../src/errors.js';
import {
  EVENT_NAMES,
  resolveMountOptions,
  resolvePoolOptions,
  resolveServerOptions,
  resolveStopOptions,
} from '../src/options.js';
import { WorkerPool } from '../src/pool/worker-pool.js';

const MS = 2 ** 31 - 1;
const noop = (): undefined => undefined;

/** What a value is called in a message. */
function typeName(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

interface Case {
  readonly good: readonly unknown[];
  readonly bad: readonly unknown[];
}

const NOT_NUMBERS = ['1', true, null, {}, [], [1], 1n, noop, Symbol('one')];
const wholeNumber = (min: number, max: number): Case => ({
  good: [min, max, min + 1],
  bad: [
    ...NOT_NUMBERS,
    min - 1,
    max + 1,
    min + 0.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    -1,
  ],
});
const logger: Case = { good: [noop, () => 1], bad: ['console.log', null, {}, true, 1] };

const POOL: Record<string, Case> = {
  nMin: { good: [1, 2], bad: wholeNumber(1, 1024).bad },
  nMax: wholeNumber(1, 1024),
  queueSize: { ...wholeNumber(0, 2 ** 30) },
  concurrency: wholeNumber(1, 65536),
  threadIdleTimeout: wholeNumber(0, MS),
  niceIncrement: wholeNumber(0, 19),
  resourceLimits: {
    good: [{}, { maxOldGenerationSizeMb: 64 }, { stackSizeMb: 0.5, maxYoungGenerationSizeMb: undefined }],
    bad: [
      null,
      [],
      64,
      '64',
      { maxOldGenerationSizeMb: '64' },
      { maxOldGenerationSizeMb: 0 },
      { maxOldGenerationSizeMb: -1 },
      { maxOldGenerationSizeMb: Number.NaN },
      { maxHeap: 64 },
      { toString: 64 },
    ],
  },
  env: { good: [{}, { A: 'b', C: undefined }], bad: [null, [], 'A=b', { A: 1 }, { A: null }] },
  execArgv: { good: [[], ['--no-warnings']], bad: [null, '--no-warnings', [1], {}, [undefined]] },
  recycleAfter: {
    good: [
      {},
      { requests: 1 },
      { requests: 10_000, ms: 60_000, heapMb: 256 },
      { heapMb: 0.5, ms: undefined },
      { requests: Number.POSITIVE_INFINITY },
    ],
    bad: [
      null,
      [],
      1000,
      '1000',
      noop,
      { requests: 0 },
      { ms: -1 },
      { heapMb: Number.NaN },
      { requests: '1000' },
      { requests: 1n },
      { requests: null },
      { minutes: 5 },
      { Requests: 5 },
      { toString: 5 },
    ],
  },
  batchMicros: wholeNumber(0, 1_000_000),
  prefix: { good: ['', 'w-'], bad: [null, 1, {}, []] },
};

const TIMES: Record<string, Case> = {
  queueTimeout: wholeNumber(0, MS),
  handlerTimeout: wholeNumber(0, MS),
  killAfter: wholeNumber(0, MS),
};

const BODIES: Record<string, Case> = {
  maxBody: {
    good: [0, 1, 2 ** 31, Number.MAX_SAFE_INTEGER, Number.POSITIVE_INFINITY],
    bad: [-1, 1.5, 2 ** 53, Number.NEGATIVE_INFINITY, Number.NaN, '1', null, {}, [], 1n],
  },
  streamBody: { good: [true, false], bad: ['true', 0, 1, null, {}] },
};

const SERVER: Record<string, Case> = {
  ...TIMES,
  ...BODIES,
  ip: {
    good: ['0.0.0.0', '127.0.0.1', '::', '::1', 'localhost'],
    bad: ['', 'example.com', '1.2.3', '256.1.1.1', 1, null, {}],
  },
  port: wholeNumber(0, 65535),
  unix: {
    good: ['/tmp/a', 'a', 'x'.repeat(107)],
    bad: ['', 'x'.repeat(108), '\u00e9'.repeat(54), 1, null, {}],
  },
  trustProxy: {
    good: [true, false, 1, 32, ['loopback', 'unix', '10.0.0.0/8', '2001:db8::/32', '::1']],
    bad: [
      0,
      33,
      1.5,
      'loopback',
      [],
      ['10.0.0.0/33'],
      ['10.0.0/8'],
      ['::1/129'],
      ['a.test'],
      ['1.2.3.4/'],
      [1],
      null,
      {},
    ],
  },
  proxyProtocol: { good: ['disable', 'enable', 'optional'], bad: [true, '', 'v2', 2, null, {}] },
  dispatch: { good: [true, false], bad: ['true', 0, 1, null, {}] },
  workerPool: { good: [], bad: [null, 1, 'pool', {}, [], noop, { close: 1 }, { close: noop }] },
  maxLine: wholeNumber(64, 65536),
  development: { good: [true, false], bad: ['true', 0, 1, null, {}] },
  serverHeader: { good: ['x', 'a b/1.0', null], bad: ['', 'a\r\nb: c', 'a\0', 1, {}, 'a\u007f'] },
  errorLogger: logger,
  warnLogger: logger,
  eventLogger: logger,
  eventNames: {
    good: [{}, { serverStatus503: 'busy' }, { serverStatus503: undefined }],
    bad: [null, [], 'x', { serverStatus503: 1 }, { noSuchEvent: 'x' }, { toString: 'x' }],
  },
};

const MOUNT: Record<string, Case> = {
  ...TIMES,
  ...BODIES,
  path: { good: ['/', '/a', '/a/b/'], bad: ['', 'a', '/a b', '/a?b', '/a#b', '/a\n', '/a\u007f', 1, null] },
  virtualHost: {
    good: ['example.com', ['a.test', '*.b.test'], '[::1]', 'localhost', '*.example.com'],
    bad: [
      '*',
      '*.',
      '*.*.a',
      'a.*',
      '*a.test',
      '',
      [],
      'a:80',
      'a b',
      'a/b',
      ['a', ''],
      ['a', 1],
      1,
      null,
      {},
    ],
  },
  dispatch: SERVER['dispatch'] as Case,
  workerPool: SERVER['workerPool'] as Case,
};

type Resolve = (options: unknown) => unknown;
const TABLES: [what: string, Resolve, Record<string, Case>][] = [
  ['createWorkerPool', (options) => resolvePoolOptions(options), POOL],
  ['runServer', (options) => resolveServerOptions(options), { ...POOL, ...SERVER }],
  ['mount', (options) => resolveMountOptions(options), MOUNT],
  ['stop', (options) => resolveStopOptions(options), { timeout: wholeNumber(0, MS) }],
];

function refusalOf(resolve: Resolve, options: unknown): OffloopTypeError {
  try {
    resolve(options);
  } catch (error) {
    if (error instanceof OffloopTypeError) return error;
    throw error;
  }
  throw new Error('the options were taken');
}

describe.each(TABLES)('the options of %s', (what, resolve, table) => {
  it.each(Object.entries(table))('take %s up to its edges', (name, { good }) => {
    for (const value of good) expect(() => resolve({ [name]: value })).not.toThrow();
    expect(() => resolve({ [name]: undefined })).not.toThrow();
  });

  it.each(Object.entries(table))('refuse %s when it is wrong, and say how', (name, { bad }) => {
    for (const value of bad) {
      const error = refusalOf(resolve, { [name]: value });
      expect(error).toBeInstanceOf(TypeError);
      expect(error.code).toBe('OFFLOOP_BAD_OPTION');
      expect(error.message).toContain(`option ${name} is `);
      expect(error.message).toContain(typeName(value));
      expect(error.message).toMatch(/; allowed: .+\.$/);
      expect(error.message.startsWith(`${what}: `)).toBe(true);
      if (typeof value === 'number') expect(error.message).toContain(String(value));
    }
  });

  it.each(['nope', 'NMIN', 'toString', '__proto__x', 'constructor', '0'])('know no option %s', (name) => {
    const error = refusalOf(resolve, { [name]: 1 });
    expect(error.code).toBe('OFFLOOP_BAD_OPTION');
    expect(error.message).toContain(`there is no option ${name}`);
    for (const known of Object.keys(table)) expect(error.message).toContain(known);
  });

  it.each([null, 1, 'x', true, [], noop])('are an object and not %o', (options) => {
    expect(refusalOf(resolve, options).code).toBe('OFFLOOP_BAD_OPTION');
  });

  it('may be left out', () => {
    expect(() => resolve(undefined)).not.toThrow();
    expect(() => resolve({})).not.toThrow();
  });

  it('are shown short, whatever the value is', () => {
    const [name] = Object.keys(table) as [string];
    const circle: Record<string, unknown> = {};
    circle['circle'] = circle;
    const values = [
      'x'.repeat(10_000),
      Array(10_000).fill(1),
      circle,
      { big: 1n },
      { toJSON: () => undefined },
      new Map(),
    ];
    for (const value of values) {
      const { message } = refusalOf(resolve, { [name]: value });
      expect(message.length).toBeLessThan(600);
      expect(message).toContain(`option ${name} is `);
    }
  });
});

describe('the bounds of a pool', () => {
  it('default to all cores but one, and all cores', () => {
    const cores = availableParallelism();
    expect(resolvePoolOptions({})).toMatchObject({
      nMin: Math.max(1, cores - 1),
      nMax: cores,
      queueSize: 1024,
      concurrency: 64,
      threadIdleTimeout: 30_000,
      niceIncrement: 10,
      prefix: 'offloop-worker-',
      batchMicros: 1000,
      recycleAfter: {
        requests: Number.POSITIVE_INFINITY,
        ms: Number.POSITIVE_INFINITY,
        heapMb: Number.POSITIVE_INFINITY,
      },
    });
  });

  it('leave the limits of recycleAfter that are not given at never', () => {
    const { recycleAfter } = resolvePoolOptions({ recycleAfter: { requests: 500, heapMb: undefined } });
    expect(recycleAfter).toEqual({
      requests: 500,
      ms: Number.POSITIVE_INFINITY,
      heapMb: Number.POSITIVE_INFINITY,
    });
  });

  it.each(['nMin', 'recycleAfter', 'batchMicros'])('are not those of a mount: %s', (name) => {
    const error = refusalOf(resolveMountOptions, { [name]: POOL[name]?.good[1] });
    expect(error.message).toContain(`there is no option ${name}`);
  });

  it.each([...Object.keys(TIMES), ...Object.keys(BODIES), 'development'])(
    'are not those of a server: %s',
    (name) => {
      const error = refusalOf(resolvePoolOptions, { [name]: SERVER[name]?.good[0] });
      expect(error.message).toContain(`there is no option ${name}`);
    },
  );

  it('follow each other when only one is given', () => {
    expect(resolvePoolOptions({ nMin: 100 })).toMatchObject({ nMin: 100, nMax: 100 });
    expect(resolvePoolOptions({ nMax: 1 })).toMatchObject({ nMin: 1, nMax: 1 });
  });

  it('are refused when nMin is above nMax', () => {
    const { message } = refusalOf(resolvePoolOptions, { nMin: 5, nMax: 4 });
    expect(message).toContain('option nMin is 5 (number)');
    expect(message).toContain('at most nMax, which is 4');
  });
});

describe('options that exclude each other', () => {
  it.each(Object.keys(POOL))('refuse %s beside a workerPool, which has its own', async (name) => {
    const pool = new WorkerPool(resolvePoolOptions({ nMin: 1 }));
    try {
      const error = refusalOf(resolveServerOptions, { workerPool: pool, [name]: POOL[name]?.good[0] });
      expect(error.message).toContain(`option ${name} is `);
      expect(error.message).toContain('workerPool');
    } finally {
      await pool.close();
    }
  });

  it('take a workerPool alone', async () => {
    const pool = new WorkerPool(resolvePoolOptions({ nMin: 1 }));
    expect(resolveServerOptions({ workerPool: pool }).workerPool).toBe(pool);
    expect(resolveServerOptions({ workerPool: pool, nMin: undefined }).workerPool).toBe(pool);
    await pool.close();
  });

  it.each([['port', 80] as const, ['ip', '127.0.0.1'] as const])('refuse %s beside unix', (name, value) => {
    const error = refusalOf(resolveServerOptions, { unix: '/tmp/x', [name]: value });
    expect(error.message).toContain(`option ${name} is `);
    expect(error.message).toContain('unix');
  });

  it.each([
    [{ unixMode: 0o660 }, 'option unixMode is 432 (number); allowed: nothing without unix'],
    [
      { unix: '/tmp/x', unixMode: 0o1000 },
      'option unixMode is 512 (number); allowed: a whole number from 0 to 0o777',
    ],
    [{ unix: '/tmp/x', unixMode: '660' }, 'option unixMode is "660" (string)'],
    [{ proxyProtocolFrom: ['loopback'] }, 'allowed: nothing without proxyProtocol'],
    [
      { proxyProtocol: 'enable', proxyProtocolFrom: ['300.0.0.1'] },
      'option proxyProtocolFrom is ["300.0.0.1"] (array); allowed: a non-empty array of addresses',
    ],
    [{ proxyProtocol: 'enable', proxyProtocolFrom: [] }, 'option proxyProtocolFrom is [] (array)'],
    [{ proxyProtocol: 'optional', tls: { cert: 'c', key: 'k' } }, "allowed: 'disable' beside tls"],
  ])('refuse what goes with something else: %j', (options, message) => {
    expect(refusalOf(resolveServerOptions, options).message).toContain(message);
  });
});

describe('the defaults of a server', () => {
  it('are the documented ones', () => {
    expect(resolveServerOptions({})).toMatchObject({
      dispatch: true,
      workerPool: undefined,
      server: {
        ip: '0.0.0.0',
        port: 8090,
        maxBody: 8 * 1024 * 1024,
        streamBody: false,
        maxLine: 8192,
        serverHeader: 'offloop',
        development: false,
        limits: { queueTimeout: 0, handlerTimeout: 0, killAfter: 1000 },
        eventNames: EVENT_NAMES,
      },
    });
  });

  it('keep the other event names when some are changed', () => {
    const { eventNames } = resolveServerOptions({
      eventNames: { serverStatus503: 'busy', serverStatus404: undefined },
    }).server;
    expect(eventNames).toEqual({ ...EVENT_NAMES, serverStatus503: 'busy' });
  });

  it('limit no time, and a mount has those of its server for what it does not say itself', () => {
    const { limits } = resolveServerOptions({ handlerTimeout: 5000, killAfter: 0 }).server;
    expect(limits).toEqual({ queueTimeout: 0, handlerTimeout: 5000, killAfter: 0 });
    const mount = resolveMountOptions({ queueTimeout: 100, handlerTimeout: 0, killAfter: undefined });
    expect(mount.limits).toEqual({ queueTimeout: 100, handlerTimeout: 0 });
    expect(resolveMountOptions({}).limits).toEqual({});
    expect(resolveServerOptions({ queueTimeout: undefined }).server.limits.queueTimeout).toBe(0);
  });

  it('hold for the bodies of a mount that says nothing of them', () => {
    expect(resolveMountOptions({}).bodies).toEqual({});
    const { bodies } = resolveMountOptions({ maxBody: Number.POSITIVE_INFINITY, streamBody: true });
    expect(bodies).toEqual({ maxBody: Number.POSITIVE_INFINITY, streamBody: true });
  });

  it('have a time limit beside a workerPool, since it is no option of the pool', async () => {
    const pool = new WorkerPool(resolvePoolOptions({ nMin: 1 }));
    const { server } = resolveServerOptions({ workerPool: pool, handlerTimeout: 10, development: true });
    expect(server).toMatchObject({ development: true, limits: { handlerTimeout: 10 } });
    await pool.close();
  });

  it('leave ten seconds for a stop', () => {
    expect(resolveStopOptions()).toEqual({ timeout: 10_000, grace: 0 });
  });
});

describe('runServer', () => {
  const rejection = (handler: unknown, options?: unknown): Promise<{ code: string; message: string }> =>
    runServer(handler as string, options as object).then(
      async (server) => {
        await server.stop();
        throw new Error('it started');
      },
      (error: unknown) => error as { code: string; message: string },
    );

  it('refuses a function to be dispatched, and says both ways out', async () => {
    const error = await rejection(() => ({ body: 'x' }));
    expect(error).toBeInstanceOf(TypeError);
    expect(error.code).toBe('OFFLOOP_FUNCTION_NEEDS_INLINE');
    expect(error.message).toContain('cannot cross threads');
    expect(error.message).toContain("runServer('./handler.js')");
    expect(error.message).toContain('{ dispatch: false }');
    expect((await rejection({ fetch: noop })).code).toBe('OFFLOOP_FUNCTION_NEEDS_INLINE');
  });

  it.each([undefined, null, 1, true])('refuses %o as a handler', async (handler) => {
    const error = await rejection(handler);
    expect(error).toBeInstanceOf(TypeError);
    expect(error.code).toBe('OFFLOOP_NO_HANDLER');
  });

  it('rejects rather than throws when an option is bad', async () => {
    const promise = runServer(noop, { port: -1, dispatch: false });
    await expect(promise).rejects.toMatchObject({ code: 'OFFLOOP_BAD_OPTION' });
  });
});
