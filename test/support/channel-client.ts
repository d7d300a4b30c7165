/** Clients of the handler in test/fixtures/channels/script.mjs, which does what it is told. */
import { onTestFinished } from 'vitest';
import { type ClientOptions, WebSocket } from 'ws';
import { RawClient } from './http-raw.js';
import { overTls } from './over-tls.js';
import { fixture, PATIENCE, until, within } from './server.js';

export const SCRIPT = fixture('channels/script.mjs');

/** A name and its arguments: see `perform` in the fixture. */
export type Step = readonly [name: string, ...args: unknown[]];

/** What the handler is to do. */
export interface Script {
  /** File for what it has to say. */
  log?: string;
  options?: Record<string, unknown>;
  /** Steps before the channel is opened, and behind that in the handler. */
  before?: Step[];
  after?: Step[];
  returns?: 'response' | 'nothing';
  init?: Step[];
  open?: Step[];
  /** Without these a message is echoed, or is steps by itself: `[[...]]`. */
  receive?: Step[];
  ping?: Step[];
  closed?: Step[];
  handshake?: Step[];
  /** Ring's shape instead of asChannel. */
  ring?: { protocol?: string };
  /** An event stream, with these options, and calls of it when it is open. */
  sse?: Record<string, unknown>;
  events?: Step[];
  /** No channel at all: this status. */
  refuse?: number;
}

export const target = (script: Script = {}, path = '/'): string =>
  `${path}?s=${encodeURIComponent(JSON.stringify(script))}`;

export interface Closed {
  readonly code: number;
  readonly reason: string;
}

/** A WebSocket of the `ws` package, its messages in the order they came. */
export class Client {
  readonly messages: (string | Buffer)[] = [];
  /** The headers of the 101, one by one. */
  headers: readonly string[] = [];
  readonly pongs: Buffer[] = [];
  error: Error | undefined;
  private opened = false;
  private taken = 0;
  readonly closing: Promise<Closed>;

  constructor(readonly ws: WebSocket) {
    ws.on('message', (data: Buffer, isBinary) => this.messages.push(isBinary ? data : data.toString()));
    ws.on('pong', (data) => this.pongs.push(data));
    ws.on('upgrade', (response) => {
      this.headers = response.rawHeaders;
    });
    ws.on('open', () => {
      this.opened = true;
    });
    ws.on('error', (error) => {
      this.error = error;
    });
    this.closing = new Promise((resolve) => {
      ws.on('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
  }

  static async open(
    port: number,
    script: Script = {},
    { path = '/', protocols = [], ...options }: ClientOptions & { path?: string; protocols?: string[] } = {},
  ): Promise<Client> {
    const client = new Client(
      new WebSocket(`${overTls.tls ? 'wss' : 'ws'}://127.0.0.1:${port}${target(script, path)}`, protocols, {
        perMessageDeflate: false,
        ...options,
      }),
    );
    onTestFinished(() => client.ws.terminate());
    await until(() => client.opened || client.error, 'the WebSocket opens');
    if (client.error !== undefined) throw client.error;
    return client;
  }

  send(data: string | Uint8Array): void {
    this.ws.send(data);
  }
  /** Let the handler of this channel take these steps. */
  tell(...steps: Step[]): void {
    this.ws.send(JSON.stringify(steps));
  }

  /** The next message that nobody has taken. */
  async next(): Promise<string | Buffer> {
    await until(() => this.messages.length > this.taken, `message ${this.taken + 1} comes`);
    return this.messages[this.taken++] as string | Buffer;
  }

  async ask(data: string | Uint8Array): Promise<string | Buffer> {
    this.send(data);
    return await this.next();
  }

  closed(ms = PATIENCE): Promise<Closed> {
    return within(this.closing, 'the WebSocket to be closed', ms);
  }
}

/** A response that comes in chunks, as it comes. */
export class Stream {
  private constructor(
    readonly client: RawClient,
    readonly head: string,
  ) {}

  static async open(
    port: number,
    script: Script = {},
    {
      method = 'GET',
      path = '/',
      headers = [] as string[],
      client = undefined as RawClient | undefined,
    } = {},
  ): Promise<Stream> {
    const raw = client ?? (await RawClient.open(port));
    raw.send(
      `${[`${method} ${target(script, path)} HTTP/1.1`, 'Host: localhost', ...headers].join('\r\n')}\r\n\r\n`,
    );
    return new Stream(raw, await raw.head());
  }

  get status(): number {
    return Number(this.head.split(' ')[1]);
  }

  header(name: string): string | undefined {
    const line = this.head.split('\r\n').find((l) => l.toLowerCase().startsWith(`${name}:`));
    return line?.slice(name.length + 1).trim();
  }

  /** What has come so far, without the sizes of chunks. */
  get text(): string {
    return unchunk(this.client.rest).text;
  }
  get ended(): boolean {
    return unchunk(this.client.rest).ended;
  }

  async has(text: string): Promise<void> {
    await until(() => this.text === text, `"${text}" has come`);
  }
  /** It ends as it should. Takes it off the connection. */
  async whole(ms = PATIENCE): Promise<string> {
    await until(() => this.ended, 'the response ends', ms);
    const { text, length } = unchunk(this.client.rest);
    this.client.skip(length);
    return text;
  }
}

function unchunk(raw: string): { text: string; ended: boolean; length: number } {
  let text = '';
  let at = 0;
  for (;;) {
    const line = raw.indexOf('\r\n', at);
    if (line === -1) return { text, ended: false, length: at };
    const size = Number.parseInt(raw.slice(at, line), 16);
    if (Number.isNaN(size)) throw new Error(`no chunk: ${JSON.stringify(raw.slice(at, at + 100))}`);
    if (size === 0) return { text, ended: raw.length >= line + 4, length: line + 4 };
    text += raw.slice(line + 2, line + 2 + size);
    if (raw.length < line + 4 + size) return { text, ended: false, length: at };
    at = line + 4 + size;
  }
}
