/** Calls a handler without a server: no socket, no thread, but the request and the response are the real ones. */
import { payloadSize } from '../bytes.js';
import { OffloopError, OffloopTypeError } from '../errors.js';
import { setWireIfNone } from '../handlers/channel.js';
import { answerTo, invoke } from '../handlers/invoke.js';
import { asHandler } from '../handlers/module.js';
import type { OpenBody } from '../handlers/pump.js';
import { clientGone } from '../handlers/reasons.js';
import { type ChannelOpener, RingRequest } from '../handlers/request.js';
import type { FetchHandler, Handler } from '../handlers/types.js';
import { type Answer, type BodyOutlet, FLAG_CLOSE, STATUS_TAKEN } from '../protocol.js';

/** A handler: a function, an object with `fetch`, or the module that exports one of these (`await import('./handler.js')`). */
export type InjectHandler = Handler | FetchHandler | { readonly default: Handler | FetchHandler };

/** A request for {@link inject}. */
export interface InjectRequest {
  /** '/path?query', given to the handler as it is; or a whole URL. Default '/'. */
  url?: string | URL;
  /** Default 'GET', or 'POST' with a body. */
  method?: string;
  headers?: NonNullable<RequestInit['headers']>;
  /** As in `fetch`, which names the content type where the body says it. */
  body?: NonNullable<RequestInit['body']> | null;
  /** Sent as JSON, instead of `body`. */
  json?: unknown;
  /** Address of the client. Default '127.0.0.1'. */
  remoteAddr?: string;
  /** The path prefix of the mount. Default '': that of '/'. */
  context?: string;
  /** The client goes away when it aborts: `req.signal` fires, and the promise rejects with its reason. */
  signal?: AbortSignal;
}

/**
 * Call a handler with a request and get what a client would get: status, headers and body as the server would send them, without
 * `Date` and `Server`. A body that is read bit by bit is read as the response is, and never more than 256 KiB ahead.
 *
 * Rejects with what the handler throws, which a server would log and answer with a 500; but what is the client's fault comes as the
 * 400 or 413 that a server would answer. There is no connection, so channels and WebSockets are refused with OFFLOOP_BAD_CHANNEL:
 * {@link createTestServer} has some. `publish` reaches nobody.
 */
export async function inject(
  handler: InjectHandler,
  request: string | URL | Request | InjectRequest = {},
): Promise<Response> {
  const call = asHandler(handler, 'inject');
  const { source, signal } = await sourceOf(request);
  signal?.throwIfAborted();
  setWireIfNone(NOWHERE);
  return await new Promise<Response>((resolve, reject) => {
    const opener = new Injected(resolve);
    const req = new RingRequest(source, opener);
    signal?.addEventListener(
      'abort',
      () => {
        req._abort(clientGone());
        opener.body?.unwanted();
        reject(signal.reason as Error);
      },
      { once: true },
    );
    // Not called here: what a handler throws at once has to be a rejection too.
    Promise.resolve()
      .then(() => invoke(call, req))
      .catch((error: unknown) => {
        const answer = answerTo(error, req);
        if (answer === null) throw error;
        return answer;
      })
      .then((answer) => {
        if (answer.status !== STATUS_TAKEN) resolve(responseOf(answer));
      })
      .catch(reject);
  });
}

const NOWHERE = { op: () => undefined };

// ---------------------------------------------------------------------------------------------------------- the request

interface Source {
  readonly isHead: boolean;
  readonly head: string;
  readonly body: Uint8Array | null;
  addressOf(): string;
}

