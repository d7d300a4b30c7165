import type { ReadableStream } from 'node:stream/web';
import { cloneOf } from '../bytes.js';
import { OffloopError } from '../errors.js';
import {
  type Accept,
  ASK_ADDRESS,
  type BodySource,
  HEAD_FIELDS,
  type OpField,
  type PackedHead,
} from '../protocol.js';
import { type BodyRequest, StreamedBody } from './body.js';
import type { HandlerChannel } from './channel.js';
import { Client, readEither, splitHost, type Trust, trustOf } from './forwarded.js';
import type { BodyOpener } from './pump.js';
import type { HttpRequest } from './types.js';

/** The client sent something that cannot be understood. Thrown by `req.json()` and `req.formData()`; uncaught it is a 400. */
export class BadRequestError extends OffloopError {
  override readonly name = 'BadRequestError';
  readonly status = 400;
  constructor(message: string, options?: ErrorOptions) {
    super('OFFLOOP_BAD_REQUEST', message, options);
  }
}

const EMPTY = new Uint8Array(0);

/** What a request is made of. */
export interface RequestSource {
  readonly isHead: boolean;
  readonly head: PackedHead;
  readonly body: Uint8Array | null;
  /** Where the body comes from, if it is not here yet. */
  readonly incoming?: BodySource | null;
  /** Ms from its admission to the call of its handler; none where that is the same moment. */
  readonly queueTime?: number;
  addressOf(): string;
}

/** How the thread of a handler opens channels and speaks through them. */
export interface ChannelOpener extends BodyOpener {
  /** Whether events of defined channels may come to another thread than this one. */
  readonly isOneOfMany: boolean;
  newId(): string;
  /** Answer the request with this channel. `accept` for a WebSocket. */
  open(channel: HandlerChannel, accept: Accept | null, source: RequestSource): void;
  op(op: number, id: string, a: OpField, b: OpField, c: OpField): void;
  /** It is closed. */
  forget(channel: HandlerChannel): void;
}

/**
 * {@link HttpRequest} over a packed head. Nothing is parsed until it is read: a handler that looks at nothing pays for
 * nothing. Lives on the thread its handler runs on.
 *
 * Fields are soft-private rather than `#private` so that `Object.create(req, ...)`, the way to hand a changed request
 * on to an inner handler, keeps working.
 */
export class RingRequest implements HttpRequest, BodyRequest {
  /** @internal */ readonly isHead: boolean;
  /** @internal */ readonly _source: RequestSource;
  /** @internal May lie in shared memory; handlers get {@link _own}. */ readonly _bytes: Uint8Array | null;
  /** @internal */ _copy: Uint8Array<ArrayBuffer> | undefined;
  /** @internal Set instead when the body was not complete. */ readonly _streamed: StreamedBody | undefined;
  /** @internal */ _lines: string[] | undefined;
  /** @internal */ _headers: Record<string, string> | undefined;
  /** @internal */ _host: { readonly name: string; readonly port: number } | undefined;
  /** @internal */ _behind: Client | undefined;
  /** @internal */ readonly _opener: ChannelOpener | undefined;
  /** @internal What the request has been answered with, if it is a channel. */ _channel:
    | HandlerChannel
    | undefined;
  /** @internal Its response is under way: it is too late for a channel. */ _answered = false;
  /** @internal The body of its response, before the head is out. */ _sending:
    | { abort(reason: unknown): void }
    | undefined;
  /** @internal */ _abortSource: AbortSource | undefined;
  /** @internal This object, for what is derived from it: state that is made later belongs here. */
  readonly _root: RingRequest;

  constructor(source: RequestSource, opener?: ChannelOpener) {
    this._opener = opener;
    this.isHead = source.isHead;
    this._source = source;
    this._root = this;
    this._bytes = source.body;
    const { incoming } = source;
    this._streamed =
      incoming === undefined || incoming === null ? undefined : new StreamedBody(incoming, this);
  }

  /** @internal One line of the packed head. */
  _line(index: number): string {
    const root = this._root;
    root._lines ??= root._source.head.split('\n');
    return root._lines[index] as string;
  }

