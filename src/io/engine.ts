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
  writeStatus(status: string): unknown;
  /** Send part of a body of unknown length. */
  write(chunk: string | Uint8Array): boolean;
  end(body?: string | Uint8Array, closeConnection?: boolean): unknown;
  endWithoutBody(reportedContentLength?: number, closeConnection?: boolean): unknown;
  /** Send what fits of a body of known length. */
  tryEnd(bodyOrChunk: Uint8Array, totalSize: number): [ok: boolean, done: boolean];
  getWriteOffset(): number;
  onWritable(handler: (offset: number) => boolean): unknown;
  onAborted(handler: () => void): unknown;
  onData(handler: (chunk: ArrayBuffer, isLast: boolean) => void): unknown;
  pause(): void;
  resume(): void;
  cork(handler: () => void): unknown;
  close(): unknown;
  getRemoteAddressAsText(): ArrayBuffer;
}

/** `method` is in upper case. */
export type OnRequest = (res: EngineResponse, req: EngineRequest, method: string) => void;

export type Address =
  | { readonly kind: 'tcp'; readonly ip: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface Listener {
  /** The bound port; 0 for a Unix socket. */
  readonly port: number;
  /** Take no more connections; those open stay. */
  stopListening(): void;
  /** Cut every connection and let go of everything. */
  close(): void;
}

export interface Engine {
  /** Bind and serve. Rejects with an error whose `code` is the system's own, such as EADDRINUSE. */
  listen(address: Address, onRequest: OnRequest): Promise<Listener>;
}
