/**
 * PROXY protocol, in front of the engine. The engine has a reader of its own, which will not do: it knows only version 2 and no
 * extensions, and takes a header before each request of a connection, so that a client whose balancer passes on bytes unread could say
 * it is anybody.
 */
import { randomBytes } from 'node:crypto';
import { lstatSync, mkdtempSync, rmSync, type Stats } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type {
  Address,
  Engine,
  EngineResponse,
  Listener,
  OnRequest,
  Via,
  WebSocketSettings,
} from './engine.js';
import { adviceOn, cannotListen, makeRoom, takeAway, withMode } from './place.js';
import { type Proxied, readProxyHeader } from './proxy-header.js';

export interface DoorOptions {
  /** Whether connections without a header are taken. */
  readonly optional: boolean;
  /** Whether a header is taken of who has this address; '' on a Unix socket. */
  readonly from: (address: string) => boolean;
  readonly warn: (message: string) => void;
}

/** What the engine gives to the file of a socket. */
const ONLY_US = 0o700;
/** Ms in which the header has to come. */
const HEADER_TIME = 10_000;
/** Ms for the last bytes to get to a client when the engine has closed the connection, and when the server is closed. */
const LAST_BYTES = 10_000;
const LAST_BYTES_AT_END = 500;

/** An engine that listens behind a door. */
export function behindDoor(engine: Engine, options: DoorOptions): Engine {
  return {
    listen: async (address, onRequest, webSockets) => {
      const door = new ProxyDoor(address, options);
      await door.start(engine, onRequest, webSockets);
      return door;
    },
  };
}

/**
 * Listens where the server is to listen, reads the header of each connection, and hands what follows to the engine over a Unix socket that
 * nobody else can reach. There it begins with a header of ours, whose address is a random number: by that the engine's requests are known
 * again. A header that a client sends later replaces it with something nobody knows, and that is the end of the connection.
 */
class ProxyDoor implements Listener {
  port = 0;
  private readonly server: Server;
  private readonly inside = mkdtempSync(join(tmpdir(), 'offloop-door-'));
  private engine: Listener | undefined;
  private readonly byKey = new Map<string, Via>();
  /** Connections of clients. */
  private readonly sockets = new Set<Socket>();
  /** Those of them whose header has not come. */
  private readonly waiting = new Set<Socket>();
  private bound: Stats | undefined;
  private listening = false;
  private warned = false;

  constructor(
    private readonly address: Address,
    private readonly options: DoorOptions,
  ) {
    this.server = createServer({ noDelay: true, pauseOnConnect: true, allowHalfOpen: true }, (socket) =>
      this.take(socket),
    );
  }