  get method(): string {
    return this._line(0);
  }
  get path(): string {
    return this._line(1);
  }
  get query(): string | null {
    const query = this._line(2);
    return query === '' ? null : query.slice(1);
  }
  get remoteAddr(): string {
    const client = this._client;
    return client?.address ?? this._peer;
  }
  /** @internal The address of who has sent it. */
  get _peer(): string {
    const address = this._line(3);
    if (address !== ASK_ADDRESS) return address;
    const asked = this._source.addressOf();
    (this._root._lines as string[])[3] = asked;
    return asked;
  }
  get scheme(): 'http' | 'https' {
    return this._client?.scheme ?? this._scheme;
  }
  /** @internal The scheme it has come by. */
  get _scheme(): 'http' | 'https' {
    return this._line(4).startsWith('https') ? 'https' : 'http';
  }

  /** @internal What proxies that are believed say of who has sent it to them. */
  get _client(): Client | undefined {
    const root = this._root;
    const line = root._line(4);
    const at = line.indexOf(' ');
    if (at === -1) return undefined;
    root._behind ??= clientOf(root, line.slice(at + 1));
    return root._behind;
  }
  get context(): string {
    return this._line(5);
  }
  get pathInfo(): string {
    return this.path.slice(this.context.length) || '/';
  }
  get protocol(): string {
    return 'HTTP/1.1';
  }

  get headers(): Readonly<Record<string, string>> {
    const sent = this._sent;
    // Otherwise there is nothing to be replaced, and the address of the peer need not be asked for.
    if (sent['x-forwarded-host'] === undefined && sent['forwarded'] === undefined) return sent;
    return this._client?.headers ?? sent;
  }
  /** @internal */
  get _sent(): Readonly<Record<string, string>> {
    const root = this._root;
    if (root._headers === undefined) {
      this._line(0);
      root._headers = joinHeaders(root._lines as string[]);
    }
    return root._headers;
  }

  get serverName(): string {
    this._host ??= this._client?.host ?? splitHost(this.headers['host'] ?? '', this.scheme);
    return this._host.name;
  }
  get serverPort(): number {
    this._host ??= this._client?.host ?? splitHost(this.headers['host'] ?? '', this.scheme);
    return this._host.port;
  }

  get contentType(): string | null {
    return this.headers['content-type'] ?? null;
  }
  get contentLength(): number | null {
    const streamed = this._streamed;
    if (streamed === undefined) return this._bytes === null ? null : this._bytes.byteLength;
    const declared = this.headers['content-length'];
    if (declared !== undefined) return Number(declared);
    return streamed.ended ? streamed.size : null;
  }
  get isWebSocket(): boolean {
    const tokens = this.headers['upgrade']?.split(',') ?? [];
    return tokens.some((token) => token.trim().toLowerCase() === 'websocket');
  }

  get queueTime(): number {
    return this._source.queueTime ?? 0;
  }

  get signal(): AbortSignal {
    const root = this._root;
    root._abortSource ??= new AbortSource();
    return root._abortSource.signal;
  }

  /** @internal Fire the signal, or have it aborted already for whoever asks later. */
  _abort(reason: unknown): void {
    this._abortSource ??= new AbortSource();
    this._abortSource.abort(reason);
    this._sending?.abort(reason);
  }
  /** @internal */
  get _aborted(): boolean {
    return this._abortSource?.aborted === true;
  }

  /** @internal */
  get _abortReason(): unknown {
    return this._abortSource?.reason;
  }

