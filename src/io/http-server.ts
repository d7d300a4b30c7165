/** The server's side of the sockets: takes requests from the engine, routes them, and keeps count of what is open. */

import { channels } from '../channel-registry.js';
import { REFUSALS, type Refusal } from '../errors.js';
import type { ResolvedServerOptions } from '../options.js';
import { FLAG_NOTHING, type TopicHost } from '../protocol.js';
import { MAX_BACKPRESSURE, type ServerLine, type StreamLine, WebSocketLine } from './channel.js';
import { openConnections } from './connections.js';
import type {
  Address,
  Engine,
  EngineRequest,
  EngineResponse,
  Listener,
  TlsFiles,
  UpgradeContext,
  Via,
} from './engine.js';
import { Exchange, type ExchangeHost } from './exchange.js';
import { ReadGate } from './read-gate.js';
import { RequestReader } from './request-reader.js';
import { ResponseWriter } from './response-writer.js';
import { Router } from './router.js';

/**
 * Ms that connections stay open when the last byte of a large answer has been given to the engine, which may hold up to
 * 16 KiB itself: little enough to leave when the client reads on.
 */
const LINGER = 500;

/** Ms from one look for connections that are left to the next. */
const LOOK_AROUND = 100;

export class HttpServer implements ExchangeHost, TopicHost {
  readonly router = new Router();
  readonly development: boolean;
  /** No new connections, and every answer closes its own. */
  stopping = false;
  /** No new requests either. */
  private refusing = false;
  /** Exchanges that are open now. */
  open = 0;
  /** Answers given since the start, by status. */
  private readonly answers: number[] = new Array<number>(600).fill(0);

  private readonly reader: RequestReader;
  readonly writer: ResponseWriter;
  readonly compress: boolean;
  readonly secure: boolean;
  /** Channels that are open now. */
  private readonly lines = new Map<string, ServerLine>();
  /** Channels that have been closed, and whose callback for that has not run. */
  private closing = 0;
  /** HTTP channels by topic; the engine keeps those of WebSockets. */
  private readonly topics = new Map<string, Set<StreamLine>>();
  private readonly gate = new ReadGate();
  private listener: Listener | undefined;
  /** When a large answer was last complete. */
  private largeAt = Number.NEGATIVE_INFINITY;
  private readonly idle: (() => void)[] = [];

  constructor(private readonly options: ResolvedServerOptions) {
    this.development = options.development;
    this.compress = options.wsCompression !== 'none';
    this.secure = options.tls !== undefined;
    this.reader = new RequestReader(options.maxLine);
    this.writer = new ResponseWriter(options.serverHeader);
  }

  /** Bind. Resolves with the port, 0 for a Unix socket. */
  async listen(engine: Engine, tls?: TlsFiles): Promise<number> {
    const { ip, port, reusePort: shared, unix, unixMode } = this.options;
    const address: Address =
      unix === undefined ? { kind: 'tcp', ip, port, shared } : { kind: 'unix', path: unix, mode: unixMode };
    const { maxWs, wsIdleTimeout, wsCompression } = this.options;
    const webSockets = {
      maxPayloadLength: maxWs,
      idleTimeout: Math.ceil(wsIdleTimeout / 1000),
      maxBackpressure: MAX_BACKPRESSURE,
      compression: wsCompression,
    };
    this.listener = await engine.listen(address, this.take, webSockets, tls);
    channels.hosts.add(this);
    // What is in front of the engine then hangs up by itself.
    const direct = this.options.proxyProtocol === 'disable';
    this.gate.listening(
      direct ? this.listener.port : 0,
      address.kind === 'tcp' && (ip.includes(':') || ip === 'localhost'),
    );
    return this.listener.port;
  }

  async replaceTls(tls: TlsFiles): Promise<void> {
    await this.listener?.replaceTls(tls);
  }

  /** The engine's callback for every request. Nothing may escape it: see engine.ts. */
  private readonly take = (
    res: EngineResponse,
    req: EngineRequest,
    method: string,
    context?: UpgradeContext,
    via?: Via,
  ): void => {
    let exchange: Exchange | undefined;
    try {
      const { reader } = this;
      const problem = reader.read(req, method);
      const mount = problem === undefined ? this.router.match(reader.host, reader.path) : undefined;
      exchange = new Exchange(this, res, reader, context, via);
      this.open++;
      if (problem !== undefined) exchange.refuseLater(problem);
      else if (this.refusing) exchange.turnAway(REFUSALS.stopping);
      else if (mount === undefined) exchange.turnAway(REFUSALS.notFound);
      else if (reader.contentLength > mount.maxBody)
        exchange.refuseAndLinger(REFUSALS.bodyTooLarge(reader.contentLength, mount.maxBody));
      else {
        exchange.mount = mount;
        exchange.begin(reader.hasBody, reader.contentLength);
      }
    } catch (error) {
      this.rescue(exchange, res, error);
    }
  };

  private rescue(exchange: Exchange | undefined, res: EngineResponse, error: unknown): void {
    try {
      if (exchange !== undefined) {
        exchange.rescue(error);
        return;
      }
      this.broken(error);
    } catch (again) {
      this.broken(again);
    }
    try {
      res.close();
    } catch {
      // It was closed already.
    }
  }

  // ----------------------------------------------------------------------------------------------------- the host

