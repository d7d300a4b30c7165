import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { launch, noBrowser } from './support/chromium.js';
import { type Program, startProgram } from './support/program.js';
import { connect } from './support/socket.js';

let chat: Program;
beforeEach(async () => {
  chat = await startProgram('examples/chat/server.js', { PORT: '0' });
});
afterEach(() => chat.kill());

describe('the chat', () => {
  it('reaches everybody in a room, whatever worker they are on, and nobody else', async () => {
    const join = (name: string, room: string) => connect(`${chat.urls[0]}/?name=${name}&room=${room}`);
    const people = [];
    for (let i = 0; i < 8; i++) {
      const person = await join(`p${i}`, 'tea');
      expect(JSON.parse(await person.next())).toEqual({ name: `p${i}`, did: 'joined' });
      for (const other of people)
        expect(JSON.parse(await other.next())).toEqual({ name: `p${i}`, did: 'joined' });
      people.push(person);
    }
    const stranger = await join('s', 'coffee');
    await stranger.next();

    people[3]?.socket.send('hello');
    for (const { next } of people) expect(JSON.parse(await next())).toEqual({ name: 'p3', text: 'hello' });
    people[7]?.socket.close();
    for (const { next } of people.slice(0, 7))
      expect(JSON.parse(await next())).toEqual({ name: 'p7', did: 'left' });
    stranger.socket.send('only me');
    expect(JSON.parse(await stranger.next())).toEqual({ name: 's', text: 'only me' });
    expect(await chat.stop()).toBe(0);
    for (const { closed } of people.slice(0, 7))
      expect(await closed).toEqual([1001, 'Server is shutting down']);
  });

  it('lets no page of another site in', async () => {
    const { WebSocket } = await import('ws');
    const socket = new WebSocket(String(chat.urls[0]).replace('http', 'ws'), {
      origin: 'http://elsewhere.test',
    });
    const error = await new Promise<Error>((resolve) => socket.on('error', resolve));
    expect(error.message).toContain('403');
    expect((await fetch(`${chat.urls[0]}/handler.js`)).status).toBe(404);
    expect(await chat.stop()).toBe(0);
  });
});

describe.skipIf(noBrowser)('the page of the chat', { timeout: 60_000 }, () => {
  let browser: Browser;
  const wrong: string[] = [];
  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser?.close());
  afterEach(() => Promise.all((browser?.contexts() ?? []).map((context) => context.close())));

  async function open(hash = '', colorScheme: 'light' | 'dark' = 'light'): Promise<Page> {
    const page = await browser.newPage({ viewport: { width: 420, height: 560 }, colorScheme });
    page.on('pageerror', (error) => wrong.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') wrong.push(message.text());
    });
    await page.goto(`${chat.urls[0]}/${hash}`);
    return page;
  }
  async function type(page: Page, text: string): Promise<void> {
    await page.fill('input', text);
    await page.press('input', 'Enter');
  }
  const log = (page: Page): Promise<string[]> => page.locator('#log li').allTextContents();
  const shows = (page: Page, lines: string[]): Promise<void> =>
    expect.poll(() => log(page), { timeout: 10_000, interval: 25 }).toEqual(lines);

  it('lets two people talk, and shows who comes and goes', async () => {
    const ada = await open();
    await type(ada, 'Ada');
    await shows(ada, ['Ada joined']);
    const bob = await open('', 'dark');
    await type(bob, 'Bob');
    await shows(ada, ['Ada joined', 'Bob joined']);
    const elsewhere = await open('#other');
    await type(elsewhere, 'Eve');

    await type(ada, 'Hello, Bob!');
    await shows(bob, ['Bob joined', 'Ada: Hello, Bob!']);
    await type(bob, '<b>Grüße</b> 👋');
    const talk = ['Ada: Hello, Bob!', 'Bob: <b>Grüße</b> 👋'];
    await shows(ada, ['Ada joined', 'Bob joined', ...talk]);
    await shows(bob, ['Bob joined', ...talk]);
    const folder = process.env['SCREENSHOTS'];
    if (folder !== undefined) {
      await ada.screenshot({ path: `${folder}/chat-light.png` });
      await bob.screenshot({ path: `${folder}/chat-dark.png` });
    }

    await bob.close();
    await shows(ada, ['Ada joined', 'Bob joined', ...talk, 'Bob left']);
    await shows(elsewhere, ['Eve joined']);
    expect(wrong).toEqual([]);
  });

  it('comes back by itself when its server does', async () => {
    // A port of its own: one that the system has chosen cannot be had again at once.
    const PORT = await freePort();
    await chat.stop();
    chat = await startProgram('examples/chat/server.js', { PORT });
    const ada = await open();
    await type(ada, 'Ada');
    await shows(ada, ['Ada joined']);
    expect(await chat.stop()).toBe(0);
    chat = await startProgram('examples/chat/server.js', { PORT });
    await shows(ada, ['Ada joined', 'Ada joined']);
    await type(ada, 'back');
    await shows(ada, ['Ada joined', 'Ada joined', 'Ada: back']);
    wrong.length = 0; // the browser notes every attempt in between
  });
});

async function freePort(): Promise<string> {
  const server = createServer().listen(0);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return String(port);
}
