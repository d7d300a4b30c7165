/**
 * What is written outside of the engine's cork leaves in packets of its own, one for each line of a head. The engine
 * complains of that on standard error, once for every such write.
 */
import { afterEach, expect, it } from 'vitest';
import { RawClient } from './support/http-raw.js';
import { type Program, startProgram } from './support/program.js';

const PATHS = [
  '/sync',
  '/later',
  '/none',
  '/large',
  '/throws',
  '/text',
  '/echo',
  '/rows',
  '/slow',
  '/fails',
  '/sized',
  '/channel',
  '/nothing',
];

/** What is sent: the packets of a request, behind its request line. `whole`: it is to be answered, or cut. */
interface Shape {
  readonly method?: string;
  readonly head: string;
  readonly body: readonly string[];
  readonly whole: boolean;
}

const text = (length: number): string => 'x'.repeat(length);
const chunk = (length: number): string => `${length.toString(16)}\r\n${text(length)}\r\n`;
const LENGTH = (length: number): string => `Content-Length: ${length}\r\n`;
const CHUNKED = 'Transfer-Encoding: chunked\r\n';

const SHAPES: readonly Shape[] = [
  { head: '', body: [], whole: true },
  { method: 'HEAD', head: '', body: [], whole: true },
  { head: LENGTH(5), body: ['12345'], whole: true },
  { head: LENGTH(300_000), body: [text(100_000), text(200_000)], whole: true },
  { head: LENGTH(1_500_000), body: [text(1_400_000), text(100_000)], whole: true },
  { head: CHUNKED, body: [chunk(10), chunk(300_000), '0\r\n\r\n'], whole: true },
  // Answered before it is complete: more of it has come than a handler is waited with.
  { head: LENGTH(1_900_000), body: [text(1_200_000)], whole: false },
  // Larger than it may be, by its own word or in fact.
  { head: LENGTH(9_000_000), body: [text(100_000)], whole: true },
  { head: CHUNKED, body: [chunk(1_500_000), chunk(1_500_000)], whole: true },
];

const shapes = SHAPES.flatMap((shape) => [shape, { ...shape, head: `${shape.head}Connection: close\r\n` }]);

let program: Program | undefined;
afterEach(async () => {
  await program?.kill();
  program = undefined;
});

async function send(port: number, path: string, { method, head, body, whole }: Shape): Promise<void> {
  const client = await RawClient.open(port);
  const verb = method ?? (body.length > 0 ? 'POST' : 'GET');
  client.send(`${verb} ${path} HTTP/1.1\r\nHost: test\r\n${head}\r\n`);
  for (const part of body) await client.sent(Buffer.from(part));
  // One that is cut has been answered as far as it will be; one whose handler reads all of a body never is.
  const waits = !whole && (path === '/text' || path === '/echo');
  if (!waits) await client.response(verb === 'HEAD').catch(() => undefined);
  client.socket.destroy();
}

it('writes nothing outside of the cork of the engine, however a request comes and is answered', {
  timeout: 120_000,
}, async () => {
  program = await startProgram('test/fixtures/http/every-way-servers.mjs', {}, 4);
  for (const url of program.urls) {
    const port = Number(new URL(url).port);
    for (const path of PATHS) await Promise.all(shapes.map((shape) => send(port, path, shape)));
  }
  expect(await program.stop()).toBe(0);
  expect(program.output()).not.toMatch(/cork/i);
});
