/**
 * The one table of what a handler may return, and how it goes to the wire. Runs on the thread of the handler, so that
 * encoding costs the I/O thread nothing; what leaves here has been checked and needs no second look.
 */
import { cloneOf, payloadSize } from '../bytes.js';
import { OffloopTypeError } from '../errors.js';
import { type Answer, FLAG_CLOSE, FLAG_NOTHING, FLAG_SERVER, type Payload } from '../protocol.js';
import { type Parts, TEXT_TYPE, takeParts } from './fetch/response.js';
import { type FileAnswer, resolveFile } from './file/resolve.js';
import { FileBody } from './file.js';
import type { Unread } from './gather.js';
import { SizedReader, type SizedSource, type Source, show, sourceOf, wellFormed } from './source.js';
import type { HeaderValue, HttpResponse } from './types.js';

/** What an answer depends on of the request it is for. A RingRequest is one: nothing is parsed until it is read. */
export interface RequestInfo {
  readonly isHead: boolean;
  /** Upper case. */
  readonly method: string;
  /** Lower-case names, as {@link HttpRequest.headers}. */
  readonly headers: Readonly<Record<string, string>>;
}

/** Bytes of a Blob that are read at once. */
const SLICE = 64 * 1024;

const NOTHING: Answer = { status: 404, head: '', payload: 0, flags: FLAG_NOTHING };

/** An answer, or one whose body is still to be read. */
export type Encoded = Answer | Unread;

/**
 * Encode what a handler returned. Nothing of a body is read, and what will not be read is let go; a promise for what has to
 * be opened first. Throws or rejects with OFFLOOP_BAD_RESPONSE, or with what opening it came to: the caller answers 500.
 */
export function encode(value: unknown, request: RequestInfo): Encoded | Promise<Encoded> {
  try {
    return encodeChecked(value, request);
  } catch (error) {
    letGo(value, error);
    throw error;
  }
}

/** Tell the body of a response that it will not be sent. Never throws. */
export function letGo(response: unknown, reason: unknown): void {
  try {
    const { body } = response as HttpResponse;
    if (typeof body === 'object' && body !== null) sourceOf(body)?.letGo(false, reason);
  } catch {}
}

function encodeChecked(value: unknown, request: RequestInfo): Encoded | Promise<Encoded> {
  if (value === null || value === undefined) return NOTHING;
  if (typeof value !== 'object') {
    throw bad(
      `a handler returned a ${typeof value}; return { status, headers, body }, a Response, or nothing`,
    );
  }
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null && isWebResponse(value))
    return encodeWebResponse(value, request);
  if (Array.isArray(value)) throw bad('a handler returned an array; return { body: array } or json(array)');
  const response = value as HttpResponse;
  const status = response.status ?? 200;
  if (!isStatus(status)) throw bad(`status ${show(status)} is not a whole number from 200 to 599`);
  if (response.body instanceof FileBody) return withFile(status, response, response.body, request);
  const head = new Head();
  if (response.headers !== undefined && response.headers !== null) head.addAll(response.headers);
  return withBody(status, head, response.body, request);
}

/** The head of an answer whose body comes later, in chunks or in frames. Throws OFFLOOP_BAD_RESPONSE. */
export function encodeHead(
  status: number,
  headers: HttpResponse['headers'],
): { head: string; flags: number } {
  if (status !== 101 && !isStatus(status))
    throw bad(`status ${show(status)} is not a whole number from 200 to 599`);
  const head = new Head();
  if (headers !== undefined && headers !== null) head.addAll(headers);
  return { head: head.text, flags: head.flags };
}

/** Same, for a body that is known to be text: answers offloop gives in its own name. */
export function encodeText(status: number, text: string, isHead: boolean): Answer {
  const head = new Head();
  head.add('content-type', 'text/plain; charset=utf-8');
  return finish(status, head, text, isHead);
}

function bad(message: string): OffloopTypeError {
  return new OffloopTypeError('OFFLOOP_BAD_RESPONSE', message);
}

// 1xx cannot be final answers, so that a handler can never leave its client waiting for more.
function isStatus(status: unknown): status is number {
  return typeof status === 'number' && status >= 200 && status <= 599 && Number.isInteger(status);
}

// ---------------------------------------------------------------------------------------------------------- headers

// RFC 9110, 5.6.2 and 5.5. Nothing that could end the line passes, so a response can never be split.
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const NOT_IN_VALUE = /[^\t\x20-\x7e\x80-\uffff]/;

/** How a header name is treated: written, ours to decide, or with a side effect. */
type NameKind = 'plain' | 'dropped' | 'length' | 'connection' | 'server' | 'type';
const NAME_KINDS: Record<string, NameKind> = {
  'content-length': 'length',
  'content-type': 'type',
  'transfer-encoding': 'dropped',
  'keep-alive': 'dropped',
  // The engine writes Date, once a second and whatever we do; a second one would be wrong (RFC 9110, 6.6.1).
  date: 'dropped',
  connection: 'connection',
  server: 'server',
};