  get body(): ReadableStream<Uint8Array> | null {
    if (this._streamed !== undefined) return this._streamed.stream;
    // Through Blob, since it streams a copy: a consumer that transfers the chunks away leaves ours alone.
    return this._bytes === null ? null : (new Blob([this._own()]).stream() as ReadableStream<Uint8Array>);
  }
  /** @internal The body in memory of this thread's own: most of the platform refuses shared memory. */
  _own(): Uint8Array<ArrayBuffer> {
    if (this._bytes === null) return EMPTY;
    const root = this._root;
    if (root._copy === undefined) {
      const { buffer } = this._bytes;
      root._copy =
        buffer instanceof ArrayBuffer ? (this._bytes as Uint8Array<ArrayBuffer>) : cloneOf(this._bytes);
    }
    return root._copy;
  }
  bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return this._heard(this._asBytes());
  }
  text(): Promise<string> {
    return this._heard(this._asText());
  }
  json(): Promise<unknown> {
    return this._heard(this._asJson());
  }
  formData(): Promise<FormData> {
    return this._heard(this._asForm());
  }

  /** @internal A client that goes away must not end a process because nobody waits yet for what it breaks. */
  _heard<T>(promise: Promise<T>): Promise<T> {
    if (this._streamed !== undefined) promise.catch(() => undefined);
    return promise;
  }
  /** @internal */
  async _asBytes(): Promise<Uint8Array<ArrayBuffer>> {
    return this._streamed === undefined ? this._own() : await this._streamed.bytes();
  }
  /** @internal */
  async _asText(): Promise<string> {
    if (this._streamed !== undefined) return new TextDecoder().decode(await this._streamed.bytes());
    return this._bytes === null ? '' : new TextDecoder().decode(this._own());
  }
  /** @internal */
  async _asJson(): Promise<unknown> {
    const text = await this.text();
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new BadRequestError(`the request body is not JSON: ${(cause as Error).message}`, { cause });
    }
  }
  /** @internal */
  async _asForm(): Promise<FormData> {
    const headers: Record<string, string> =
      this.contentType === null ? {} : { 'content-type': this.contentType };
    const bytes = await this.bytes();
    try {
      return await new Response(bytes, { headers }).formData();
    } catch (cause) {
      throw new BadRequestError(`the request body is not a form: ${(cause as Error).message}`, { cause });
    }
  }

  /** For logs and debugging: everything but the body. */
  toJSON(): Record<string, unknown> {
    const { method, path, query, headers, scheme, protocol, serverName, serverPort, remoteAddr } = this;
    const { contentType, contentLength, isWebSocket, context, pathInfo } = this;
    return {
      method,
      path,
      query,
      headers,
      scheme,
      protocol,
      serverName,
      serverPort,
      remoteAddr,
      contentType,
      contentLength,
      isWebSocket,
      context,
      pathInfo,
    };
  }
}

/** Where `req.signal` comes from: remembers an abort, and makes the controller only for handlers that ask. */
class AbortSource {
  reason: unknown;
  aborted = false;
  private controller: AbortController | undefined;

  get signal(): AbortSignal {
    if (this.controller === undefined) {
      this.controller = new AbortController();
      if (this.aborted) this.controller.abort(this.reason);
    }
    return this.controller.signal;
  }

  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    this.controller?.abort(reason);
  }
}

/** By the text they have in heads: few servers have more than one. */
const trusts = new Map<string, Trust>();

/** `trust` is the option `trustProxy` as JSON. */
function clientOf(req: RingRequest, trust: string): Client {
  let trusted = trusts.get(trust);
  if (trusted === undefined) {
    trusted = trustOf(JSON.parse(trust) as true | number | string[]);
    trusts.set(trust, trusted);
  }
  // What a request says of itself must not go through what is made of that here.
  const seen = {
    headers: req._sent,
    scheme: req._scheme,
    get remoteAddr(): string {
      return req._peer;
    },
  };
  return new Client(seen, readEither(seen), trusted);
}

/** RFC 9110, 5.2: a repeated field is a list. Cookie is the exception that joins with ';' (RFC 6265, 5.4). */
function joinHeaders(lines: readonly string[]): Record<string, string> {
  const headers = Object.create(null) as Record<string, string>;
  for (let i = HEAD_FIELDS; i < lines.length; i += 2) {
    const name = lines[i] as string;
    const value = lines[i + 1] as string;
    const before = headers[name];
    headers[name] = before === undefined ? value : `${before}${name === 'cookie' ? '; ' : ', '}${value}`;
  }
  return headers;
}
