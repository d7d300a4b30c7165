/** A WebSocket client that sends exactly the frames it is told to and shows exactly the frames it gets. */
import { RawClient } from './http-raw.js';
import { until } from './server.js';

export const OPCODE = { more: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface Frame {
  readonly fin: boolean;
  readonly rsv: number;
  readonly opcode: number;
  readonly payload: Buffer;
}

export interface FrameOptions {
  fin?: boolean;
  /** The three reserved bits: 4 is RSV1. */
  rsv?: number;
  masked?: boolean;
  /** Length as it is claimed, in place of the true one. */
  claimed?: number;
}

/** One frame as a client sends it. RFC 6455, 5.2. */
export function frame(opcode: number, data: string | Uint8Array = '', options: FrameOptions = {}): Buffer {
  const { fin = true, rsv = 0, masked = true } = options;
  const payload = Buffer.from(typeof data === 'string' ? Buffer.from(data) : data);
  const length = options.claimed ?? payload.length;
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  const mark = masked ? 0x80 : 0;
  let head: Buffer;
  if (length < 126) head = Buffer.from([first, mark | length]);
  else if (length < 65536) {
    head = Buffer.from([first, mark | 126, 0, 0]);
    head.writeUInt16BE(length, 2);
  } else {
    head = Buffer.alloc(10);
    head[0] = first;
    head[1] = mark | 127;
    head.writeBigUInt64BE(BigInt(length), 2);
  }
  if (!masked) return Buffer.concat([head, payload]);
  const key = Buffer.from([0x12, 0x34, 0x56, 0x78]);
  for (let i = 0; i < payload.length; i++) payload[i] = (payload[i] as number) ^ (key[i % 4] as number);
  return Buffer.concat([head, key, payload]);
}

/** Payload of a Close frame. */
export function closing(code: number, reason: string | Uint8Array = ''): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(typeof reason === 'string' ? Buffer.from(reason) : reason)]);
}

export const handshake = (target: string, ...more: string[]): string =>
  `${[
    `GET ${target} HTTP/1.1`,
    'Host: localhost',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...more,
  ].join('\r\n')}\r\n\r\n`;

export class RawWebSocket {
  readonly frames: Frame[] = [];
  private taken = 0;

  private constructor(
    readonly client: RawClient,
    readonly head: string,
  ) {
    client.socket.on('data', () => this.parse());
    this.parse();
  }

  static async open(port: number, target = '/', ...headers: string[]): Promise<RawWebSocket> {
    const client = await RawClient.open(port);
    client.send(handshake(target, ...headers));
    return await RawWebSocket.opened(client);
  }

  /** Of a client that has sent a handshake. */
  static async opened(client: RawClient): Promise<RawWebSocket> {
    const head = await client.head();
    if (!head.startsWith('HTTP/1.1 101 ')) throw new Error(`refused: ${head}`);
    return new RawWebSocket(client, head);
  }

  private parse(): void {
    for (;;) {
      const buffer = Buffer.from(this.client.rest, 'latin1');
      if (buffer.length < 2) return;
      let length = (buffer[1] as number) & 0x7f;
      let at = 2;
      if (length === 126) {
        if (buffer.length < 4) return;
        length = buffer.readUInt16BE(2);
        at = 4;
      } else if (length === 127) {
        if (buffer.length < 10) return;
        length = Number(buffer.readBigUInt64BE(2));
        at = 10;
      }
      if (buffer.length < at + length) return;
      const first = buffer[0] as number;
      this.frames.push({
        fin: (first & 0x80) !== 0,
        rsv: (first >> 4) & 7,
        opcode: first & 15,
        payload: Buffer.from(buffer.subarray(at, at + length)),
      });
      this.client.skip(at + length);
    }
  }

  send(...frames: Uint8Array[]): void {
    this.client.send(Buffer.concat(frames));
  }

  async next(): Promise<Frame> {
    await until(() => this.frames.length > this.taken, `frame ${this.taken + 1} comes`);
    return this.frames[this.taken++] as Frame;
  }

  /** The next frame is a text; its payload. */
  async text(): Promise<string> {
    const { opcode, payload } = await this.next();
    if (opcode !== OPCODE.text) throw new Error(`opcode ${opcode}, not a text`);
    return payload.toString();
  }
}
