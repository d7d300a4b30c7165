/** The server's side of the sockets: takes requests from the engine, routes them, and keeps count of what is open. */
import { REFUSALS, type Refusal } from '../errors.js';
import type { ResolvedServerOptions } from '../options.js';
import { FLAG_NOTHING } from '../protocol.js';
import type { Address, Engine, EngineRequest, EngineResponse, Listener } from './engine.js';
import { Exchange, type ExchangeHost } from './exchange.js';
import { ReadGate } from './read-gate.js';
import { RequestReader } from './request-reader.js';
import { ResponseWriter } from './response-writer.js';
import { Router } from './router.js';

export class HttpServer implements ExchangeHost {
  readonly router = new Router();
  readonly maxBody: number;
  readonly development: boolean;
  stopping = false;
  /** Exchanges that are open now. */
  open = 0;
  /** Answers given since the start, by status. */
  private readonly answers: number[] = new Array<number>(600).fill(0);

  private readonly reader: RequestReader;
  readonly writer: ResponseWriter;
  private readonly gate = new ReadGate();
  private listener: Listener | undefined;
  private readonly idle: (() => void)[] = [];

  constructor(private readonly options: ResolvedServerOptions) {
    this.maxBody = options.maxBody;
    this.development = options.development;
    this.reader = new RequestReader(options.maxLine);
    this.writer = new ResponseWriter(options.serverHeader);
  }

  /** Bind. Resolves with the port, 0 for a Unix socket. */
  async listen(engine: Engine): Promise<number> {
    const { ip, port, unix } = this.options;
    const address: Address = unix === undefined ? { kind: 'tcp', ip, port } : { kind: 'unix', path: unix };
    this.listener = await engine.listen(address, this.take);
    this.gate.listening(
      this.listener.port,
      address.kind === 'tcp' && (ip.includes(':') || ip === 'localhost'),
    );
    return this.listener.port;
  }

  /** The engine's callback for every request. Nothing may escape it: see engine.ts. */
  private readonly take = (res: EngineResponse, req: EngineRequest, method: string): void => {
    let exchange: Exchange | undefined;
    try {
      const { reader } = this;
      const problem = reader.read(req, method);
      const mount = problem === undefined ? this.router.match(reader.host, reader.path) : undefined;
      exchange = new Exchange(this, res, reader);
      this.open++;
      if (problem !== undefined) exchange.refuseLater(problem);
      else if (this.stopping) exchange.turnAway(REFUSALS.stopping);
      else if (mount === undefined) exchange.turnAway(REFUSALS.notFound);
      else if (reader.contentLength > this.maxBody)
        exchange.refuseAndLinger(REFUSALS.bodyTooLarge(reader.contentLength, this.maxBody));
      else {
        exchange.mount = mount;
        exchange.begin(reader.hasBody);
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

  forget(exchange: Exchange): void {
    this.gate.forget(exchange);
  }

  finished(_exchange: Exchange): void {
    this.open--;
    if (this.open === 0 && this.idle.length > 0) for (const resolve of this.idle.splice(0)) resolve();
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

  /** Take no more connections; every answer from now on closes its own. */
  stopListening(): void {
    this.stopping = true;
    this.listener?.stopListening();
  }

  /** Resolves when no exchange is open. */
  whenIdle(): Promise<void> {
    return new Promise((resolve) => {
      if (this.open === 0) resolve();
      else this.idle.push(resolve);
    });
  }

  /** Cut what is left. */
  close(): void {
    this.router.close();
    this.gate.close();
    this.listener?.close();
  }
}
