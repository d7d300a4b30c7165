/** Puts the house together: options, pools, engine; status and the order of stopping. The only file that sees io and pool. */
import { existsSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { within as amongst } from './addresses.js';
import { tellClinic } from './clinic.js';
import { OffloopError, OffloopTypeError } from './errors.js';
import { asHandler, loadModule } from './handlers/module.js';
import type { Handler } from './handlers/types.js';
import { InlineDispatcher } from './inline.js';
import type { Engine } from './io/engine.js';
import { HttpServer } from './io/http-server.js';
import { behindDoor } from './io/proxy-door.js';
import { contextOf, type Mount } from './io/router.js';
import type { Certificates } from './io/tls.js';
import { createEngine } from './io/uws.js';
import { NativeHandler } from './native.js';
import { NativeDispatcher } from './native-dispatcher.js';
import {
  type BodyOptions,
  type MountOptions,
  type ProfileOptions,
  type ResolvedPoolOptions,
  type ResolvedServerOptions,
  resolveMountOptions,
  resolvePoolOptions,
  resolveProfileOptions,
  resolveServerOptions,
  resolveStopOptions,
  type ServerOptions,
  type StopOptions,
  type WorkerPoolOptions,
} from './options.js';
import { within } from './pool/life.js';
import { MountQueue, type MountStats } from './pool/mount-queue.js';
import { type CpuProfile, type HeapProfile, noProfile, profileSelf } from './pool/profile.js';
import { type PoolListener, WorkerPool, type WorkerPoolStats } from './pool/worker-pool.js';
import type { Dispatcher, TimeLimits } from './protocol.js';
import { checkTls, type TlsOptions } from './tls-options.js';

/** A handler that runs inline: a function, an object with `fetch`, or what `nativeHandler` of offloop/web makes. */
export type InlineHandler =
  | Handler
  | { fetch(request: Request): Response | Promise<Response> }
  | NativeHandler;

/**
 * `running` until `stop` is called, `stopping` until the last connection is closed, then `stopped` for ever.
 */
export type ServerStatus = 'running' | 'stopping' | 'stopped';

/** Numbers of a server: plain JSON. Counters count since the start. */
export interface ServerStats {
  status: ServerStatus;
  /** Ms since the server began to listen. */
  uptime: number;
  /** Requests that have been taken and not answered to the last byte. */
  open: number;
  /** WebSockets and HTTP channels that are open. */
  channels: number;
  /** Answers by status, those the server gave in its own name included. */
  answers: Record<string, number>;
  /** What each mount has been doing. Those that run inline have nothing that waits: their `work` is null. */
  mounts: ServerMountStats[];
  /** The server's pool, its own or the one it was given; null when nothing was ever dispatched to it. */
  pool: WorkerPoolStats | null;
}

/** Numbers of one mount of a server. */
export interface ServerMountStats {
  path: string;
  virtualHost: string | null;
  dispatch: boolean;
  work: MountStats | null;
}

/** A running server, made by {@link runServer}. */
export interface Server extends AsyncDisposable {
  /** The bound port; 0 on a Unix domain socket. */
  readonly port: number;
  /** Where a client on this machine reaches it: 'http://127.0.0.1:8090', with `tls` 'https://127.0.0.1:8090', or 'unix:/path'. */
  readonly url: string;
  readonly status: ServerStatus;
  /**
   * Bind another handler to a path prefix, a virtual host, or both; what is bound there is replaced, and requests in
   * flight finish on the old one. Rejects like {@link runServer} when the handler cannot be loaded, and then nothing
   * has changed.
   */
  mount(handler: string | URL | InlineHandler, options?: MountOptions): Promise<void>;
  /** Undo a mount. Returns whether there was one. */
  unmount(options?: Pick<MountOptions, 'path' | 'virtualHost'>): boolean;
  /**
   * Stop: no new connections; requests in flight and queued finish and close their connections; after `timeout` ms
   * (default 10000) the rest is cut. With `grace`, requests over open connections are answered that long, before the time begins to run. Resolves when everything is closed: true, or false if it was not running.
   */
  stop(options?: StopOptions): Promise<boolean>;
  /** Resolves when the server has stopped. */
  join(): Promise<void>;
  stats(): ServerStats;
  /**
   * Profile a thread while it serves, also one that a handler keeps busy for ever: a worker, or the I/O thread. Resolves with what becomes a .cpuprofile or a
   * .heapprofile file as JSON. A worker gives up its compiled code for that, and compiles it again. One profile of a thread at a time.
   * @throws OFFLOOP_BAD_OPTION, OFFLOOP_NO_PROFILE, OFFLOOP_WORKER_LOST when the worker ends, OFFLOOP_STOPPED when the server is stopped.
   */
  profileWorker(options?: ProfileOptions & { kind?: 'cpu' }): Promise<CpuProfile>;
  profileWorker(options: ProfileOptions & { kind: 'heap' }): Promise<HeapProfile>;
  profileWorker(options?: ProfileOptions): Promise<CpuProfile | HeapProfile>;
  /**
   * Send to every channel of this server that has subscribed to a topic: WebSockets, streams and long polls.
   * `close` ends the HTTP ones with it. Default false.
   */
  publish(topic: string, data: string | Uint8Array, options?: { close?: boolean }): void;
  /**
   * Put the handler code that is now on disk into service: fresh workers load it, take over when they are ready, and the
   * old ones finish what they have. No request is lost. Rejects with the error of the code when it does not start; then
   * nothing has changed. Handlers that run inline stay as they are: the thread they live in cannot be exchanged. Pools
   * shared with other servers are reloaded for all of them.
   */
  reload(): Promise<void>;
  /**
   * Meet new connections with other certificates, or with what is in the same files now. Connections that are open keep theirs, and none is
   * closed. Rejects with OFFLOOP_BAD_TLS when they cannot be used; then nothing has changed.
   */
  reloadTls(tls?: TlsOptions): Promise<void>;
}

/** Make a pool that several servers, or several mounts, can share. Close it when they have stopped. */
export function createWorkerPool(options?: WorkerPoolOptions): WorkerPool {
  return new WorkerPool(resolvePoolOptions(options));
}

/**
 * Start a server. Resolves when it listens and its workers have loaded the handler.
 *
 * @param handler path or URL of a handler module, loaded in every worker; a relative path is resolved against the
 *   working directory. With `dispatch: false` it may be a function, and runs on the I/O thread.
 * @throws OFFLOOP_BAD_OPTION, OFFLOOP_FUNCTION_NEEDS_INLINE, OFFLOOP_MODULE_NOT_FOUND, OFFLOOP_NO_HANDLER,
 *   OFFLOOP_NO_ENGINE, OFFLOOP_BAD_TLS, EADDRINUSE and its kind, or the error the module itself threw.
 */
export async function runServer(
  handler: string | URL | InlineHandler,
  options?: ServerOptions,
): Promise<Server> {
  const resolved = resolveServerOptions(options);
  const server = new OffloopServer(resolved.server, resolved.pool, resolved.workerPool);
  try {
    await server.mountFirst(handler, resolved.dispatch);
    await server.listen();
  } catch (error) {
    await server.stop({ timeout: 0 });
    throw error;
  }
  return server;
}

/** A server that does not listen: what is mounted before `listen` is there when the first request comes. */
export interface NewServer extends Server {
  /** `where`: who is said to have been called wrongly. */
  mount(handler: string | URL | InlineHandler, options?: MountOptions, where?: string): Promise<void>;
  /** Bind the address. Rejects with EADDRINUSE and its kind. */
  listen(): Promise<void>;
}

/** Make a server that is started later, for offloop/web. Stop it when `listen` rejects. @throws OFFLOOP_BAD_OPTION. */
export function newServer(options: ServerOptions): NewServer {
  const { server, pool, workerPool } = resolveServerOptions(options);
  return new OffloopServer(server, pool, workerPool);
}

class OffloopServer implements NewServer {
  port = 0;
  status: ServerStatus = 'running';

  private readonly http: HttpServer;
  private ownPool: WorkerPool | undefined;
  private readonly heard = new Set<WorkerPool>();
  private readonly listener: PoolListener;
  private readonly logError: (message: string, error: unknown) => void;
  private readonly warn: (message: string) => void;
  /** What was last read with success. */
  private tls: TlsOptions | undefined;
  private certificates: Certificates | undefined;
  private startedAt = 0;
  /** Calls that mount something, so far. */
  private turns = 0;
  private readonly stopping = new AbortController();
  private stopped: Promise<void>;
  private markStopped!: () => void;

  constructor(
    private readonly options: ResolvedServerOptions,
    private readonly poolOptions: ResolvedPoolOptions,
    private readonly givenPool: WorkerPool | undefined,
  ) {
    this.http = new HttpServer(options);
    this.listener = {
      error: (message, error) => this.http.log('error', message, error),
      warn: (message, error) => this.http.log('warn', message, error),
    };
    this.logError = (message, error) => this.http.log('error', message, error);
    this.warn = (message) => this.http.log('warn', message, undefined);
    this.tls = options.tls;
    this.stopped = new Promise((resolve) => {
      this.markStopped = resolve;
    });
  }

  /** The handler given to `runServer`. */
  async mountFirst(handler: string | URL | InlineHandler, dispatch: boolean): Promise<void> {
    if (this.options.tls !== undefined) this.certificates = await readTls(this.options.tls, this.warn);
    const { limits, maxBody, streamBody } = this.options;
    const bodies = { maxBody, streamBody };
    const bound = this.bind(handler, [], '/', dispatch, this.givenPool, limits, bodies, 'runServer');
    bound.catch(() => undefined);
    // While the workers start. It takes a few ms; where there is none, nobody need wait for them.
    await nextTurn();
    createEngine();
    await bound;
  }

  async listen(): Promise<void> {
    this.port = await this.http.listen(this.engine(), this.certificates);
    this.startedAt = performance.now();
    if (this.options.unix === undefined) await tellClinic(this.options.ip, this.port);
  }

  private engine(): Engine {
    const { proxyProtocol, proxyProtocolFrom } = this.options;
    const engine = createEngine();
    if (proxyProtocol === 'disable') return engine;
    const optional = proxyProtocol === 'optional';
    return behindDoor(engine, { optional, from: amongst(proxyProtocolFrom), warn: this.warn });
  }

  get url(): string {
    const { ip, unix } = this.options;
    if (unix !== undefined) return `unix:${unix}`;
    const host = ip === '0.0.0.0' ? '127.0.0.1' : ip === '::' ? '[::1]' : ip.includes(':') ? `[${ip}]` : ip;
    return `${this.scheme}://${host}:${this.port}`;
  }

  private get scheme(): 'http' | 'https' {
    return this.options.tls === undefined ? 'http' : 'https';
  }

  async reloadTls(options?: TlsOptions): Promise<void> {
    if (this.status !== 'running')
      throw new OffloopError('OFFLOOP_STOPPED', `cannot replace certificates: the server is ${this.status}`);
    if (this.tls === undefined)
      throw new OffloopTypeError('OFFLOOP_BAD_OPTION', 'reloadTls: the server was started without tls');
    if (options !== undefined) checkTls('reloadTls', options);
    const tls = options ?? this.tls;
    await this.http.replaceTls(await readTls(tls, this.warn));
    this.tls = tls;
  }

  async mount(handler: string | URL | InlineHandler, options?: MountOptions, where = 'mount'): Promise<void> {
    const { path, virtualHosts, dispatch, workerPool, limits, bodies } = resolveMountOptions(options, where);
    if (this.status !== 'running')
      throw new OffloopError('OFFLOOP_STOPPED', `cannot mount: the server is ${this.status}`);
    const pool = workerPool ?? this.givenPool;
    const { maxBody, streamBody } = this.options;
    await this.bind(
      handler,
      virtualHosts,
      path,
      dispatch,
      pool,
      { ...this.options.limits, ...limits },
      { maxBody, streamBody, ...bodies },
      where,
    );
  }

  unmount(options?: Pick<MountOptions, 'path' | 'virtualHost'>): boolean {
    const { path, virtualHosts } = resolveMountOptions(options, 'unmount');
    if (virtualHosts.length === 0) return this.http.router.delete(undefined, path);
    let removed = false;
    for (const host of virtualHosts) removed = this.http.router.delete(host, path) || removed;
    return removed;
  }

  private async bind(
    handler: string | URL | InlineHandler,
    hosts: readonly string[],
    path: string,
    dispatch: boolean,
    pool: WorkerPool | undefined,
    limits: TimeLimits,
    bodies: Required<BodyOptions>,
    where: string,
  ): Promise<void> {
    const turn = ++this.turns;
    const dispatcher = await this.resolve(handler, dispatch, pool, limits, where);
    if (this.status !== 'running') {
      dispatcher.close();
      throw new OffloopError('OFFLOOP_STOPPED', `cannot mount: the server is ${this.status}`);
    }
    const context = contextOf(path);
    const { trustProxy } = this.options;
    const trust = trustProxy === false ? '' : ` ${JSON.stringify(trustProxy)}`;
    const mount: Mount = {
      context,
      dispatcher,
      ...bodies,
      line: `${this.scheme}${trust}\n${context}`,
      wantsAddress: false,
      turn,
    };
    const { router } = this.http;
    // A later call for the same place may have been faster to load: the last one called wins.
    const places = (hosts.length === 0 ? [undefined] : hosts).filter(
      (host) => (router.at(host, path)?.turn ?? 0) < turn,
    );
    for (const host of places) router.set(host, path, mount);
    if (places.length === 0) dispatcher.close();
  }

  private async resolve(
    handler: unknown,
    dispatch: boolean,
    pool: WorkerPool | undefined,
    limits: TimeLimits,
    where: string,
  ): Promise<Dispatcher> {
    const url = checkHandler(handler, dispatch, where);
    if (handler instanceof NativeHandler) return new NativeDispatcher(handler, limits, this.logError);
    if (url !== undefined) {
      if (dispatch) return await this.loadInto(pool, url, limits);
      return new InlineDispatcher((await loadModule(url)).handler, limits, this.logError);
    }
    return new InlineDispatcher(asHandler(handler, where), limits, this.logError);
  }

  private async loadInto(
    given: WorkerPool | undefined,
    url: string,
    limits: TimeLimits,
  ): Promise<Dispatcher> {
    let pool = given;
    if (pool === undefined) {
      this.ownPool ??= new WorkerPool(this.poolOptions);
      pool = this.ownPool;
    }
    if (!this.heard.has(pool)) {
      this.heard.add(pool);
      pool.listeners.add(this.listener);
    }
    return pool.mount(await pool.load(url), limits);
  }

  stats(): ServerStats {
    const pool = (this.ownPool ?? this.givenPool)?.stats ?? null;
    return {
      status: this.status,
      uptime: Math.round(performance.now() - this.startedAt),
      open: this.http.open,
      channels: this.http.channels,
      answers: this.http.answersByStatus(),
      mounts: this.http.router.list().map(({ virtualHost, mount }) => {
        const { context, dispatcher } = mount;
        const pooled = dispatcher instanceof MountQueue;
        const work = pooled ? dispatcher.stats : null;
        return { path: context === '' ? '/' : context, virtualHost, dispatch: pooled, work };
      }),
      pool,
    };
  }

  profileWorker(options?: ProfileOptions & { kind?: 'cpu' }): Promise<CpuProfile>;
  profileWorker(options: ProfileOptions & { kind: 'heap' }): Promise<HeapProfile>;
  async profileWorker(options?: ProfileOptions): Promise<unknown> {
    const { worker, workerPool, kind, duration } = resolveProfileOptions(options);
    if (this.status !== 'running')
      throw new OffloopError('OFFLOOP_STOPPED', `cannot profile: the server is ${this.status}`);
    const task = { kind, duration, signal: this.stopping.signal };
    if (worker === 'io') return await profileSelf(task);
    const found = (workerPool === undefined ? [...this.heard] : [workerPool])
      .map((pool) => ({ pool, worker: pool.find(worker) }))
      .sort((a, b) => (b.worker?.load ?? -1) - (a.worker?.load ?? -1))[0];
    if (found?.worker === undefined)
      throw noProfile(
        worker === undefined ? 'there is no worker to profile' : `there is no worker with threadId ${worker}`,
      );
    return await found.pool.profile(found.worker, task);
  }

  publish(topic: string, data: string | Uint8Array, options: { close?: boolean } = {}): void {
    if (
      typeof topic !== 'string' ||
      topic === '' ||
      (typeof data !== 'string' && !(data instanceof Uint8Array))
    )
      throw new OffloopTypeError(
        'OFFLOOP_BAD_CHANNEL',
        'publish takes a topic, a string of at least one character, and a string or bytes',
      );
    // What a slow client gets later are the bytes at the time of the call.
    const own = typeof data === 'string' ? data : new Uint8Array(data);
    this.http.publish(topic, own, options.close ?? false, '');
  }

  async reload(): Promise<void> {
    if (this.status !== 'running')
      throw new OffloopError('OFFLOOP_STOPPED', `cannot reload: the server is ${this.status}`);
    await Promise.all([...this.heard].map((pool) => pool.reload()));
  }

  async stop(options?: StopOptions): Promise<boolean> {
    const { timeout, grace } = resolveStopOptions(options);
    if (this.status !== 'running') return false;
    this.status = 'stopping';
    this.stopping.abort(
      new OffloopError('OFFLOOP_STOPPED', 'the server was stopped while a thread was profiled'),
    );
    this.http.stopListening();
    if (grace > 0) await this.http.whenDeserted(grace);
    this.http.refuse();
    const deadline = performance.now() + timeout;
    await within(this.http.whenIdle(), timeout);
    // Handlers whose clients are gone still run in our pool: they get what is left of the time.
    const left = Math.max(0, Math.ceil(deadline - performance.now()));
    await this.ownPool?.close({ timeout: left });
    // One turn for the last answers, which have been written, to leave for the kernel; large ones may need more.
    await new Promise((resolve) => setImmediate(resolve));
    const lingering = Math.min(this.http.lingering, deadline - performance.now());
    if (lingering > 0) await new Promise((resolve) => setTimeout(resolve, lingering));
    this.http.close();
    for (const pool of this.heard) pool.listeners.delete(this.listener);
    this.status = 'stopped';
    this.markStopped();
    return true;
  }

  join(): Promise<void> {
    return this.stopped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.stopped;
  }
}

/**
 * Says what is wrong with a handler before anything is loaded. Returns the URL of a handler module, undefined for what is a
 * handler itself. @throws OFFLOOP_MODULE_NOT_FOUND, OFFLOOP_NO_HANDLER, OFFLOOP_FUNCTION_NEEDS_INLINE.
 */
export function checkHandler(handler: unknown, dispatch: boolean, where: string): string | undefined {
  if (typeof handler === 'string' || handler instanceof URL) return moduleUrl(handler);
  if (handler instanceof NativeHandler) return undefined;
  if (typeof handler !== 'function' && (typeof handler !== 'object' || handler === null)) {
    throw new OffloopTypeError(
      'OFFLOOP_NO_HANDLER',
      `${where}: the handler is ${handler === null ? 'null' : `a ${typeof handler}`}; give the path or URL of a handler module, or a function with { dispatch: false }.`,
    );
  }
  if (dispatch) {
    throw new OffloopTypeError(
      'OFFLOOP_FUNCTION_NEEDS_INLINE',
      `${where}: a function cannot cross threads, so it cannot run on the worker pool. Either put it into a module as its default export ` +
        `and pass the path of that: ${where}('./handler.js'); or run it inline, on the I/O thread: ${where}(handler, { dispatch: false }).`,
    );
  }
  return undefined;
}

/** The module's URL, checked to exist: Node's own message for that is written for importers. */
function moduleUrl(handler: string | URL): string {
  const isUrl = typeof handler !== 'string' || handler.startsWith('file:');
  const url = isUrl ? new URL(handler) : pathToFileURL(isAbsolute(handler) ? handler : resolve(handler));
  if (url.protocol !== 'file:') {
    throw new OffloopTypeError(
      'OFFLOOP_MODULE_NOT_FOUND',
      `the handler module ${url.href} is no file: give a path or a file: URL`,
    );
  }
  const path = fileURLToPath(url);
  if (!existsSync(path)) {
    const how =
      isUrl || isAbsolute(handler as string)
        ? ''
        : ` (relative paths are resolved against the working directory, ${process.cwd()})`;
    throw new OffloopError(
      'OFFLOOP_MODULE_NOT_FOUND',
      `the handler module ${String(handler)} was not found: there is no ${path}${how}`,
    );
  }
  return url.href;
}

/** Read certificates. What that needs of Node is only loaded here. */
async function readTls(tls: TlsOptions, warn: (message: string) => void): Promise<Certificates> {
  const { Certificates } = await import('./io/tls.js');
  return new Certificates(tls, warn);
}