/** A checked header name, with the lines it has made lately: handlers set the same few again and again. */
interface Name {
  readonly kind: NameKind;
  readonly lines: Map<string, string>;
}
const names = new Map<string, Name>();
const MAX_NAMES = 1024;
const MAX_LINES = 64;
const MAX_VALUE = 64;

function checkedName(name: string): Name {
  const known = names.get(name);
  if (known !== undefined) return known;
  if (!TOKEN.test(name)) throw bad(`header name ${show(name)} is not a token`);
  const checked: Name = { kind: NAME_KINDS[name.toLowerCase()] ?? 'plain', lines: new Map() };
  if (names.size < MAX_NAMES) names.set(name, checked);
  return checked;
}

function checkedLine(name: string, { lines }: Name, value: string): string {
  const known = lines.get(value);
  if (known !== undefined) return known;
  if (NOT_IN_VALUE.test(value))
    throw bad(`header ${name} has a control character in its value ${show(value)}`);
  const line = `${name}: ${value}`;
  if (value.length <= MAX_VALUE && lines.size < MAX_LINES) lines.set(value, line);
  return line;
}

/** The header lines of one response, in the making. */
class Head {
  text = '';
  flags = 0;
  /** Content-Length as the handler gave it; used only where the body cannot be measured. */
  length: number | undefined;
  hasContentType = false;

  addAll(headers: object): void {
    if (typeof headers !== 'object') throw bad(`headers are ${show(headers)}, not an object`);
    if (Symbol.iterator in headers) {
      // A Headers or a Map: both iterate over [name, value], Headers with one entry for each Set-Cookie.
      for (const [name, value] of headers as Iterable<[string, HeaderValue]>) this.add(name, value);
      return;
    }
    for (const name in headers) this.add(name, (headers as Record<string, HeaderValue>)[name]);
  }

  add(name: string, value: HeaderValue): void {
    if (value === null || value === undefined) return;
    if (typeof value === 'string') this.line(name, value);
    else if (typeof value === 'number') this.line(name, String(value));
    else if (Array.isArray(value)) for (const one of value) this.add(name, one);
    else
      throw bad(`header ${name} is ${show(value)}; a value is a string, a number, an array of them, or null`);
  }

  private line(name: string, value: string): void {
    const checked = checkedName(name);
    const line = checkedLine(name, checked, value);
    switch (checked.kind) {
      case 'dropped':
        return;
      case 'length':
        if (/^\d{1,15}$/.test(value)) this.length = Number(value);
        return;
      case 'connection':
        if (value.split(',').some((token) => token.trim().toLowerCase() === 'close'))
          this.flags |= FLAG_CLOSE;
        return;
      case 'server':
        this.flags |= FLAG_SERVER;
        break;
      case 'type':
        this.hasContentType = true;
        break;
      default:
    }
    this.text = this.text === '' ? line : `${this.text}\r\n${line}`;
  }
}

// ------------------------------------------------------------------------------------------------------------ bodies

function withBody(
  status: number,
  head: Head,
  body: unknown,
  request: RequestInfo,
): Encoded | Promise<Encoded> {
  const { isHead } = request;
  if (typeof body === 'string') return finish(status, head, body, isHead);
  if (body === null || body === undefined) return finish(status, head, 0, isHead);
  if (typeof body !== 'object') {
    throw bad(
      `body is a ${typeof body}; a body is a string, bytes, a file, a stream or an iterable. For JSON use json(value)`,
    );
  }
  const bytes = asBytes(body);
  if (bytes !== undefined) return finish(status, head, bytes, isHead);
  if (isBlob(body)) {
    if (!head.hasContentType && body.type !== '') head.add('content-type', body.type);
    return withSource(status, head, { length: body.size, chunks: () => slicesOf(body) }, request);
  }
  const source = sourceOf(body);
  if (source !== undefined) return withStream(status, head, source, request);
  throw bad(
    `body is ${Object.prototype.toString.call(body)}; a body is a string, bytes, a file, a stream or an iterable. For JSON use json(value)`,
  );
}

function finish(
  status: number,
  head: Head,
  body: string | Uint8Array | number | null,
  isHead: boolean,
): Answer {
  return { status, head: head.text, payload: payloadFor(status, head, body, isHead), flags: head.flags };
}

function payloadFor(
  status: number,
  head: Head,
  body: string | Uint8Array | number | null,
  isHead: boolean,
): Payload {
  // RFC 9110, 8.6 and 15: no content and no length for 204 and 304; 205 says it is empty.
  if (status === 204 || status === 304) return null;
  if (status === 205) return 0;
  if (isHead) {
    // A handler that answers HEAD by itself may know the length without having the bytes. A body that was not read
    // has no length.
    if (body === 0) return head.length ?? 0;
    return payloadSize(body);
  }
  if (body === '' || body === null) return 0;
  // A lone surrogate has no UTF-8; the engine would send bytes that are none.
  if (typeof body === 'string') return wellFormed(body);
  return body;
}

