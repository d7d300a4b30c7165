/** Request bodies: made up, sent as one likes, and checked by their hashes. */
import { createHash } from 'node:crypto';
import { RawClient } from './http-raw.js';
import { fixture } from './server.js';

export const UPLOAD = fixture('http/upload.mjs');
export const MB = 1024 * 1024;

/** Bytes that look like chance, and are the same for the same seed. */
export function content(size: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  let x = (seed * 2_654_435_761) >>> 0 || 1;
  for (let i = 0; i < size; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x;
  }
  return bytes;
}

export const hashOf = (bytes: Uint8Array): string => createHash('sha1').update(bytes).digest('hex');

export type Framing = 'length' | 'chunked';
export const FRAMINGS: readonly Framing[] = ['length', 'chunked'];

/** One request with a body, byte by byte under the control of the test. */
export class Upload {
  constructor(
    readonly client: RawClient,
    private readonly framing: Framing,
    private readonly length: number,
  ) {}

  /** Send the head. `length` is what is declared, if it is. */
  static async begin(
    port: number,
    target: string,
    length: number,
    framing: Framing,
    { client, headers = [] }: { client?: RawClient; headers?: readonly string[] } = {},
  ): Promise<Upload> {
    const raw = client ?? (await RawClient.open(port));
    const frame = framing === 'length' ? `Content-Length: ${length}` : 'Transfer-Encoding: chunked';
    raw.send(`${[`POST ${target} HTTP/1.1`, 'Host: h', frame, ...headers].join('\r\n')}\r\n\r\n`);
    return new Upload(raw, framing, length);
  }

  /** Send some of the body. Resolves when the kernel has taken it, or the connection is gone. */
  async send(bytes: Uint8Array): Promise<void> {
    await this.client.sent(this.framing === 'length' ? bytes : framed(bytes));
  }

  /** Send all of this in pieces, as fast as it is taken. */
  async sendAll(bytes: Uint8Array, piece = 64 * 1024): Promise<void> {
    for (let at = 0; at < bytes.byteLength && this.isOpen; at += piece)
      await this.send(bytes.subarray(at, at + piece));
  }

  /**
   * Send this again and again, as fast as it is taken, until the connection is gone or all is sent that was declared. `each` is told
   * how often.
   */
  async sendForEver(bytes: Uint8Array, each: (times: number) => void = () => undefined): Promise<void> {
    const most = this.framing === 'length' ? this.length / bytes.byteLength : Number.POSITIVE_INFINITY;
    for (let times = 1; this.isOpen && times <= most; times++) {
      await this.send(bytes);
      each(times);
    }
  }

  private get isOpen(): boolean {
    return this.client.ended === undefined && !this.client.socket.destroyed;
  }

  /** There is no more. */
  end(): void {
    if (this.framing === 'chunked') this.client.send('0\r\n\r\n');
  }
}

/** As one chunk. */
export function framed(bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${bytes.byteLength.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]);
}

/** The body of an answer, whichever way it is framed. */
export function bodyOf(raw: string): string {
  const at = raw.indexOf('\r\n\r\n');
  const head = raw.slice(0, at).toLowerCase();
  const rest = raw.slice(at + 4);
  if (!head.includes('transfer-encoding: chunked')) return rest;
  let body = '';
  for (let from = 0; ; ) {
    const line = rest.indexOf('\r\n', from);
    const size = Number.parseInt(rest.slice(from, line), 16);
    if (size === 0 || Number.isNaN(size)) return body;
    body += rest.slice(line + 2, line + 2 + size);
    from = line + 2 + size + 2;
  }
}