  watch(exchange: Exchange): void {
    this.gate.watch(exchange, this.open);
  }

  keepOpen(exchange: Exchange): void {
    this.gate.keepOpen(exchange);
  }

  forget(exchange: Exchange): void {
    this.gate.forget(exchange);
  }

  release(exchange: Exchange): void {
    this.gate.release(exchange);
  }

  finished(large: boolean): void {
    if (large) this.largeAt = performance.now();
    this.open--;
    this.checkIdle();
  }

  private checkIdle(): void {
    if (this.idle.length === 0 || this.open + this.closing > 0) return;
    for (const resolve of this.idle.splice(0)) resolve();
  }

  answered(status: number, flags: number): void {
    this.count(status);
    if (this.options.eventLogger === undefined) return;
    const names = this.options.eventNames;
    this.event((flags & FLAG_NOTHING) !== 0 ? names.serverStatus404 : names.serverStatusPrefix + status);
  }

  refused(status: number, event: Refusal['event']): void {
    this.count(status);
    if (this.options.eventLogger === undefined) return;
    const names = this.options.eventNames;
    this.event(event === undefined ? names.serverStatusPrefix + status : names[event]);
  }

  failed(request: string, error: unknown): void {
    this.log('error', request, error);
  }

  broken(error: unknown): void {
    this.log('error', 'offloop itself failed in a request; please report this', error);
  }

  // -------------------------------------------------------------------------------------------------------- channels

  /** Channels that are open now. */
  get channels(): number {
    return this.lines.size;
  }

  channelOpened(line: ServerLine): void {
    this.lines.set(line.id, line);
  }

  channelClosed(line: ServerLine, told: Promise<unknown> | undefined): void {
    this.lines.delete(line.id);
    if (told !== undefined) {
      this.closing++;
      void told.finally(() => {
        this.closing--;
        this.checkIdle();
      });
    }
    // A response ends with its exchange; a WebSocket has outlived it.
    if (line instanceof WebSocketLine) this.finished(false);
  }

  channelOverflow(): void {
    if (this.options.eventLogger !== undefined) this.event(this.options.eventNames.channelOverflow);
  }

  channelLost(): void {
    if (this.options.eventLogger !== undefined) this.event(this.options.eventNames.channelLost);
  }

  subscribe(topic: string, line: StreamLine): void {
    let lines = this.topics.get(topic);
    if (lines === undefined) {
      lines = new Set();
      this.topics.set(topic, lines);
    }
    lines.add(line);
  }

  unsubscribe(topic: string, line: StreamLine): void {
    const lines = this.topics.get(topic);
    if (lines?.delete(line) === true && lines.size === 0) this.topics.delete(topic);
  }

  publish(topic: string, data: string | Uint8Array, close: boolean, except: string): void {
    const sender = except === '' ? undefined : this.lines.get(except);
    const sent = sender instanceof WebSocketLine && sender.publishToOthers(topic, data);
    if (!sent) this.listener?.publish(topic, data, typeof data !== 'string');
    const lines = this.topics.get(topic);
    // A copy: those that are ended by it leave the set.
    if (lines !== undefined)
      for (const line of [...lines]) if (line.id !== except) line.published(data, close);
  }

  private count(status: number): void {
    (this.answers[status] as number)++;
  }

  /** Answers given since the start, by status; those never given are left out. */
  answersByStatus(): Record<string, number> {
    const entries = this.answers.map((n, status): [string, number] => [String(status), n]);
    return Object.fromEntries(entries.filter(([, n]) => n > 0));
  }

  private event(name: string): void {
    try {
      this.options.eventLogger?.(name);
    } catch {
      // http-kit's rule: a logger that throws is ignored.
    }
  }

  log(level: 'error' | 'warn', message: string, error: unknown): void {
    try {
      if (level === 'error') this.options.errorLogger(message, error);
      else this.options.warnLogger(message, error);
    } catch {
      // As above.
    }
  }

  // ------------------------------------------------------------------------------------------------------- the end

  /** Take no more connections; every answer from now on closes its own. Channels are told to end. */
  stopListening(): void {
    this.stopping = true;
    this.listener?.stopListening();
    for (const line of [...this.lines.values()]) line.stop();
  }

  /** Resolves when no client has a connection any more, or after so many ms. */
  async whenDeserted(ms: number): Promise<void> {
    const until = performance.now() + ms;
    for (;;) {
      const left = until - performance.now();
      if (left <= 0 || openConnections(this.listener?.port ?? 0) === 0) return;
      await new Promise((resolve) => setTimeout(resolve, Math.min(left, LOOK_AROUND)));
    }
  }

  /** Take no more requests. */
  refuse(): void {
    this.refusing = true;
  }

  /** Resolves when no exchange is open, and every channel has been told of its end. */
  whenIdle(): Promise<void> {
    return new Promise((resolve) => {
      this.idle.push(resolve);
      this.checkIdle();
    });
  }

  /** Ms for which the engine may need its connections, to send the last bytes of a large answer to a client that reads slowly. */
  get lingering(): number {
    return Math.max(0, LINGER - (performance.now() - this.largeAt));
  }

  /** Cut what is left. */
  close(): void {
    this.router.close();
    channels.hosts.delete(this);
    this.gate.close();
    this.listener?.close();
  }
}
