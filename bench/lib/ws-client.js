// A WebSocket client for load: plain sockets, frames made beforehand, one buffer that all connections read into, and of what
// comes only the frame headers are looked at. For frames of a server: not masked, not compressed (RFC 6455, 5.2).
import { connect } from 'node:net';

export const OPCODE = { more: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
/** What that key has to be answered with (RFC 6455, 1.3). */
const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=';
const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
const LONGEST_HEADER = 10;
const AT_ONCE = 128;
const SOURCES = 16;

/** All connections of the process read into this: what is in it has been dealt with before the next read. */
const buffer = Buffer.allocUnsafeSlow(64 * 1024);

/**
 * A message as a client sends it, so many times in a row that they can leave with one write.
 * @param {number} opcode
 * @param {string | Uint8Array} data
 */
export function frame(opcode, data = '', times = 1) {
  const payload = typeof data === 'string' ? Buffer.from(data) : data;
  const { length } = payload;
  const size = length < 126 ? 2 : length < 65536 ? 4 : 10;
  const one = Buffer.alloc(size + MASK.length + length);
  one[0] = 0x80 | opcode;
  one[1] = 0x80 | (size === 2 ? length : size === 4 ? 126 : 127);
  if (size === 4) one.writeUInt16BE(length, 2);
  if (size === 10) one.writeBigUInt64BE(BigInt(length), 2);
  MASK.copy(one, size);
  for (let i = 0; i < length; i++) one[size + MASK.length + i] = payload[i] ^ MASK[i & 3];
  return Buffer.concat(Array(times).fill(one));
}

/** @param {number} code @param {string} reason */
export function closeFrame(code, reason = '') {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  return frame(OPCODE.close, payload);
}

const PONG = frame(OPCODE.pong);

/**
 * @typedef {object} Target
 * @property {string} url of http
 * @property {string} [path]
 * @property {string} [from] address of this side
 */

export class WsClient {
  /** 101 when the handshake was accepted, the status it was refused with, 0 until then. */
  status = 0;
  /** How it ended: the code of the server's Close frame, 1006 without one, 0 while it is open. */
  code = 0;
  reason = '';
  /** Messages that have come. */
  received = 0;
  /** What went wrong with its connection. @type {string | undefined} */
  error;
  /** Whether the payloads of messages are kept and handed over. They are copies. */
  payloads = false;
  /** @type {(client: WsClient) => void} */
  onOpen = nothing;
  /**
   * For each message: length and opcode of its last frame, and the payload if it is kept.
   * @type {(client: WsClient, length: number, opcode: number, payload: Buffer | undefined) => void}
   */
  onMessage = nothing;
  /** When all messages of one read have been told: the time to write. @type {(client: WsClient) => void} */
  onRead = nothing;
  /** The last one, whether it ever opened or not. @type {(client: WsClient) => void} */
  onClose = nothing;

  #head = '';
  /** What there is of a frame's header when it lies in two reads. */
  #part;
  #partLength = 0;
  #opcode = 0;
  #final = true;
  #length = 0;
  /** Bytes of the payload that have not come yet; -1 where a header begins. */
  #left = -1;
  #kept;
  #closing = false;

  /** @param {Target} target */
  constructor({ url, path = '/', from }) {
    const { hostname, port, host } = new URL(url);
    this.socket = connect({
      host: hostname,
      port: Number(port),
      noDelay: true,
      localAddress: from,
      onread: {
        buffer,
        callback: (size) => {
          this.#read(size);
          return true;
        },
      },
    });
    this.socket.on('error', (error) => {
      this.error = error.code ?? error.message;
    });
    this.socket.on('close', () => {
      if (this.code === 0) this.code = 1006;
      this.onClose(this);
    });
    this.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n\r\n`,
    );
  }

  get isOpen() {
    return this.status === 101 && this.code === 0;
  }

  /** @param {Buffer} frames */
  write(frames) {
    this.socket.write(frames);
  }

  /** Say goodbye; the server answers and ends the connection. */
  close(code = 1000) {
    if (this.#closing || !this.isOpen) return;
    this.#closing = true;
    this.socket.write(closeFrame(code));
  }

  #read(size) {
    let at = 0;
    if (this.status !== 101) {
      at = this.#handshake(size);
      if (at < 0) return;
    }
    for (;;) {
      if (this.#left < 0) {
        if (at < size) at = this.#header(at, size);
        if (this.#left < 0) break;
      }
      const here = Math.min(this.#left, size - at);
      if (this.#kept !== undefined) buffer.copy(this.#kept, this.#length - this.#left, at, at + here);
      this.#left -= here;
      at += here;
      if (this.#left > 0) break;
      this.#left = -1;
      this.#frame();
    }
    this.onRead(this);
  }

  /** Returns where the frames begin, or -1 when there are none yet. */
  #handshake(size) {
    const before = this.#head.length;
    this.#head += buffer.latin1Slice(0, size);
    const end = this.#head.indexOf('\r\n\r\n');
    if (end < 0 || this.status !== 0) return -1;
    this.status = Number(this.#head.slice(9, 12));
    if (this.status !== 101 || !this.#head.includes(ACCEPT)) {
      if (this.status === 101) {
        this.status = 0;
        this.error = 'accepted with a wrong key';
      }
      this.socket.destroy();
      return -1;
    }
    this.#head = '';
    this.onOpen(this);
    return end + 4 - before;
  }

  /** Read the header of a frame, if it is all there. Returns up to where this was read. */
  #header(at, size) {
    let from = buffer;
    let start = at;
    let there = size - at;
    if (this.#partLength > 0 || there < LONGEST_HEADER) {
      // Rare: put together what there is of it.
      this.#part ??= Buffer.alloc(2 * LONGEST_HEADER);
      buffer.copy(this.#part, this.#partLength, at, Math.min(size, at + LONGEST_HEADER));
      there = this.#partLength + Math.min(LONGEST_HEADER, there);
      from = this.#part;
      start = 0;
    }
    const short = from[start + 1] & 0x7f;
    const needed = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (there < 2 || there < needed) {
      this.#partLength = there;
      return size;
    }
    this.#opcode = from[start] & 0xf;
    this.#final = from[start] >= 0x80;
    this.#length =
      needed === 2
        ? short
        : needed === 4
          ? from.readUInt16BE(start + 2)
          : Number(from.readBigUInt64BE(start + 2));
    this.#left = this.#length;
    if (this.payloads || this.#opcode >= OPCODE.close) this.#kept = Buffer.allocUnsafe(this.#length);
    const next = at + needed - this.#partLength;
    this.#partLength = 0;
    return next;
  }

  #frame() {
    const kept = this.#kept;
    this.#kept = undefined;
    switch (this.#opcode) {
      case OPCODE.ping:
        this.socket.write(kept.length === 0 ? PONG : frame(OPCODE.pong, kept));
        return;
      case OPCODE.pong:
        return;
      case OPCODE.close:
        this.code = kept.length >= 2 ? kept.readUInt16BE() : 1005;
        this.reason = kept.toString('utf8', 2);
        if (!this.#closing && this.code !== 1005) this.socket.write(closeFrame(this.code));
        this.socket.end();
        return;
      default:
        if (!this.#final) return;
        this.received++;
        this.onMessage(this, this.#length, this.#opcode, kept);
    }
  }
}

function nothing() {}

/**
 * Opens so many connections, not all at once: a server's backlog is short.
 * @param {number} count
 * @param {(i: number) => WsClient} make
 */
export async function openAll(count, make) {
  const clients = [];
  const lane = async () => {
    while (clients.length < count) {
      const client = make(clients.length);
      clients.push(client);
      await opened(client);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, lane));
  return clients;
}

/** @param {WsClient} client */
export function opened(client) {
  return new Promise((resolve, reject) => {
    client.onOpen = () => resolve(client);
    client.onClose = () =>
      reject(new Error(`a WebSocket was not opened: ${client.error ?? `answered ${client.status}`}`));
  });
}

/**
 * One address has 28,000 ports, and each is taken for a minute after its connection was closed from here. Linux has more
 * addresses of its own machine.
 * @param {string} url
 * @param {number} i
 */
export function sourceAddress(url, i) {
  const linux = process.platform === 'linux' && new URL(url).hostname === '127.0.0.1';
  return linux ? `127.0.0.${1 + (i % SOURCES)}` : undefined;
}
