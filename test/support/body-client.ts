/** Clients of the handler in test/fixtures/http/streams.mjs, whose bodies all have the same bytes. */
import { createHash } from 'node:crypto';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { get as httpsGet } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished } from 'vitest';
import { RawClient } from './http-raw.js';
import { fixture, type TestServer, until, within } from './server.js';

export const STREAMS = fixture('http/streams.mjs');

const BLOCK = Buffer.alloc(65_521);
for (let i = 0; i < BLOCK.length; i++) BLOCK[i] = (i * 2654435761) >>> 24;

/** The bytes that a body of this length has. */
export function bodyOf(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += BLOCK.length)
    BLOCK.copy(bytes, at, 0, Math.min(BLOCK.length, length - at));
  return bytes;
}

export const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/**
 * For bodies that come in pieces and are answered as a whole: a thread that is kept from running for 20 ms, as happens on a busy machine,
 * sends what it has by then.
 */
export const AT_ONCE = { retry: 3 };

type Query = Record<string, string | number | object>;

export function target(path: string, query: Query = {}): string {
  const pairs = Object.entries(query).map(([name, value]): [string, string] => [
    name,
    typeof value === 'object' ? JSON.stringify(value) : String(value),
  ]);
  return `${path}?${new URLSearchParams(pairs)}`;
}

export interface Got {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly length: number;
  readonly hash: string;
  /** Whether the body came to its end; else the connection was cut. */
  readonly whole: boolean;
}

/** Ask, and take the body as fast as it comes. */
export function fetchBody(url: string, path: string, query: Query = {}, ms = 15_000): Promise<Got> {
  const got = new Promise<Got>((resolve, reject) => {
    const get = url.startsWith('https:') ? httpsGet : httpGet;
    const request = get(`${url}${target(path, query)}`, { agent: false }, (response) => {
      const sum = createHash('sha256');
      let length = 0;
      response.on('data', (chunk: Buffer) => {
        length += chunk.length;
        sum.update(chunk);
      });
      const done = (): void =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          length,
          hash: sum.digest('hex'),
          whole: response.complete,
        });
      response.on('error', () => undefined);
      response.on('close', done);
    });
    request.on('error', reject);
    onTestFinished(() => void request.destroy());
  });
  return within(got, `the body of ${path}`, ms);
}

/** Ask on a connection of its own, and read nothing for now. */
export async function askAndStall(port: number, path: string, query: Query = {}): Promise<RawClient> {
  const client = await RawClient.open(port);
  client.socket.pause();
  client.send(`GET ${target(path, query)} HTTP/1.1\r\nHost: a\r\n\r\n`);
  return client;
}

/** Wait until the sources of this id make nothing more. Returns how many bytes the last of them has made. */
export async function standsStill(url: string, id: string): Promise<number> {
  let before = -1;
  await until(
    async () => {
      const made = Number(await (await fetch(`${url}/made?id=${id}`)).text());
      const still = made > 0 && made === before;
      before = made;
      if (!still) await sleep(100);
      return still;
    },
    'it stands still',
    10_000,
  );
  return before;
}

/** Nothing is open any more, in the server or in its workers. */
export async function nothingIsOpen({ server, errors }: TestServer, logged = 0): Promise<void> {
  const isQuiet = (): boolean => {
    const { open, pool } = server.stats();
    const { workers, queued } = pool ?? { workers: [], queued: 0 };
    return (
      open + queued === 0 && workers.every(({ bodies, pending, running }) => bodies + pending + running === 0)
    );
  };
  // Where many connections have been closed lately it takes a while to find one more.
  await until(isQuiet, 'nothing is open', 15_000);
  expect(errors.slice(logged)).toEqual([]);
}