/** V8 keeps views of at most so many bytes in its heap; to ask one for its buffer moves it out, for six times the price of a copy. */
const IN_HEAP = 64;

/** Bytes in a buffer of their own. A view on part of a larger buffer would drag the whole of it across threads. */
export function asBytes(body: object): Uint8Array | undefined {
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  if (!ArrayBuffer.isView(body)) return undefined;
  if (body instanceof Uint8Array && body.byteLength <= IN_HEAP) return new Uint8Array(body);
  const { buffer, byteOffset, byteLength } = body;
  if (buffer instanceof SharedArrayBuffer) return cloneOf(new Uint8Array(buffer, byteOffset, byteLength));
  if (byteLength === 0) return new Uint8Array(0);
  if (byteLength === buffer.byteLength && body instanceof Uint8Array) return body;
  return new Uint8Array(buffer.slice(byteOffset, byteOffset + byteLength));
}

/** The same, as a copy: whoever made them may use their memory again. */
export function copyOfBytes(body: object): Uint8Array<ArrayBuffer> | undefined {
  if (body instanceof Uint8Array) return new Uint8Array(body);
  if (body instanceof ArrayBuffer) return new Uint8Array(body.slice());
  if (!ArrayBuffer.isView(body)) return undefined;
  return new Uint8Array(new Uint8Array(body.buffer, body.byteOffset, body.byteLength));
}

/** Statuses that have no content: RFC 9110, 15.3.5, 15.3.6 and 15.4.5. */
function hasNoContent(status: number): boolean {
  return status === 204 || status === 205 || status === 304;
}

/** A body that has to be read, of the length the handler has promised, if it has. */
function withStream(status: number, head: Head, source: Source, { isHead }: RequestInfo): Encoded {
  const { text, flags, length = null } = head;
  if (isHead || hasNoContent(status)) {
    source.letGo(false);
    return finish(status, head, length, isHead);
  }
  return { status, head: text, flags, length, source };
}

/** A body of known length. */
function withSource(status: number, head: Head, source: SizedSource, { isHead }: RequestInfo): Encoded {
  const { text, flags } = head;
  const { length } = source;
  const reader = new SizedReader(source);
  if (isHead || hasNoContent(status) || length === 0) {
    reader.letGo(false);
    return finish(status, head, length, isHead);
  }
  return { status, head: text, flags, length, source: reader };
}

/** A file decides itself what is sent of it, and under which status and headers. */
async function withFile(
  given: number,
  { headers }: HttpResponse,
  body: FileBody,
  request: RequestInfo,
): Promise<Encoded> {
  const { status, fields, content } = await resolveFile(body, { status: given, headers }, request);
  const head = new Head();
  try {
    head.addAll(fields);
  } catch (error) {
    if (isSource(content)) content.close?.();
    throw error;
  }
  if (isSource(content)) return withSource(status, head, content, request);
  return { ...finish(status, head, content, request.isHead), owned: true };
}

const isSource = (content: FileAnswer['content']): content is SizedSource =>
  typeof content === 'object' && content !== null && 'chunks' in content;

/** Its own stream gives all that is in memory at once. */
async function* slicesOf(blob: Blob): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < blob.size; at += SLICE)
    yield new Uint8Array(await blob.slice(at, at + SLICE).arrayBuffer());
}

export function isBlob(body: object): body is Blob {
  const tag = Object.prototype.toString.call(body);
  return (tag === '[object Blob]' || tag === '[object File]') && typeof (body as Blob).stream === 'function';
}

// ------------------------------------------------------------------------------------------------------ web Response

// Not instanceof: naming the global would load Node's whole fetch into every worker, and a Response of another copy
// of undici is as good.
export function isWebResponse(value: object): value is Response {
  return (
    Object.prototype.toString.call(value) === '[object Response]' && 'headers' in value && 'body' in value
  );
}

function encodeWebResponse(response: Response, request: RequestInfo): Encoded | Promise<Encoded> {
  const parts = takeParts(response);
  if (parts !== undefined) return encodeParts(parts, request);
  if (!isStatus(response.status)) throw bad(`a Response with status ${response.status} cannot be sent`);
  if (response.bodyUsed) throw bad('the body of the returned Response has been read already');
  const head = new Head();
  head.addAll(response.headers);
  const body = response.body;
  if (body === null) return finish(response.status, head, 0, request.isHead);
  return withStream(response.status, head, sourceOf(body) as Source, request);
}

function encodeParts({ status, headers, body }: Parts, request: RequestInfo): Encoded | Promise<Encoded> {
  const head = new Head();
  if (headers !== null) head.addAll(headers);
  else if (typeof body === 'string') head.add('content-type', TEXT_TYPE);
  return withBody(status, head, body, request);
}
