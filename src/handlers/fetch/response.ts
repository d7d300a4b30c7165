/**
 * What `new Response('text')` makes on a thread with Fetch-style handlers. A real one makes a stream of its body, which then has to be
 * read, and that takes longer than all the rest of a small answer. So a real one is made when somebody asks for what only that has.
 */
import { passOn } from './stand-in.js';

/** What an answer is made of. */
export interface Parts {
  readonly status: number;
  /** null: nothing but the type of a text, if it is one. */
  readonly headers: Headers | null;
  readonly body: string | Uint8Array | null;
}

/** What the platform calls the type of a string. */
export const TEXT_TYPE = 'text/plain;charset=UTF-8';

type Whole = string | Uint8Array<ArrayBuffer> | null;

class LightResponse {
  readonly #body: Whole;
  readonly #status: number;
  /** The ones that count, from the moment somebody has seen them. */
  #headers: Headers | null;
  #real: Response | undefined;
  /** It has been sent, and cannot be again. */
  #sent = false;

  constructor(body: Whole, status: number, headers: Headers | null) {
    this.#body = body;
    this.#status = status;
    this.#headers = headers;
    if (headers !== null && typeof body === 'string' && !headers.has('content-type'))
      headers.set('content-type', TEXT_TYPE);
  }

  get status(): number {
    return this.#status;
  }
  get ok(): boolean {
    return this.#status < 300;
  }
  get statusText(): string {
    return '';
  }
  get headers(): Headers {
    this.#headers ??= new Headers(typeof this.#body === 'string' ? { 'content-type': TEXT_TYPE } : undefined);
    return this.#headers;
  }
  get bodyUsed(): boolean {
    return this.#sent || this.#real?.bodyUsed === true;
  }

  clone(): Response {
    const { body } = this.#make().clone();
    return new Native(body, { status: this.#status, headers: this.headers });
  }

  #make(): Response {
    if (this.#real === undefined) {
      this.#real = new Native(this.#body, { status: this.#status, headers: this.headers });
      // Just as used: who wants to read it again gets the error of the platform.
      if (this.#sent) void this.#real.text();
    }
    return this.#real;
  }

  static realOf(value: unknown): Response | undefined {
    return isLight(value) ? value.#make() : undefined;
  }

  /** What it is made of, once, as long as nobody has its body. */
  static takeParts(value: object): Parts | undefined {
    if (!isLight(value) || value.#real !== undefined || value.#sent) return undefined;
    value.#sent = value.#body !== null;
    return { status: value.#status, headers: value.#headers, body: value.#body };
  }

  static is(value: object): value is LightResponse {
    return #body in value;
  }
}

const isLight = (value: unknown): value is LightResponse =>
  typeof value === 'object' && value !== null && LightResponse.is(value);

/** What a Response is made of that is to be sent now; undefined where it has to be read. Its body counts as used from then on. */
export const takeParts = (response: object): Parts | undefined => LightResponse.takeParts(response);

let Native: typeof Response;

/** Statuses that have no body: what the platform throws for one. */
const BODILESS = new Set([204, 205, 304]);

/** A light one, or undefined where only a real one knows what to make of it, or what to throw. */
function light(body: unknown, init: unknown): LightResponse | undefined {
  let whole: Whole;
  if (typeof body === 'string') whole = body;
  else if (body === null || body === undefined) whole = null;
  else if (body instanceof Uint8Array && body.buffer instanceof ArrayBuffer) whole = new Uint8Array(body);
  else return undefined;
  if (init === undefined || init === null) return new LightResponse(whole, 200, null);
  if (typeof init !== 'object') return undefined;
  const { status = 200, statusText = '', headers } = init as ResponseInit;
  if (!Number.isInteger(status) || status < 200 || status > 599 || statusText !== '') return undefined;
  if (whole !== null && BODILESS.has(status)) return undefined;
  // Now, so that a bad one throws here.
  return new LightResponse(whole, status, headers === undefined ? null : new Headers(headers));
}

/**
 * Have `new Response` and `Response.json` make light ones. They are instances of Response, and where a member is asked for that they do
 * not have a real one answers. Subclasses make real ones.
 */
export function prepareResponse(): void {
  Native = globalThis.Response;
  const { prototype } = LightResponse;
  Object.setPrototypeOf(prototype, Native.prototype);
  const members = Object.getOwnPropertyNames(Native.prototype).filter((name) => name !== 'constructor');
  passOn(prototype, Native.prototype, members, LightResponse.realOf);
  Reflect.deleteProperty(prototype, 'constructor');
  // Where Node keeps the inside of a Response in symbols, classes that were taken before now read it from there.
  const inside = new Native();
  passOn(prototype, inside, Object.getOwnPropertySymbols(inside), LightResponse.realOf);

  const json = (data: unknown, init?: ResponseInit): Response => {
    const text = JSON.stringify(data) as string | undefined;
    const made = text === undefined ? undefined : (light(text, init) as unknown as Response | undefined);
    if (made === undefined) return Native.json(data, init);
    // A text has a type by now, and this is none of the caller's choice.
    if (init?.headers === undefined || !new Headers(init.headers).has('content-type'))
      made.headers.set('content-type', 'application/json');
    return made;
  };
  const Light: typeof Response = new Proxy(Native, {
    construct: (Target, args: [unknown, unknown], newTarget: NewableFunction) =>
      ((newTarget === Light ? light(args[0], args[1]) : undefined) as object | undefined) ??
      (Reflect.construct(Target, args, newTarget === Light ? Target : newTarget) as object),
    get: (target, key, receiver) => (key === 'json' ? json : (Reflect.get(target, key, receiver) as unknown)),
  });
  globalThis.Response = Light;
  // Of real ones, too: they are made by what is called Response now.
  Object.defineProperty(Native.prototype, 'constructor', {
    value: Light,
    writable: true,
    configurable: true,
  });
}
