/** What middleware does with requests. */
import { isMainThread } from 'node:worker_threads';
import { OffloopError } from '../errors.js';
import { answerTo } from '../handlers/invoke.js';
import { RingRequest } from '../handlers/request.js';
import type { HttpRequest } from '../handlers/types.js';

/**
 * Prototypes of requests whose own properties are plain fields, so that a copy of them is as good as they are. A request that
 * has another request for a prototype works too, but makes an object as prototype of one other object, which costs V8
 * twenty times as much as a copy.
 */
const copied = new WeakSet<object>([RingRequest.prototype]);

const isCopied = (req: object): boolean => copied.has(Object.getPrototypeOf(req) as object);

/**
 * A request that is `req` but for `additions`: what they name is added or replaced, getters stay getters. `req` itself is
 * not changed.
 */
export function derive<Req extends HttpRequest, A extends object>(req: Req, additions: A): Req & A {
  const descriptors = Object.getOwnPropertyDescriptors(additions) as PropertyDescriptorMap;
  const prototype = Object.getPrototypeOf(req) as object;
  const plain = Object.keys(descriptors).every(
    (name) => 'value' in (descriptors[name] ?? {}) && !(name in prototype),
  );
  return plain ? withFields(req, additions) : (Object.create(req, descriptors) as Req & A);
}

/** The same for fields that no request has by itself, and that are no getters. */
export function withFields<Req extends HttpRequest, A extends object>(req: Req, fields: A): Req & A {
  if (!isCopied(req)) return Object.create(req, Object.getOwnPropertyDescriptors(fields)) as Req & A;
  // A literal, because one with as many properties stays a fast object, and one that is assigned to does not.
  return { __proto__: Object.getPrototypeOf(req) as object, ...req, ...fields };
}

type Getters<State, A> = { readonly [Name in keyof A]: (state: State) => A[Name] };

/**
 * How a middleware makes requests with properties that are worked out by who looks, or that replace those of every request:
 * their getters are the same for all requests, and get what belongs to each.
 */
export function lazily<State, A extends object>(
  getters: Getters<State, A>,
): <Req extends HttpRequest>(req: Req, state: State) => Omit<Req, keyof A> & A {
  const key = Symbol('state');
  const names = Object.keys(getters) as (keyof A & string)[];
  const properties: PropertyDescriptorMap = {};
  for (const name of names) {
    const getter = getters[name];
    properties[name] = {
      configurable: true,
      get(this: { [key]: State }) {
        return getter(this[key]);
      },
    };
  }
  const prototypes = new WeakMap<object, object>();

  return (req, state) => {
    type Made = Omit<typeof req, keyof A> & A;
    if (!isCopied(req)) return Object.create(req, { ...properties, [key]: { value: state } }) as Made;
    const before = Object.getPrototypeOf(req) as object;
    let prototype = prototypes.get(before);
    if (prototype === undefined) {
      prototype = Object.create(before, properties) as object;
      prototypes.set(before, prototype);
      copied.add(prototype);
    }
    const made = { __proto__: prototype, ...req, [key]: state };
    // A field of that name from further out would hide the getter.
    for (const name of names) if (Object.hasOwn(made, name)) Reflect.deleteProperty(made, name);
    return made as unknown as Made;
  };
}

/** Whether the request has been answered with a channel: then a handler that returns nothing means no 404. */
export function hasChannel(req: HttpRequest): boolean {
  return (req as Partial<RingRequest>)._root?._channel !== undefined;
}

/** Whether the client asked with HEAD, also where a middleware shows the handler a GET. */
export function isHead(req: HttpRequest): boolean {
  return (req as Partial<RingRequest>).isHead ?? req.method === 'HEAD';
}

/** The status that what a handler has thrown is answered with, if that is the client's fault; null for a 500. */
export function statusFor(error: unknown, req: HttpRequest): number | null {
  return answerTo(error, req as HttpRequest & RingRequest)?.status ?? null;
}

/** Tell the server's `errorLogger`. */
export function logError(req: HttpRequest, message: string, error: unknown): void {
  const opener = (req as Partial<RingRequest>)._root?._opener;
  if (opener === undefined) console.error(message, error);
  else opener.log(message, error);
}

/** The media type of a Content-Type header in lower case, without its parameters; '' for none. */
export function mediaType(contentType: string | null | undefined): string {
  if (contentType === null || contentType === undefined) return '';
  const semicolon = contentType.indexOf(';');
  return (semicolon === -1 ? contentType : contentType.slice(0, semicolon)).trim().toLowerCase();
}

/**
 * Refuse to keep `what` in the memory of a worker. How many workers there are a worker cannot know; that its memory is
 * gone when it is replaced is certain. @throws OFFLOOP_NOT_SHARED.
 */
export function refuseInWorker(where: string, what: string): void {
  if (isMainThread) return;
  throw new OffloopError(
    'OFFLOOP_NOT_SHARED',
    `${where} keeps ${what} in memory, and this is a worker: each worker would have its own, and lose it when it is replaced. ` +
      'Mount the handler with { dispatch: false }, or give a store that all workers share.',
  );
}
