/**
 * What the io room needs of the native engine, in the engine's own shape so that nothing stands between a request and
 * the code that handles it. Implemented by uws.ts; by fakes in tests.
 *
 * The engine's rules, which everything here obeys: a request object is dead when its callback returns; a response is
 * dead once ended or aborted; a callback that returns with neither an answer nor an abort hook, or that throws, kills
 * the process.
 */

export interface EngineRequest {
  getUrl(): string;
  /** undefined without '?'. */
  getQuery(): string | undefined;
  /** Lower-case names, in order, duplicates one by one. */
  forEach(visit: (name: string, value: string) => void): void;
}

export interface EngineResponse {
  /** Text of the status line. It is sent as it is, so that checked header lines may follow in the same call. */
  writeStatus(status: string | Uint8Array): unknown;
  /** Send part of a body of unknown length. */
  write(chunk: string | Uint8Array): boolean;
  end(body?: string | Uint8Array, closeConnection?: boolean): unknown;
  endWithoutBody(reportedContentLength?: number, closeConnection?: boolean): unknown;
  /** Send what fits of a body of known length. */
  tryEnd(bodyOrChunk: string | Uint8Array, totalSize: number): [ok: boolean, done: boolean];
  getWriteOffset(): number;
  onWritable(handler: (offset: number) => boolean): unknown;
  onAborted(handler: () => void): unknown;
  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): unknown;
  pause(): void;
  resume(): void;
  cork(handler: () => void): unknown;
  close(): unknown;
  getRemoteAddressAsText(): ArrayBuffer;
  /** The four or sixteen bytes of what a header of the PROXY protocol says; none without one. Whoever sends may send such a header. */
  getProxiedRemoteAddress(): ArrayBuffer;
  /** Turn the connection into a WebSocket; the response is dead then. `userData` comes back with each of its events. */
  upgrade(
    userData: { readonly line: WebSocketEvents },
    key: string,
    protocol: string,
    extensions: string,
    context: object,
  ): void;
}

/** Of a request that may be upgraded. Valid until the response is dead. */
export interface UpgradeContext {
  /** The engine's own. */
  readonly native: object;
  /** The WebSocket that was opened last: right after an upgrade, the one it has made. */
  readonly last: {
    readonly opened: EngineWebSocket | undefined;
    /** Send to the WebSockets that a publication of this one does not reach: see {@link Listener.replaceTls}. */
    readonly publishElsewhere: (topic: string, data: string | Uint8Array, isBinary: boolean) => void;
  };
}

export interface EngineWebSocket {
  /** What the upgrade was given for the connection: the engine puts it there. */
  readonly line: WebSocketEvents;
  /** 1: sent. 0: sent, and bytes wait in the engine. 2: dropped, since too many do. */
  send(data: string | Uint8Array, isBinary?: boolean, compress?: boolean): number;
  /** Send a Close frame, and end the connection when it has left. The close event follows at once. */
  end(code?: number, reason?: string): void;
  /** Cut the connection. */
  close(): void;
  getBufferedAmount(): number;
  subscribe(topic: string): boolean;
  unsubscribe(topic: string): boolean;
  publish(topic: string, data: string | Uint8Array, isBinary?: boolean, compress?: boolean): boolean;
  cork(handler: () => void): unknown;
}

/** What the engine tells of a WebSocket. Nothing may be thrown; data is the engine's memory, gone when the call returns. */
export interface WebSocketEvents {
  message(data: ArrayBuffer, isBinary: boolean): void;
  ping(data: ArrayBuffer): void;
  drain(): void;
  closed(code: number, reason: ArrayBuffer): void;
}

/** Settings of all WebSockets of a server. */
export interface WebSocketSettings {
  /** Bytes of a message. */
  readonly maxPayloadLength: number;
  /** Seconds without traffic after which a WebSocket is closed, pings being sent in time; 0 = never. */
  readonly idleTimeout: number;
  /** Bytes that may wait in the engine for one that reads slowly; what does not fit is dropped. */
  readonly maxBackpressure: number;
  readonly compression: 'none' | 'shared' | 'dedicated';
}

/** For whom a connection is made, when its peer has said so. */
export interface Via {
  /** Their address; '' on a Unix domain socket. */
  readonly address: string;
  /** They speak TLS with the peer. */
  readonly secure: boolean;
}

/** `method` is in upper case. `context` is there when the request asks for a WebSocket. */
export type OnRequest = (
  res: EngineResponse,
  req: EngineRequest,
  method: string,
  context?: UpgradeContext,
  via?: Via,
) => void;

export type Address =
  /** `shared`: with other processes that share it too. */
  | { readonly kind: 'tcp'; readonly ip: string; readonly port: number; readonly shared: boolean }
  /** `mode`: the permissions of the socket's file; undefined = 0o700. */
  | { readonly kind: 'unix'; readonly path: string; readonly mode: number | undefined };

/** Names of PEM files. */
export interface EngineIdentity {
  readonly cert: string;
  readonly key: string;
  readonly passphrase: string | undefined;
}

export interface EngineTls {
  readonly main: EngineIdentity;
  /** For clients that ask for these names. */
  readonly named: readonly (EngineIdentity & { readonly name: string })[];
  readonly ca: string | undefined;
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3';
}

export interface Listener {
  /** The bound port; 0 for a Unix socket. */
  readonly port: number;
  /** Send to all WebSockets that have subscribed. */
  publish(topic: string, data: string | Uint8Array, isBinary: boolean): void;
  /** Meet new connections with other certificates; those open stay with theirs. Rejects, and goes on with the old ones, if it cannot be done. */
  replaceTls(tls: TlsFiles): Promise<void>;
  /** Take no more connections; those open stay. */
  stopListening(): void;
  /** Cut every connection and let go of everything. */
  close(): void;
}

/** Certificates that can be handed out as files. */
export interface TlsFiles {
  asFiles<T>(use: (tls: EngineTls) => T): T;
}

export interface Engine {
  /** Bind and serve. Rejects with an error whose `code` is the system's own, such as EADDRINUSE, or with OFFLOOP_BAD_TLS. */
  listen(
    address: Address,
    onRequest: OnRequest,
    webSockets: WebSocketSettings,
    tls?: TlsFiles,
  ): Promise<Listener>;
}
