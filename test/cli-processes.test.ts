import { writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type Cli, cli, groupIsAlive } from './support/cli.js';
import { scratch } from './support/pool-client.js';
import { fixture, until } from './support/server.js';

const SLOW = fixture('cli/slow.js');
const TOPICS = fixture('cli/topics.js');
const several = (module: string, ...more: string[]): Cli =>
  cli([
    'serve',
    module,
    '--host',
    '127.0.0.1',
    '--port',
    '0',
    '--processes',
    '2',
    '--stats-path',
    '/stats',
    ...more,
  ]);

/** A request over a connection of its own, which the kernel gives to any of the processes. */
async function fresh(url: string, method = 'GET'): Promise<{ status: number; text: string; pid: string }> {
  const agent = new Agent();
  try {
    const { statusCode, headers, body } = await request(url, { dispatcher: agent, method: method as 'GET' });
    return { status: statusCode, text: await body.text(), pid: String(headers['x-pid']) };
  } finally {
    await agent.destroy();
  }
}

interface All {
  total: { open: number; channels: number; answers: Record<string, number> };
  processes: {
    number: number;
    pid: number;
    restarts: number;
    dropped: number;
    stats: { status: string } | null;
  }[];
}
const statsOf = async (url: string): Promise<All> => JSON.parse((await fresh(`${url}/stats`)).text) as All;
const pidsOf = async (url: string): Promise<number[]> => (await statsOf(url)).processes.map(({ pid }) => pid);

/** Streams on the topic, at least one in each process. */
async function streams(
  url: string,
  topic: string,
  pids: readonly number[],
): Promise<{ pid: string; text: () => string; bytes: () => number }[]> {
  const found: { pid: string; text: () => string; bytes: () => number }[] = [];
  while (new Set(found.map(({ pid }) => pid)).size < pids.length) {
    found.push(
      await new Promise((resolve, reject) => {
        const sent = httpRequest(`${url}/${topic}`, { agent: false }, (response) => {
          let text = '';
          let bytes = 0;
          response.on('data', (chunk: Buffer) => {
            bytes += chunk.length;
            if (text.length < 1000) text += chunk.toString();
          });
          response.once('error', () => undefined);
          resolve({ pid: String(response.headers['x-pid']), text: () => text, bytes: () => bytes });
        });
        sent.once('error', reject);
        sent.end();
        onTestFinished(() => void sent.destroy());
      }),
    );
  }
  return found;
}

