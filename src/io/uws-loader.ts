/** Finds a build of uWebSockets.js that loads on this Node, platform and C library, or explains what to install. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { OffloopError } from '../errors.js';
import type { EngineRequest, EngineResponse, EngineWebSocket } from './engine.js';

/** Bytes of request head the engine takes at most. It reads this once, when it is loaded; `maxLine` needs the room. */
const MAX_HEAD = 128 * 1024;

export interface Candidate {
  readonly name: string;
  readonly load: () => unknown;
}

/** The part of the native module this project calls. */
export interface UwsModule {
  App(): UwsApp;
  /** Throws when it cannot use the files. */
  SSLApp(options: UwsTls): UwsApp;
  us_listen_socket_close(socket: unknown): void;
  us_socket_local_port(socket: unknown): number;
  readonly LIBUS_LISTEN_EXCLUSIVE_PORT: number;
  readonly DISABLED: number;
  readonly SHARED_COMPRESSOR: number;
  readonly DEDICATED_COMPRESSOR_4KB: number;
  _cfg?: (key: string) => void;
}
type Route = (pattern: string, handler: (res: EngineResponse, req: UwsRequest) => void) => UwsApp;
export type UwsRequest = EngineRequest & { getCaseSensitiveMethod(): string };
export interface UwsBehavior {
  readonly compression: number;
  readonly maxPayloadLength: number;
  readonly idleTimeout: number;
  readonly maxBackpressure: number;
  readonly sendPingsAutomatically: boolean;
  readonly closeOnBackpressureLimit: boolean;
  upgrade(res: EngineResponse, req: UwsRequest, context: object): void;
  open(ws: EngineWebSocket): void;
  message(ws: EngineWebSocket, data: ArrayBuffer, isBinary: boolean): void;
  ping(ws: EngineWebSocket, data: ArrayBuffer): void;
  drain(ws: EngineWebSocket): void;
  close(ws: EngineWebSocket, code: number, reason: ArrayBuffer): void;
}
/** Names of files. */
export interface UwsTls {
  readonly cert_file_name: string;
  readonly key_file_name: string;
  readonly passphrase?: string;
  readonly ca_file_name?: string;
  /** In OpenSSL's notation; those of TLS 1.3 are not concerned. */
  readonly ssl_ciphers?: string;
}
export interface UwsApp
  extends Record<'any' | 'get' | 'head' | 'post' | 'put' | 'del' | 'patch' | 'options', Route> {
  ws(pattern: string, behavior: UwsBehavior): UwsApp;
  publish(topic: string, data: string | Uint8Array, isBinary?: boolean, compress?: boolean): boolean;
  listen(host: string, port: number, options: number, done: (socket: unknown) => void): UwsApp;
  listen_unix(done: (socket: unknown) => void, path: string): UwsApp;
  /** A certificate for a name, with routes of its own. One that cannot be used is ignored. */
  addServerName(name: string, options: UwsTls): UwsApp;
  /** The routes that follow are those of a name. */
  domain(name: string): UwsApp;
  close(): UwsApp;
}

/** In order of trust: what the user installed, then the registry builds. */
export function candidates(): Candidate[] {
  const here = createRequire(import.meta.url);
  const app = createRequire(join(process.cwd(), 'package.json'));
  const { platform, arch, versions } = process;
  return [
    { name: 'uWebSockets.js', load: () => here('uWebSockets.js') },
    { name: 'uWebSockets.js (from the working directory)', load: () => app('uWebSockets.js') },
    { name: '@btc-vision/uwebsockets.js', load: () => here('@btc-vision/uwebsockets.js') },
    {
      // The bare addon: the package's own entry falls back to an emulation in JavaScript without saying so.
      name: '@trufflesuite/uws-js-unofficial',
      load: () =>
        here(`@trufflesuite/uws-js-unofficial/binaries/uws_${platform}_${arch}_${versions.modules}.node`),
    },
  ];
}

let loaded: { readonly uws: UwsModule; readonly name: string } | undefined;

/** Load the engine, once. Throws OFFLOOP_NO_ENGINE with everything a bug report would need. */
export function loadEngine(from: () => Candidate[] = candidates): {
  readonly uws: UwsModule;
  readonly name: string;
} {
  loaded ??= firstThatLoads(from());
  return loaded;
}

export function firstThatLoads(list: readonly Candidate[]): {
  readonly uws: UwsModule;
  readonly name: string;
} {
  process.env['UWS_HTTP_MAX_HEADERS_SIZE'] ??= String(MAX_HEAD);
  const tried: string[] = [];
  for (const { name, load } of list) {
    try {
      const uws = load() as Partial<UwsModule>;
      if (typeof uws.App === 'function' && typeof uws.us_socket_local_port === 'function')
        return { uws: uws as UwsModule, name };
      tried.push(`  ${name}: loaded, but it is not the native engine`);
    } catch (error) {
      tried.push(`  ${name}: ${firstLine(error)}`);
    }
  }
  throw new OffloopError(
    'OFFLOOP_NO_ENGINE',
    [
      `offloop: no build of uWebSockets.js loads here (Node ${process.version}, ABI ${process.versions.modules}, ${process.platform} ${process.arch}, ${libc()}). Tried:`,
      ...tried,
      'What to do: run npm install again without --omit=optional; or install the official build for this Node,',
      '  npm install uNetworking/uWebSockets.js#v20.57.0',
      '(Linux needs glibc 2.38 or newer for it; with an older glibc use Node 20, for which a build comes with offloop; musl has none).',
    ].join('\n'),
  );
}

function firstLine(error: unknown): string {
  return String((error as Error | undefined)?.message ?? error).split('\n', 1)[0] as string;
}

export function libc(): string {
  const header = (process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined)
    ?.header;
  if (process.platform !== 'linux') return 'no glibc';
  return header?.glibcVersionRuntime === undefined
    ? 'musl or unknown libc'
    : `glibc ${header.glibcVersionRuntime}`;
}
