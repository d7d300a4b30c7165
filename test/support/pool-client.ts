/** Asks a server whose handlers are in test/fixtures/pool. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Server, WorkerPoolStats } from 'offloop';
import { onTestFinished } from 'vitest';
import { fixture, until, within } from './server.js';

export const WORK = fixture('pool/work.mjs');
export const BLOCK = fixture('pool/block.mjs');
export const LATE = fixture('pool/late.mjs');

/** For stories about which thread has what: one that is slow to wake, as on a busy machine, has its work taken back, and another one may get it. */
export const MAY_GO_ELSEWHERE = { retry: 3 };

/** An answer as the tests look at it. */
export interface Reply {
  readonly status: number;
  readonly text: string;
  readonly headers: Headers;
}

/** What the handler in work.mjs says of itself. */
export interface Worked {
  readonly id: string | null;
  readonly threadId: number;
  readonly calls: number;
  readonly pendingMax: number;
}

type Query = Record<string, string | number>;

/** One request, on a connection that nobody else uses at the same time. */
export async function ask(url: string, query: Query = {}, signal?: AbortSignal): Promise<Reply> {
  const params = new URLSearchParams(
    Object.entries(query).map(([name, value]): [string, string] => [name, String(value)]),
  );
  const response = await fetch(`${url}?${params}`, signal === undefined ? {} : { signal });
  return { status: response.status, text: await response.text(), headers: response.headers };
}

/** A request whose client can leave. */
export function leavable(url: string, query: Query = {}): { leave: () => Promise<void> } {
  const params = new URLSearchParams(
    Object.entries(query).map(([name, value]): [string, string] => [name, String(value)]),
  );
  const request = httpRequest(`${url}?${params}`, { agent: false });
  request.on('error', () => undefined);
  request.end();
  const closed = new Promise<void>((resolve) => request.once('close', () => resolve()));
  const leave = (): Promise<void> => {
    request.destroy();
    return closed;
  };
  return { leave };
}

export async function work(url: string, query: Query = {}): Promise<Worked> {
  const { status, text } = await ask(url, query);
  if (status !== 200) throw new Error(`${status}: ${text}`);
  return JSON.parse(text) as Worked;
}

/** How many of each status. */
export function tally(replies: readonly Reply[]): Record<number, number> {
  const counts: Record<number, number> = {};
  for (const { status } of replies) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

/** The same cheap request again and again, so that the pool knows how cheap it is. At most `width` at a time. */
export async function warmUp(url: string, count: number, width = 1): Promise<void> {
  let left = count;
  const lane = async (): Promise<void> => {
    while (left-- > 0) await work(url);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

export function poolOf(server: Server): WorkerPoolStats {
  const { pool } = server.stats();
  if (pool === null) throw new Error('the server has no pool');
  return pool;
}

/** Wait until the pool has this many threads, all ready and with nothing to do. */
export async function untilWhole(server: Server, size: number): Promise<void> {
  const whole = (): boolean => {
    const { workers, running, pending, queued } = poolOf(server);
    return (
      running + pending + queued === 0 &&
      workers.length === size &&
      workers.every((worker) => worker.state === 'ready')
    );
  };
  await until(whole, `the pool is whole with ${size}`);
}

/** A directory that is gone when the test is over. */
export function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'offloop-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Something handlers wait for: they look for the file. It opens when the test is over at the latest. */
export interface Gate {
  readonly path: string;
  open(): void;
}
export function gate(): Gate {
  const path = join(scratch(), 'gate');
  const open = (): void => writeFileSync(path, '');
  return { path, open };
}

/** A file in which handlers leave a line each. */
export interface Log {
  readonly path: string;
  lines(): string[];
}
export function log(): Log {
  const path = join(scratch(), 'log');
  writeFileSync(path, '');
  return { path, lines: () => readFileSync(path, 'utf8').split('\n').slice(0, -1) };
}

/** Wait until the pool has this many invocations waiting. */
export async function untilQueued(server: Server, queued: number): Promise<void> {
  await until(() => poolOf(server).queued === queued, `${queued} wait; ${JSON.stringify(server.stats())}`);
}

/** Let these wait for their turn one behind the other, in this order. The workers must be busy. */
export async function queueUp(
  server: Server,
  url: string,
  queries: readonly Query[],
): Promise<Promise<Reply>[]> {
  const replies: Promise<Reply>[] = [];
  const before = poolOf(server).queued;
  for (const query of queries) {
    const reply = ask(url, query);
    reply.catch(() => undefined);
    replies.push(reply);
    await untilQueued(server, before + replies.length);
  }
  return replies;
}

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Run a program in a Node of its own, from the root of the package. It must end by itself. */
export function program(source: string, args: readonly string[] = [], ms = 30_000): Promise<Ended> {
  const ended = new Promise<Ended>((resolve) => {
    const flags = ['--input-type=module', '--eval', source, '--', ...args];
    const child = execFile(
      process.execPath,
      flags,
      { env: { ...process.env, NODE_OPTIONS: '' } },
      (_, out, err) => {
        resolve({ code: child.exitCode, out, err });
      },
    );
    onTestFinished(() => void child.kill('SIGKILL'));
  });
  return within(ended, 'the program to end', ms);
}