  async start(engine: Engine, onRequest: OnRequest, webSockets: WebSocketSettings): Promise<void> {
    const place: Address = { kind: 'unix', path: join(this.inside, 's'), mode: undefined };
    try {
      this.engine = await engine.listen(place, this.recognize(onRequest), webSockets);
      await this.listen();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  private async listen(): Promise<void> {
    const { address, server } = this;
    if (address.kind === 'unix') {
      await makeRoom(address.path);
      rmSync(address.path, { force: true });
    }
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => {
        const code = cause.code ?? 'OFFLOOP_LISTEN_FAILED';
        reject(cannotListen(address, code, adviceOn(code, address), cause));
      });
      server.once('listening', resolve);
      if (address.kind === 'tcp') server.listen({ host: address.ip, port: address.port });
      else withMode(address.mode ?? ONLY_US, () => server.listen(address.path));
    });
    this.listening = true;
    // One that cannot be accepted, for want of descriptors, is no reason to end.
    server.on('error', (error) => this.options.warn(`a connection could not be taken: ${error.message}`));
    const bound = server.address();
    if (address.kind === 'unix') this.bound = lstatSync(address.path, { throwIfNoEntry: false });
    else if (bound !== null && typeof bound === 'object') this.port = bound.port;
  }

  private recognize(onRequest: OnRequest): OnRequest {
    return (res, req, method, context) => {
      const via = this.byKey.get(keyOf(res));
      if (via === undefined) res.close();
      else onRequest(res, req, method, context, via);
    };
  }

  // -------------------------------------------------------------------------------------------------- connections

  private take(socket: Socket): void {
    const peer = socket.remoteAddress ?? '';
    const believed = this.options.from(peer);
    socket.on('error', () => socket.destroy());
    if (!believed && !this.options.optional) {
      this.refuse(socket, peer);
      return;
    }
    this.sockets.add(socket);
    this.waiting.add(socket);
    const timer = setTimeout(() => socket.destroy(), HEADER_TIME);
    socket.once('close', () => {
      clearTimeout(timer);
      this.sockets.delete(socket);
      this.waiting.delete(socket);
    });
    let bytes: Buffer = Buffer.alloc(0);
    const look = (chunk: Buffer): void => {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
      const read = readProxyHeader(bytes);
      if (read.kind === 'more') return;
      clearTimeout(timer);
      this.waiting.delete(socket);
      socket.off('data', look);
      socket.pause();
      if (read.kind === 'header' && believed)
        this.open(socket, peer, read.proxied, bytes.subarray(read.length));
      else if (read.kind === 'none' && this.options.optional) this.open(socket, peer, NOBODY, bytes);
      else this.refuse(socket, peer, read.kind);
    };
    socket.on('data', look);
    // Nothing but a FIN, before the header.
    socket.once('end', () => {
      if (this.waiting.has(socket)) socket.destroy();
    });
    socket.resume();
  }

  private refuse(socket: Socket, peer: string, kind: 'header' | 'none' | 'bad' | 'unread' = 'unread'): void {
    socket.destroy();
    // Once, so that nobody can fill the log.
    if (this.warned) return;
    this.warned = true;
    const who = peer === '' ? 'a Unix domain socket' : peer;
    const why =
      kind === 'none'
        ? `${who} sent no PROXY header, and proxyProtocol is 'enable'`
        : kind === 'bad'
          ? `${who} sent a broken PROXY header`
          : `${who} is not in proxyProtocolFrom`;
    this.options.warn(`a connection was refused: ${why}. Further ones will not be logged`);
  }

  /** Connect to the engine, and let bytes pass both ways. */
  private open(socket: Socket, peer: string, { address = peer, secure }: Proxied, first: Buffer): void {
    const token = randomBytes(16);
    const key = token.toString('latin1');
    this.byKey.set(key, { address, secure });
    const inner = connect({ path: join(this.inside, 's'), allowHalfOpen: true });
    inner.on('error', () => inner.destroy());
    inner.write(Buffer.concat([headerOf(token), first]));
    socket.pipe(inner);
    inner.pipe(socket);
    socket.once('close', () => inner.destroy());
    inner.once('close', () => {
      this.byKey.delete(key);
      // What is left of the answer leaves, if the client reads.
      socket.end();
      const timer = setTimeout(() => socket.destroy(), LAST_BYTES).unref();
      socket.once('close', () => clearTimeout(timer));
    });
  }

  // -------------------------------------------------------------------------------------------------- the listener

  publish(topic: string, data: string | Uint8Array, isBinary: boolean): void {
    this.engine?.publish(topic, data, isBinary);
  }

  replaceTls(): Promise<void> {
    return Promise.reject(new Error('a server behind the PROXY protocol speaks no TLS'));
  }

  stopListening(): void {
    if (!this.listening) return;
    this.listening = false;
    this.server.close();
    if (this.address.kind === 'unix') takeAway(this.address.path, this.bound);
    for (const socket of this.waiting) socket.destroy();
  }

  close(): void {
    this.stopListening();
    this.engine?.close();
    rmSync(this.inside, { recursive: true, force: true });
    for (const socket of this.sockets) setTimeout(() => socket.destroy(), LAST_BYTES_AT_END).unref();
  }
}

const NOBODY: Proxied = { address: undefined, secure: false };

const keyOf = (res: EngineResponse): string => Buffer.from(res.getProxiedRemoteAddress()).toString('latin1');

/** Version 2, TCP over IPv6, from this address. */
function headerOf(source: Buffer): Buffer {
  const header = Buffer.alloc(16 + 36);
  header.write('\r\n\r\n\0\r\nQUIT\n', 'latin1');
  header[12] = 0x21;
  header[13] = 0x21;
  header.writeUInt16BE(36, 14);
  source.copy(header, 16);
  return header;
}
