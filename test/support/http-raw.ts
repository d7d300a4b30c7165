/** A client that sends exactly the bytes it is told to and shows exactly the bytes it gets. */
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { onTestFinished } from 'vitest';
import { overTls } from './over-tls.js';
import { PATIENCE, within } from './server.js';

/** One response as it came over the wire. */
export interface RawResponse {
  readonly status: number;
  readonly reason: string;
  /** Names as sent, in order. */
  readonly lines: readonly (readonly [name: string, value: string])[];
  readonly headText: string;
  readonly body: Buffer;
  /** First value of a header, whatever the case of its name. */
  header(name: string): string | undefined;
  /** All values of a header, whatever the case of its name. */
  all(name: string): string[];
}

export class RawClient {
  /** Bytes received and not yet taken by {@link response}. */
  private buffer: Buffer = Buffer.alloc(0);
  private chunks: Buffer[] = [];
  private readonly wakers: (() => void)[] = [];
  /** How the connection ended: by FIN, by RST, or undefined while it is open. */
  ended: 'fin' | 'reset' | undefined;
  received = 0;

  private constructor(
    readonly socket: Socket,
    /** What goes over the wire: the same without TLS. */
    private readonly wire: Socket,
  ) {
    socket.on('data', (chunk: Buffer) => {
      this.received += chunk.length;
      this.chunks.push(chunk);
      this.wake();
    });
    socket.on('end', () => this.end('fin'));
    socket.on('error', () => this.end('reset'));
    socket.on('close', () => this.end('fin'));
  }

  /** Connect; the connection is destroyed when the running test ends. `tls`: null for none, whatever the tests run over. */
  static async open(
    to: number | string,
    host = '127.0.0.1',
    tls: ConnectionOptions | null | undefined = overTls.tls && {},
  ): Promise<RawClient> {
    const wire = typeof to === 'number' ? connect({ port: to, host }) : connect(to);
    wire.setNoDelay(true);
    const socket = tls ? connectTls({ socket: wire, rejectUnauthorized: false, ...tls }) : wire;
    const connected = new Promise<void>((resolve, reject) => {
      socket.once(tls ? 'secureConnect' : 'connect', resolve);
      socket.once('error', reject);
      wire.once('error', reject);
    });
    onTestFinished(() => void wire.destroy());
    await within(connected, `a connection to ${to}`);
    return new RawClient(socket, wire);
  }

  private wake(): void {
    for (const resolve of this.wakers.splice(0)) resolve();
  }

  private end(how: 'fin' | 'reset'): void {
    this.ended ??= how;
    this.wake();
  }

  private gather(): Buffer {
    if (this.chunks.length > 0) this.buffer = Buffer.concat([this.buffer, ...this.chunks.splice(0)]);
    return this.buffer;
  }

  private something(): Promise<void> {
    return new Promise((resolve) => this.wakers.push(resolve));
  }

  /** What has come and has not been taken, as latin1. */
  get rest(): string {
    return this.gather().toString('latin1');
  }

  send(data: string | Uint8Array): void {
    this.socket.write(typeof data === 'string' ? Buffer.from(data, 'latin1') : data);
  }

  /** Send what can be sent; resolves when the kernel has taken it or the connection is gone. */
  sent(data: Uint8Array): Promise<void> {
    return new Promise((resolve) => this.socket.write(data, () => resolve()));
  }

  /** The next response. With `toHead` it answers a HEAD, so that no body follows whatever its length says. */
  response(toHead = false, ms = 15_000): Promise<RawResponse> {
    return within(this.nextResponse(toHead), 'a response', ms);
  }

  private async nextResponse(toHead: boolean): Promise<RawResponse> {
    const end = await this.waitFor((buffer) => {
      const at = buffer.indexOf('\r\n\r\n');
      return at === -1 ? undefined : at;
    });
    const headText = this.buffer.subarray(0, end).toString('latin1');
    const [first = '', ...rest] = headText.split('\r\n');
    const lines = rest.map((line): [string, string] => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    });
    const status = Number(first.split(' ')[1]);
    const reason = first.split(' ').slice(2).join(' ');
    const all = (name: string): string[] =>
      lines.filter(([n]) => n.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
    const empty = toHead || status === 204 || status === 304 || status < 200;
    const length = empty ? 0 : Number(all('content-length')[0] ?? 0);
    this.buffer = this.buffer.subarray(end + 4);
    const body =
      !empty && all('transfer-encoding')[0] === 'chunked' ? await this.chunked() : await this.take(length);
    return { status, reason, lines, headText, body, header: (name) => all(name)[0], all };
  }

