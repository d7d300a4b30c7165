/**
 * The Request a Fetch-style handler gets. Making one costs more than most handlers do, and nearly all of that is for what nobody
 * looks at. So a real one is made when something is asked for that only a real one has.
 */
import type { HttpRequest } from '../types.js';
import { wholeBody } from '../untouched.js';
import { prepareResponse } from './response.js';
import { passOn } from './stand-in.js';
import { urlOf } from './url.js';

type Init = RequestInit & { duplex?: 'half' };

/** What can be told of a request without a real one. The rest is passed on, see {@link prepareGlobals}. */
class LazyRequest {
  readonly #source: HttpRequest;
  #real: Request | undefined;
  #url: string | undefined;
  #headers: Headers | undefined;
  /** The body has been read, and there was no real one. */
  #used = false;

  constructor(source: HttpRequest) {
    this.#source = source;
  }

  get method(): string {
    return this.#source.method;
  }

  get url(): string {
    this.#url ??= urlOf(this.#source);
    return this.#url;
  }

  get headers(): Headers {
    // A real one has a copy, and is the one that counts from then on.
    if (this.#real !== undefined) return this.#real.headers;
    this.#headers ??= new Headers(this.#source.headers);
    return this.#headers;
  }

  get signal(): AbortSignal {
    return this.#real === undefined ? this.#source.signal : this.#real.signal;
  }

  get bodyUsed(): boolean {
    return this.#used || this.#real?.bodyUsed === true;
  }

  async text(): Promise<string> {
    return this.#mayRead() ? this.#source.text() : this.#make().text();
  }

  async json(): Promise<unknown> {
    // With the error of the platform: what is written for a Request expects that.
    return this.#mayRead() ? JSON.parse(await this.#source.text()) : this.#make().json();
  }

  async arrayBuffer(): Promise<ArrayBuffer> {
    return this.#mayRead() ? (await copyOf(this.#source)).buffer : this.#make().arrayBuffer();
  }

  async bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return this.#mayRead() ? copyOf(this.#source) : new Uint8Array(await this.#make().arrayBuffer());
  }

  /** Whether the body can be read without a real one, as it can once. Then it counts as read. */
  #mayRead(): boolean {
    if (this.#real !== undefined || this.#used) return false;
    this.#used = hasBody(this.#source);
    return this.#used;
  }

  #make(): Request {
    if (this.#real === undefined) {
      const source = this.#source;
      const { method, signal } = source;
      const init: Init = { method, headers: this.headers, signal };
      if (hasBody(source)) {
        const whole = this.#used ? '-' : wholeBody(source);
        init.body = whole ?? (source.body as NonNullable<RequestInit['body']>);
        if (whole === undefined) init.duplex = 'half';
      }
      this.#real = new Request(this.url, init);
      // Just as used: who wants to read it again, or to clone it, gets the error of the platform.
      if (this.#used) void this.#real.text();
    }
    return this.#real;
  }

  /** A real one for one of ours. */
  static realOf(value: unknown): Request | undefined {
    return typeof value === 'object' && value !== null && #source in value ? value.#make() : undefined;
  }
}

/** A GET or a HEAD has none, as the platform sees it. */
function hasBody(source: HttpRequest): boolean {
  const { method } = source;
  if (method === 'GET' || method === 'HEAD') return false;
  return source.contentLength !== null || source.body !== null;
}

async function copyOf(source: HttpRequest): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await source.bytes());
}

export function toWebRequest(req: HttpRequest): Request {
  return new LazyRequest(req) as unknown as Request;
}

let prepared = false;

/**
 * Make our requests pass for real ones: as instances of Request, and where the platform takes one, in `new Request(request)` and
 * `fetch(request)`. The globals stay what they are for everything else. Called before the first of them is handed out, and not by
 * threads without Fetch-style handlers, as it loads Node's fetch.
 */
export function prepareGlobals(): void {
  if (prepared) return;
  prepared = true;
  prepareResponse();
  const Native = globalThis.Request;
  const { prototype } = LazyRequest;
  Object.setPrototypeOf(prototype, Native.prototype);
  passOn(prototype, Native.prototype, Object.getOwnPropertyNames(Native.prototype), LazyRequest.realOf);
  // Where Node keeps the inside of a Request in symbols, classes that were taken before now read it from there.
  const inside = new Native('http://localhost');
  passOn(prototype, inside, Object.getOwnPropertySymbols(inside), LazyRequest.realOf);

  globalThis.Request = new Proxy(Native, {
    construct: (Target, [input, ...rest]: [unknown], newTarget: NewableFunction) =>
      Reflect.construct(Target, [LazyRequest.realOf(input) ?? input, ...rest], newTarget) as Request,
  });
  Object.defineProperty(prototype, 'constructor', { value: globalThis.Request, configurable: true });
  globalThis.fetch = new Proxy(globalThis.fetch, {
    apply: (target, self, [input, ...rest]: [unknown]) =>
      Reflect.apply(target, self, [LazyRequest.realOf(input) ?? input, ...rest]) as Promise<Response>,
  });
}
