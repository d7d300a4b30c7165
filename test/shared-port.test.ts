import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:net';
import { Agent, request } from 'undici';
import { describe, expect, it, onTestFinished } from 'vitest';
import { serve, until, within } from './support/server.js';

const named = (name: string) => () => ({ body: name });

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

async function ask(port: number): Promise<string> {
  const agent = new Agent();
  try {
    return await (await request(`http://127.0.0.1:${port}/`, { dispatcher: agent })).body.text();
  } finally {
    await agent.destroy();
  }
}

describe.runIf(process.platform === 'linux')('a shared port', () => {
  it('is served by all who share it, and by nobody else', async () => {
    const port = await freePort();
    const options = { dispatch: false, port, reusePort: true } as const;
    await serve(named('one'), options);
    await serve(named('two'), options);
    const answers = new Set<string>();
    await until(async () => answers.add(await ask(port)).size === 2, 'both have answered');
    await expect(serve(named('three'), { ...options, reusePort: false })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });

  it('is not joined where somebody listens alone', async () => {
    const { port } = await serve(named('alone'), { dispatch: false });
    await expect(serve(named('x'), { dispatch: false, port, reusePort: true })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });

  it('has to have a number', async () => {
    await expect(serve(named('x'), { dispatch: false, reusePort: true })).rejects.toThrow(
      'option port is 0 (number); allowed: a port above 0 beside reusePort',
    );
  });
});

describe('stop with a time of grace', () => {
  it('answers over open connections, closes each behind its answer, and takes no new ones', async () => {
    const { server, port, url } = await serve(named('still here'), { dispatch: false });
    const agent = new Agent({ connections: 1 });
    onTestFinished(() => agent.destroy());
    await (await request(url, { dispatcher: agent })).body.dump();
    const stopped = server.stop({ grace: 600_000 });
    expect(server.status).toBe('stopping');
    await until(async () => {
      const probe = connect(port, '127.0.0.1');
      try {
        await once(probe, 'connect');
        return false;
      } catch {
        return true;
      } finally {
        probe.destroy();
      }
    }, 'new connections are refused');
    const { statusCode, headers, body } = await request(url, { dispatcher: agent });
    expect([statusCode, headers['connection'], await body.text()]).toEqual([200, 'close', 'still here']);
    // Nobody is connected any more: on Linux there is nothing to wait for.
    if (process.platform === 'linux') expect(await within(stopped, 'the end of the grace')).toBe(true);
  });

  it('is over in time for clients that say nothing', async () => {
    const { server, port } = await serve(named('x'), { dispatch: false });
    const idle = connect(port, '127.0.0.1');
    await once(idle, 'connect');
    expect(await within(server.stop({ grace: 150 }), 'the end of the grace')).toBe(true);
    await once(idle, 'close');
  });

  it('runs before the time of the requests under way begins', async () => {
    let answer: (() => void) | undefined;
    const { server, url } = await serve(
      () =>
        new Promise((resolve) => {
          answer = () => resolve({ body: 'late' });
        }),
      { dispatch: false },
    );
    const late = fetch(url);
    await until(() => answer, 'it is under way');
    const stopped = server.stop({ grace: 200, timeout: 60_000 });
    setTimeout(() => answer?.(), 400);
    expect(await (await late).text()).toBe('late');
    expect(await stopped).toBe(true);
  });
});
