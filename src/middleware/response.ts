/** What middleware does with what a handler has returned. */
import { HandlerChannel } from '../handlers/channel.js';
import { FileBody } from '../handlers/file.js';
import { isListenerResponse } from '../handlers/listener.js';
import { isThenable } from '../handlers/reasons.js';
import { isBlob, isWebResponse } from '../handlers/respond.js';
import type { Body, HeaderValue, HttpRequest, HttpResponse, Returns } from '../handlers/types.js';
import { hasChannel } from './request.js';

/** What a handler returns, without its promise. */
// biome-ignore lint/suspicious/noConfusingVoidType: a handler that falls off its end returns void
export type Result = Returns | void;

/** `next(value)`: at once if it is there, so that a handler that answers at once still does. */
export function after<T, U>(
  value: T | PromiseLike<T>,
  next: (value: T) => U | PromiseLike<U>,
): U | Promise<U> {
  if (isThenable<T>(value)) return Promise.resolve(value).then(next);
  return next(value) as U;
}

/** A plain text answer in the name of a middleware. */
export function plain(status: number, text: string, headers: Record<string, HeaderValue> = {}): HttpResponse {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8', ...headers }, body: text };
}

/**
 * Header fields in the making. Names are kept as they were written and found whatever their case. Lists, since a response has
 * few of them: a Map costs more than it finds.
 */
export class HeaderBag {
  /** In lower case. */
  private readonly keys: string[] = [];
  private readonly names: string[] = [];
  private readonly values: HeaderValue[] = [];

  constructor(headers: HttpResponse['headers'] | null) {
    if (headers === undefined || headers === null) return;
    if (Symbol.iterator in headers) for (const [name, value] of headers) this.append(name, value);
    else for (const name in headers) this.append(name, headers[name]);
  }

  has(name: string): boolean {
    return this.keys.includes(name);
  }

  /** The value of the field `name`, given in lower case; several joined with ', '. */
  get(name: string): string | undefined {
    const first = this.keys.indexOf(name);
    if (first === -1) return undefined;
    const found = this.values.filter((_, i) => i >= first && this.keys[i] === name);
    return found.flat().join(', ');
  }

  /** In place of what there is. */
  set(name: string, value: HeaderValue): void {
    this.delete(name.toLowerCase());
    this.append(name, value);
  }

  /** One more line. */
  append(name: string, value: HeaderValue): void {
    if (value === null || value === undefined) return;
    this.keys.push(String(name).toLowerCase());
    this.names.push(name);
    this.values.push(value);
  }

  /** `name` in lower case. */
  delete(name: string): void {
    for (let i = this.keys.indexOf(name); i !== -1; i = this.keys.indexOf(name))
      for (const list of [this.keys, this.names, this.values]) list.splice(i, 1);
  }

  /** Say that the response depends on these fields of the request (RFC 9110, 12.5.5). */
  vary(...names: string[]): void {
    const before = this.get('vary') ?? '';
    const known = before
      .toLowerCase()
      .split(',')
      .map((name) => name.trim());
    if (known.includes('*')) return;
    const added = names.filter((name) => !known.includes(name.toLowerCase()));
    if (added.length > 0) this.set('Vary', [...(before === '' ? [] : [before]), ...added].join(', '));
  }

  /** As `headers` of a plain response. Has no prototype: a field may have any name. */
  toRecord(): Record<string, HeaderValue> {
    const { names, values } = this;
    const record = Object.create(null) as Record<string, HeaderValue>;
    for (let i = 0; i < names.length; i++) {
      const name = names[i] as string;
      const before = record[name];
      record[name] = before === undefined ? values[i] : ([before, values[i]].flat() as (string | number)[]);
    }
    return record;
  }

  toHeaders(): Headers {
    const headers = new Headers();
    for (const [i, value] of this.values.entries())
      for (const one of [value].flat()) headers.append(this.names[i] as string, String(one));
    return headers;
  }
}

/**
 * A response in the making: read, change, {@link finish}. The response it was made from is not changed, so a handler may
 * return the same object again and again.
 */
export class Draft {
  body: unknown;

  private constructor(
    private readonly original: HttpResponse | Response,
    public status: number,
    readonly headers: HeaderBag,
  ) {
    this.body = original.body;
  }

  /**
   * A draft of what a handler has returned. Null when there is nothing to change: nothing was returned, a channel answers,
   * or it is no response at all, which is for the server to say.
   */
  static of(result: unknown): Draft | null {
    if (typeof result !== 'object' || result === null || Array.isArray(result)) return null;
    if (result instanceof HandlerChannel || isListenerResponse(result)) return null;
    if (isWebResponse(result)) {
      if (result.bodyUsed || result.status < 200) return null;
      return new Draft(result, result.status, new HeaderBag(result.headers as Iterable<[string, string]>));
    }
    const response = result as HttpResponse;
    const { headers } = response;
    if (headers !== undefined && headers !== null && typeof headers !== 'object') return null;
    return new Draft(response, response.status ?? 200, new HeaderBag(headers));
  }

  get isWeb(): boolean {
    return isWebResponse(this.original);
  }

  finish(): HttpResponse | Response {
    const { original, status, headers, body } = this;
    if (!isWebResponse(original)) {
      // The spread for what else a response may carry, the rest for what is inherited: it may be an instance of a class.
      return { ...original, status, headers: headers.toRecord(), body: body as Body };
    }
    const response = new Response(body as ConstructorParameters<typeof Response>[0], {
      status,
      statusText: original.statusText,
      headers: headers.toHeaders(),
    });
    const { onWriteError } = original as HttpResponse;
    return onWriteError === undefined ? response : Object.assign(response, { onWriteError });
  }
}

/** Bytes of a body, as far as they are known before it is read; 'file' for one that is only looked at when it is sent. */
export function bodySize(body: unknown): number | null | 'file' {
  if (body === null || body === undefined) return 0;
  if (typeof body === 'string') return Buffer.byteLength(body);
  if (body instanceof FileBody) return 'file';
  if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) return body.byteLength;
  return typeof body === 'object' && isBlob(body) ? body.size : null;
}

/** Let go of a body that will not be sent. What its source thinks of that no longer matters. */
export function discard(body: unknown): Promise<void> | undefined {
  if (typeof body !== 'object' || body === null) return undefined;
  const stream = body as { cancel?: () => Promise<void>; destroy?: () => void };
  if (typeof stream.destroy === 'function') stream.destroy();
  else if (typeof stream.cancel === 'function') return stream.cancel().catch(() => undefined);
  return undefined;
}

/** Change the headers of what a handler has returned; what is no response is passed on. */
export function withHeaders(result: Result, change: (headers: HeaderBag, draft: Draft) => void): Result {
  const draft = Draft.of(result);
  if (draft === null) return result;
  change(draft.headers, draft);
  return draft.finish();
}

/** A draft that can carry headers: a 404 where a handler has returned nothing. Null where a channel answers. */
export function draftFor(req: HttpRequest, result: Result): Draft | null {
  if ((result === null || result === undefined) && !hasChannel(req)) return Draft.of({ status: 404 });
  return Draft.of(result);
}
