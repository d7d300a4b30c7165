import { describe, expect, it } from 'vitest';
import { type Candidate, candidates, firstThatLoads, loadEngine } from '../src/io/uws-loader.js';
import { RawClient } from './support/http-raw.js';
import { serve } from './support/server.js';

const native = (name: string): Candidate => ({
  name,
  load: () => ({ App: () => name, us_socket_local_port: () => 0 }),
});
const missing = (
  name: string,
  message = `Cannot find module '${name}'\nRequire stack:\n- secret`,
): Candidate => ({
  name,
  load: () => {
    throw new Error(message);
  },
});

describe('the engine', () => {
  it('is the first build that loads', () => {
    expect(firstThatLoads([missing('a'), native('b'), native('c')]).name).toBe('b');
  });

  it('is not loaded a second time, nor are builds behind the first that loads', () => {
    const calls: string[] = [];
    const counted = (candidate: Candidate): Candidate => ({
      name: candidate.name,
      load: () => {
        calls.push(candidate.name);
        return candidate.load();
      },
    });
    firstThatLoads([counted(missing('a')), counted(native('b')), counted(native('c'))]);
    expect(calls).toEqual(['a', 'b']);
    expect(loadEngine()).toBe(loadEngine(() => [missing('never asked')]));
  });

  it.each([
    {},
    { App: () => undefined },
    { us_socket_local_port: () => 0 },
    { App: 1, us_socket_local_port: 1 },
  ])('is no package that merely has the name, such as the emulation in JavaScript: %j', (module) => {
    expect(firstThatLoads([{ name: 'fake', load: () => module }, native('real')]).name).toBe('real');
  });

  it.each([null, undefined, 'text', 1])('is no module that exports %j', (module) => {
    expect(firstThatLoads([{ name: 'odd', load: () => module }, native('real')]).name).toBe('real');
  });

  it('that is nowhere is an error that says what was tried, on what, and what to do', () => {
    const glibc = "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by x.node)";
    const tried = [
      missing('first-build'),
      missing('second-build', glibc),
      { name: 'third-build', load: () => ({}) },
    ];
    let error: unknown;
    try {
      firstThatLoads(tried);
    } catch (e) {
      error = e;
    }
    expect(error).toMatchObject({ code: 'OFFLOOP_NO_ENGINE' });
    const { message } = error as Error;
    for (const text of [
      'first-build',
      'second-build',
      'third-build',
      "Cannot find module 'first-build'",
      glibc,
      'not the native engine',
      process.version,
      `ABI ${process.versions.modules}`,
      process.platform,
      process.arch,
      'npm install',
      'libc',
    ]) {
      expect(message).toContain(text);
    }
    expect(message).not.toContain('Require stack');
  });

  it('that throws something that is no error is an error all the same', () => {
    const odd = [undefined, null, 'text', 42, {}].map((thrown, i) => ({
      name: `odd-${i}`,
      load: () => {
        throw thrown;
      },
    }));
    expect(() => firstThatLoads(odd)).toThrow(/odd-0[\s\S]*odd-4/);
  });

  it('is looked for first where the user may have installed it', () => {
    const names = candidates().map(({ name }) => name);
    expect(names[0]).toBe('uWebSockets.js');
    expect(names.at(-1)).toBe('@trufflesuite/uws-js-unofficial');
    expect(names).toContain('@btc-vision/uwebsockets.js');
  });

  it('loads here', () => {
    const { uws, name } = loadEngine();
    expect(typeof uws.App).toBe('function');
    expect(candidates().map((candidate) => candidate.name)).toContain(name);
  });

  it('says nothing of itself in any answer, and writes the date once', async () => {
    const test = await serve(
      (req) => ({
        status: req.path === '/204' ? 204 : 200,
        body: req.path === '/large' ? 'x'.repeat(300_000) : 'x',
      }),
      {
        dispatch: false,
        maxBody: 1,
        maxLine: 100,
        serverHeader: null,
      },
    );
    const raw = async (text: string): Promise<void> => {
      const client = await RawClient.open(test.port);
      client.send(text);
      const response = await client.response(text.startsWith('HEAD'));
      expect(response.headText).not.toMatch(/uwebsockets|offloop|^server:/im);
      expect(response.all('date')).toHaveLength(1);
      const age = Date.now() - Date.parse(response.header('date') as string);
      expect(Math.abs(age)).toBeLessThan(60_000);
    };
    for (const path of ['/', '/204', '/large']) {
      await raw(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`);
      await raw(`HEAD ${path} HTTP/1.1\r\nHost: h\r\n\r\n`);
    }
    await raw('GET / HTTP/1.1\r\nHost: a b\r\n\r\n');
    await raw('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n');
    await raw('POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n0\r\n\r\n');
    await raw(`GET /${'x'.repeat(100)} HTTP/1.1\r\nHost: h\r\n\r\n`);
    await raw(`GET / HTTP/1.1\r\nHost: h\r\nX: ${'x'.repeat(100)}\r\n\r\n`);
  });
});