describe.runIf(process.platform === 'linux')('several processes on one port', () => {
  it('share its connections, say their numbers together, and all end with 0', async () => {
    const { url, child, ended, pid, out } = several(SLOW);
    const home = await url();
    const pids = await pidsOf(home);
    expect(new Set(pids).size).toBe(2);
    expect(out()).toContain(`processes   ${pids.join(', ')}\n`);
    const answered = new Set<string>();
    await until(async () => answered.add((await fresh(`${home}/pid`)).text).size === 2, 'both have answered');
    expect([...answered].map(Number).sort()).toEqual([...pids].sort());
    const { total, processes } = await statsOf(home);
    expect(total.answers['200']).toBeGreaterThan(2);
    expect(processes.map(({ stats }) => stats?.status)).toEqual(['running', 'running']);
    // What is under way in any of them is finished.
    const slow = Promise.all(Array.from({ length: 8 }, () => fresh(`${home}/?500`)));
    await until(async () => (await statsOf(home)).total.open >= 8, 'they are under way');
    child.kill('SIGTERM');
    expect((await slow).map(({ text }) => text)).toEqual(Array<string>(8).fill('done'));
    expect(await ended).toBe(0);
    expect(groupIsAlive(pid)).toBe(false);
  });

  it('are not joined by a stranger, and do not join one', async () => {
    const first = several(SLOW);
    const port = new URL(await first.url()).port;
    for (const processes of ['1', '2']) {
      const args = ['serve', SLOW, '--host', '127.0.0.1', '--port', port, '--processes', processes];
      const second = cli(args);
      expect(await second.ended).toBe(2);
      expect(second.err()).toContain('(EADDRINUSE)');
    }
  });

  it('are started again when they crash, while the others go on', async () => {
    const { url, says, err } = several(SLOW);
    const home = await url();
    const before = await pidsOf(home);
    await expect(fresh(`${home}/die`)).rejects.toThrow();
    await says(/process \d+ \(\d\) ended by SIGKILL/);
    expect((await fresh(`${home}/`)).text).toBe('done');
    await says(/listens again/);
    const { processes } = await statsOf(home);
    expect(processes.filter(({ pid }) => before.includes(pid)).length).toBe(1);
    expect(processes.map(({ restarts }) => restarts).sort()).toEqual([0, 1]);
    expect(err()).toMatch(/is started again in 100 ms/);
  });

  it('pass on what is published to the channels of all, text and bytes', async () => {
    const { url } = several(TOPICS);
    const home = await url();
    const all = await streams(home, 'news', await pidsOf(home));
    await request(`${home}/news`, { method: 'POST', body: 'héllo\n' });
    await request(`${home}/other`, { method: 'POST', body: 'not this\n' });
    await until(() => all.every(({ text }) => text() === 'open\nhéllo\n'), 'everybody has it once');
  });

  it('do not wait for one that does not read', async () => {
    const { url, says } = several(TOPICS);
    const home = await url();
    const all = await streams(home, 'much', await pidsOf(home));
    const [stopped] = all;
    // Connections that the kernel gives to it wait; this one is with the other.
    let post: Agent;
    let pid: string;
    do {
      post = new Agent({ connections: 1 });
      const { headers, body } = await request(`${home}/ping`, {
        method: 'POST',
        dispatcher: post,
        body: 'x',
      });
      await body.dump();
      pid = String(headers['x-pid']);
    } while (pid === stopped?.pid);
    onTestFinished(() => post.destroy());
    process.kill(Number(stopped?.pid), 'SIGSTOP');
    try {
      const others = all.filter(({ pid }) => pid !== stopped?.pid);
      for (let i = 1; i <= 30; i++) {
        const { body } = await request(`${home}/much?length=1000000`, { method: 'POST', dispatcher: post });
        await body.dump();
        await until(
          () => others.every(({ bytes }) => bytes() >= i * 1_000_000),
          `the others have number ${i}`,
        );
      }
      await says(/process \d+ does not read: what others publish is dropped for it/);
    } finally {
      process.kill(Number(stopped?.pid), 'SIGCONT');
    }
    await until(
      () => all.filter(({ pid }) => pid === stopped?.pid).every(({ bytes }) => bytes() > 1_000_000),
      'it goes on',
    );
    expect((await statsOf(home)).processes.some(({ dropped }) => dropped > 0)).toBe(true);
  });

  it('are replaced one by one on SIGHUP, and no request is lost', async () => {
    const path = join(scratch(), 'handler.js');
    const says = (text: string): void =>
      writeFileSync(
        path,
        `export default () => ({ body: '${text}', headers: { 'x-pid': String(process.pid) } });\n`,
      );
    says('one');
    const started = several(path);
    const home = await started.url();
    const before = await pidsOf(home);
    const agent = new Agent({ connections: 8 });
    onTestFinished(() => agent.destroy());
    const answers = new Map<string, number>();
    let over = false;
    const load = Array.from({ length: 8 }, async () => {
      while (!over) {
        const { statusCode, body } = await request(home, { dispatcher: agent });
        const answer = `${statusCode} ${await body.text()}`;
        answers.set(answer, (answers.get(answer) ?? 0) + 1);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    });
    await until(() => (answers.get('200 one') ?? 0) > 50, 'requests are answered');
    says('two');
    started.child.kill('SIGHUP');
    const [, pids] = await started.says(/replaced all processes in \d+ ms: ([\d, ]+)\n/);
    const after = String(pids).split(', ').map(Number);
    expect(after.filter((pid) => before.includes(pid))).toEqual([]);
    const seen = answers.get('200 two') ?? 0;
    await until(() => (answers.get('200 two') ?? 0) > seen + 50, 'the new ones answer');
    over = true;
    await Promise.all(load);
    expect([...answers.keys()].sort()).toEqual(['200 one', '200 two']);
    expect((await pidsOf(home)).sort()).toEqual(after.sort());

    // What does not start replaces nothing.
    writeFileSync(path, 'throw new RangeError("not today");\n');
    started.child.kill('SIGHUP');
    await started.says(/a new process does not start, the old ones go on: [\s\S]*RangeError: not today/);
    expect((await fresh(home)).text).toBe('two');
    expect((await pidsOf(home)).sort()).toEqual(after.sort());
  });

  it('end at once on the second signal', async () => {
    const { url, child, ended, says, pid } = several(SLOW);
    const home = await url();
    const slow = fresh(`${home}/?600000`).catch(() => 'cut');
    await until(async () => (await statsOf(home)).total.open >= 2, 'it is under way');
    child.kill('SIGINT');
    await says(/once more ends at once/);
    child.kill('SIGTERM');
    expect(await ended).toBe(143);
    expect(await slow).toBe('cut');
    await until(() => !groupIsAlive(pid), 'none is left');
  });

  it('end by themselves when whoever started them is killed', async () => {
    const { url, child, pid } = several(SLOW);
    await url();
    child.kill('SIGKILL');
    await until(() => !groupIsAlive(pid), 'none is left', 15_000);
  });

  it('end when the whole group is told to, as process managers do', async () => {
    const { url, ended, pid } = several(SLOW);
    await url();
    process.kill(-pid, 'SIGTERM');
    expect(await ended).toBe(0);
  });
});