async function sourceOf(
  given: string | URL | Request | InjectRequest,
): Promise<{ source: Source; signal: AbortSignal | undefined }> {
  const parts: InjectRequest =
    typeof given === 'string' || given instanceof URL
      ? { url: given }
      : given instanceof Request
        ? { url: given.url, signal: given.signal }
        : given;
  const { remoteAddr = '127.0.0.1', context = '' } = parts;
  const url = String(parts.url ?? '/');
  const whole = new URL(url, 'http://localhost');
  const request = given instanceof Request ? given : new Request(whole, initOf(parts));
  const target = url.startsWith('/') ? url : whole.pathname + whole.search;
  if (/[\s#]/.test(target) || !`${target.split('?', 1)[0]}/`.startsWith(`${context}/`))
    throw new OffloopTypeError(
      'OFFLOOP_BAD_REQUEST',
      `inject: ${JSON.stringify(target)} is no request target below ${JSON.stringify(`${context}/`)}`,
    );
  const bytes = request.body === null ? null : new Uint8Array(await request.arrayBuffer());
  const headers = new Headers(request.headers);
  if (!headers.has('host')) headers.set('host', whole.host);
  if (bytes !== null) headers.set('content-length', String(bytes.byteLength));
  const mark = target.indexOf('?');
  const [path, query] = mark === -1 ? [target, ''] : [target.slice(0, mark), target.slice(mark)];
  const { method } = request;
  const head = [
    method,
    path,
    query,
    remoteAddr,
    whole.protocol.slice(0, -1),
    context,
    ...[...headers].flat(),
  ];
  const source: Source = {
    isHead: method === 'HEAD',
    head: head.join('\n'),
    body: bytes,
    addressOf: () => remoteAddr,
  };
  return { source, signal: parts.signal };
}

function initOf({ method, headers, body, json }: InjectRequest): RequestInit & { duplex: 'half' } {
  const sent = json === undefined ? (body ?? null) : JSON.stringify(json);
  const given = new Headers(headers);
  // Else it would be called plain text.
  if (json !== undefined && !given.has('content-type')) given.set('content-type', 'application/json');
  return {
    method: method?.toUpperCase() ?? (sent === null ? 'GET' : 'POST'),
    headers: given,
    body: sent,
    duplex: 'half',
  };
}

// --------------------------------------------------------------------------------------------------------- the response

/** What a server would be for one request. */
class Injected implements ChannelOpener, BodyOutlet {
  readonly isOneOfMany = false;
  body: OpenBody | undefined;
  private controller!: ReadableStreamDefaultController<Uint8Array>;
  private sent = 0;

  constructor(private readonly resolve: (response: Response) => void) {}

  newId(): string {
    return 'inject';
  }
  open(): never {
    throw new OffloopError(
      'OFFLOOP_BAD_CHANNEL',
      'inject calls a handler without a server, so there is no connection for a channel: test this with createTestServer',
    );
  }
  op(): void {
    // There are no channels.
  }
  forget(): void {
    // As above.
  }
  log(message: string, error: unknown): void {
    console.error(`[offloop] ${message}`, error);
  }

  openBody(body: OpenBody): BodyOutlet {
    this.body = body;
    return this;
  }
  beforeSending(work: () => void): void {
    setImmediate(work);
  }

  start(status: number, head: string, flags: number, length: number | null): void {
    const stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.controller = controller;
        },
        // Whoever reads has taken all there was.
        pull: () => this.body?.flowed(this.sent),
        cancel: () => this.body?.unwanted(),
      },
      { highWaterMark: 0 },
    );
    const headers = headersOf(head, flags);
    if (length !== null) headers.set('content-length', String(length));
    this.resolve(new Response(stream, { status, headers }));
  }
  send(data: Uint8Array): void {
    this.sent += data.byteLength;
    this.controller.enqueue(data);
  }
  end(): void {
    this.body = undefined;
    this.controller.close();
  }
  fail(error: unknown): void {
    this.body = undefined;
    this.controller.error(error);
  }
}

function responseOf({ status, head, payload, flags }: Answer): Response {
  const headers = headersOf(head, flags);
  const length = payloadSize(payload);
  if (length !== null) headers.set('content-length', String(length));
  const empty = payload === null || typeof payload === 'number';
  return new Response(empty ? null : Buffer.from(payload as string), { status, headers });
}

function headersOf(head: string, flags: number): Headers {
  const headers = new Headers();
  for (const line of head === '' ? [] : head.split('\r\n')) {
    const colon = line.indexOf(': ');
    // The bytes of the line one by one, as a client reads them.
    headers.append(line.slice(0, colon), Buffer.from(line.slice(colon + 2)).toString('latin1'));
  }
  if ((flags & FLAG_CLOSE) !== 0) headers.set('connection', 'close');
  return headers;
}
