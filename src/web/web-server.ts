/** Servers that outlive their sockets: they keep what is mounted while they are stopped, and are found by their address. */
import { createServer } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import { refuse } from '../check.js';
import { type MountOptions, resolveServerOptions, type ServerOptions, type StopOptions } from '../options.js';
import { type InlineHandler, type NewServer, newServer, type Server } from '../server.js';
import type { Context } from './options.js';

/** A server of `run`, as {@link server} finds it. What is mounted stays mounted while it is stopped. */
export interface WebServer {
  readonly host: string;
  /** 0 before the first start, where any free port was asked for. */
  readonly port: number;
  readonly isRunning: boolean;
  /** What `runServer` would have returned, for `stats`, `publish` and `reload`; null while it is not running. */
  readonly instance: Server | null;
  /** Start it with all that is mounted. Resolves with false if it is running already. Rejects as `runServer` does. */
  start(): Promise<boolean>;
  /** Stop it as `server.stop` does. Resolves with false if it was not running. */
  stop(options?: StopOptions): Promise<boolean>;
}

/** A handler, and how it is mounted; perhaps under several hosts. */
export interface Bound {
  readonly handler: string | URL | InlineHandler;
  readonly options: MountOptions;
  readonly where: string;
  /** Called when nothing of it is mounted any more. */
  readonly released?: () => void;
}

const keyOf = (host: string, port: number): string => `${host.toLowerCase()}\n${port}`;
const placeOf = ({ path, virtualHost }: Context): string =>
  `${virtualHost?.toLowerCase() ?? ''}\n${path.replace(/\/+$/, '')}`;

/** Free ports that are tried before the last error is passed on. */
const ATTEMPTS = 5;

const servers = new Map<string, WebServerHandle>();

/** The server of this address, made if there is none. Options of the server may be left out, but must not be others. */
export function serverAt(
  where: string,
  host: string,
  port: number,
  options: ServerOptions,
  make = true,
): WebServerHandle | undefined {
  const known = port === 0 ? undefined : servers.get(keyOf(host, port));
  if (known !== undefined) {
    known.mustHave(where, options);
    return known;
  }
  if (!make) return undefined;
  const made = new WebServerHandle(host, port, options);
  made.register();
  return made;
}

export class WebServerHandle implements WebServer {
  private current: NewServer | undefined;
  private readonly bound = new Map<string, { context: Context; to: Bound }>();
  /** Somebody has asked for it by itself: it is there without handlers too. */
  kept = false;
  /** Whoever changes something waits for who did before. */
  private turn: Promise<unknown> = Promise.resolve();

  constructor(
    readonly host: string,
    public port: number,
    private readonly options: ServerOptions,
  ) {}

  get isRunning(): boolean {
    return this.current?.status === 'running';
  }
  get instance(): Server | null {
    return this.isRunning ? (this.current as Server) : null;
  }

  start(): Promise<boolean> {
    return this.inTurn(async () => {
      if (this.isRunning) return false;
      this.register();
      await this.open();
      return true;
    });
  }

  stop(options?: StopOptions): Promise<boolean> {
    return this.inTurn(async () => (await this.current?.stop(options)) ?? false);
  }

  /** Where nobody else is. */
  register(): void {
    const key = keyOf(this.host, this.port);
    if (this.port !== 0 && !servers.has(key)) servers.set(key, this);
  }
  private unregister(): void {
    const key = keyOf(this.host, this.port);
    if (servers.get(key) === this) servers.delete(key);
  }

  mustHave(where: string, options: ServerOptions): void {
    const has = JSON.stringify;
    for (const [name, value] of Object.entries(options)) {
      const other = { ...this.options, [name]: value };
      if (isDeepStrictEqual(resolveServerOptions(other), resolveServerOptions(this.options))) continue;
      const own = (this.options as Record<string, unknown>)[name];
      const allowed = `${own === undefined ? 'nothing' : (has(own) ?? String(own))}, as for the server that is at ${this.host} port ${this.port} already; or another port`;
      refuse(where, name, value, allowed);
    }
  }

  /** Mount a handler, and start the server if it is not running and may. Resolves with false if it has been given up meanwhile. */
  bind(contexts: readonly Context[], to: Bound, autoStart: boolean): Promise<boolean> {
    return this.inTurn(async () => {
      if (this.port !== 0 && servers.get(keyOf(this.host, this.port)) !== this) return false;
      if (this.isRunning) await mountOn(this.current as NewServer, contexts, to);
      const before = contexts.map((context) => [placeOf(context), this.bound.get(placeOf(context))] as const);
      for (const context of contexts) this.bound.set(placeOf(context), { context, to });
      try {
        if (!this.isRunning && autoStart) await this.open();
      } catch (error) {
        for (const [place, was] of before)
          if (was === undefined) this.bound.delete(place);
          else this.bound.set(place, was);
        if (this.bound.size === 0 && !this.kept) this.unregister();
        throw error;
      }
      for (const [, was] of before) if (was !== undefined) this.release(was.to);
      return true;
    });
  }

  /** Undo mounts; without any left the server is stopped and given up. Resolves with whether there was anything to undo. */
  unbind(contexts: readonly Context[], options: StopOptions): Promise<boolean> {
    return this.inTurn(async () => {
      const found = contexts.filter((context) => this.bound.has(placeOf(context)));
      if (found.length === 0) return false;
      const gone = found.map((context) => {
        const { to } = this.bound.get(placeOf(context)) as { to: Bound };
        this.bound.delete(placeOf(context));
        return to;
      });
      for (const to of gone) this.release(to);
      if (this.bound.size === 0) {
        // Not unmounted: what still comes is told that the server stops.
        this.unregister();
        await this.current?.stop(options);
        return true;
      }
      for (const { path, virtualHost } of found)
        this.instance?.unmount({ path, ...(virtualHost !== null && { virtualHost }) });
      return true;
    });
  }

  private release(to: Bound): void {
    if (![...this.bound.values()].some((other) => other.to === to)) to.released?.();
  }

  private async open(): Promise<void> {
    if (this.port !== 0) {
      await this.listen(this.port);
      return;
    }
    // A port that the system gives to a listener cannot be bound again while connections to it linger, which they do for a
    // minute after a stop. One that is asked for by its number can.
    for (let attempt = 1; this.port === 0; attempt++) {
      const port = await freePort(this.host);
      try {
        await this.listen(port);
        this.port = port;
      } catch (error) {
        // Somebody else has been faster.
        if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || attempt === ATTEMPTS) throw error;
      }
    }
    this.register();
  }

  private async listen(port: number): Promise<void> {
    const server = newServer({ ...this.options, ip: this.host, port });
    try {
      const all = new Map<Bound, Context[]>();
      for (const { context, to } of this.bound.values()) all.set(to, [...(all.get(to) ?? []), context]);
      await Promise.all([...all].map(([to, contexts]) => mountOn(server, contexts, to)));
      await server.listen();
    } catch (error) {
      await server.stop({ timeout: 0 });
      throw error;
    }
    this.current = server;
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.turn.then(work);
    this.turn = result.catch(() => undefined);
    return result;
  }
}

async function mountOn(
  server: NewServer,
  contexts: readonly Context[],
  { handler, options, where }: Bound,
): Promise<void> {
  const virtualHost = contexts.map((context) => context.virtualHost).filter((host) => host !== null);
  await server.mount(handler, { ...options, ...(virtualHost.length > 0 && { virtualHost }) }, where);
}

/** A port of this address that nobody has now. */
export function freePort(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer().once('error', reject);
    probe.listen(0, host, () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}