  private async take(length: number): Promise<Buffer> {
    // Put together once, not with every packet: bodies may be large.
    const have = this.received - this.gather().length;
    while (this.received - have < length && this.ended === undefined) await this.something();
    await this.waitFor((buffer) => (buffer.length >= length ? true : undefined));
    const taken = Buffer.from(this.buffer.subarray(0, length));
    this.buffer = this.buffer.subarray(length);
    return taken;
  }

  /** A chunked body, to its end. RFC 9112, 7.1. */
  private async chunked(): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for (;;) {
      const line = await this.waitFor((buffer) => {
        const at = buffer.indexOf('\r\n');
        return at === -1 ? undefined : at;
      });
      const size = (await this.take(line + 2)).toString('latin1').trim();
      if (!/^[0-9a-f]+$/i.test(size)) throw new Error(`no size of a chunk: ${JSON.stringify(size)}`);
      const chunk = await this.take(Number.parseInt(size, 16));
      const end = (await this.take(2)).toString('latin1');
      if (end !== '\r\n') throw new Error(`no end of a chunk: ${JSON.stringify(end)}`);
      if (chunk.length === 0) return Buffer.concat(chunks);
      chunks.push(chunk);
    }
  }

  /** The next head, for bodies that come in chunks; what follows stays in {@link rest}. */
  async head(ms = 15_000): Promise<string> {
    const end = await within(
      this.waitFor((buffer) => {
        const at = buffer.indexOf('\r\n\r\n');
        return at === -1 ? undefined : at;
      }),
      'a response',
      ms,
    );
    const text = this.buffer.subarray(0, end).toString('latin1');
    this.buffer = this.buffer.subarray(end + 4);
    return text;
  }

  /** Take so many bytes off what has come. */
  skip(length: number): void {
    this.buffer = this.gather().subarray(length);
  }

  private async waitFor<T>(look: (buffer: Buffer) => T | undefined): Promise<T> {
    for (;;) {
      const found = look(this.gather());
      if (found !== undefined) return found;
      if (this.ended !== undefined) {
        throw new Error(
          `the connection was closed (${this.ended}) behind ${JSON.stringify(this.rest.slice(0, 300))}`,
        );
      }
      await this.something();
    }
  }

  /** Send a request without a body and wait for its response. */
  ask(method: string, target: string, ...headers: string[]): Promise<RawResponse> {
    this.send(`${[`${method} ${target} HTTP/1.1`, 'Host: localhost', ...headers].join('\r\n')}\r\n\r\n`);
    return this.response(method === 'HEAD');
  }

  /** Resolves when the server has closed the connection. */
  closed(ms = PATIENCE): Promise<'fin' | 'reset'> {
    const wait = async (): Promise<'fin' | 'reset'> => {
      while (this.ended === undefined) await this.something();
      return this.ended;
    };
    return within(wait(), 'the server to close the connection', ms);
  }

  /** Go away with a FIN. */
  leave(): void {
    this.socket.end();
    this.socket.destroySoon();
  }

  /** Go away with a RST. */
  reset(): void {
    this.wire.resetAndDestroy();
  }
}

/** Both ways a handler can run, for `describe.each`. */
export const WAYS = [
  { way: 'a pooled handler', dispatch: true },
  { way: 'an inline handler', dispatch: false },
] as const;

/** The same, for handlers that are started with the whole body, and before it. */
export const WAYS_AND_BODIES = WAYS.flatMap(({ way, dispatch }) => [
  { way: `${way} with the whole body`, dispatch, streamBody: false },
  { way: `${way} before the body`, dispatch, streamBody: true },
]);
