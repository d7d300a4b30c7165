/** Decides what a file is answered with: the whole of it, some of it, or only a status. */
import { basename } from 'node:path';
import { contentTypeOf, type FileBody, type FileOptions } from '../file.js';
import type { RequestInfo } from '../respond.js';
import type { SizedSource } from '../source.js';
import type { HttpResponse } from '../types.js';
import { evaluate, rangeApplies, type Validators } from './conditions.js';
import { disk } from './disk.js';
import { attachment } from './disposition.js';
import { Fields } from './fields.js';
import { encodingsFor, type FoundFile, findFile } from './find.js';
import type { OpenFile } from './open.js';
import { pathBelow } from './path.js';
import { contentRange, parseRange, type Span } from './ranges.js';
import { FileSource, type Piece } from './source.js';
import { validate } from './validators.js';

/** Up to here a file is read at once and closed, which costs less than sending it in chunks. */
const AT_ONCE = 128 * 1024;
/** `content`: the body, its length if it is not sent, or none; a text for statuses that say all there is to say. */
export interface FileAnswer {
  readonly status: number;
  readonly fields: Fields;
  readonly content: Uint8Array | SizedSource | number | string | null;
}

/** The handler's part of the response. */
export interface FileResponse {
  readonly status: number;
  readonly headers: HttpResponse['headers'] | null;
}

/**
 * Look up the file and decide. A source in the answer holds the open file: whoever gets it closes it. Rejects when the file is
 * there but cannot be read.
 */
export async function resolveFile(
  body: FileBody,
  response: FileResponse,
  request: RequestInfo,
): Promise<FileAnswer> {
  const { options, root } = body;
  const path = root === undefined ? body.path : pathBelow(root, body.path, options.dotfiles ?? 'ignore');
  if (typeof path === 'number') return refusal(path, response);
  const fields = new Fields();
  fields.addAll(options.headers);
  fields.addAll(response.headers);
  const encodings = encodingsFor(options, fields, request);
  const found = await findFile(path, root, encodings);
  if (found === null) return refusal(404, response);
  try {
    return await answer({ ...found, path, options, fields, response, request });
  } catch (error) {
    found.file.close();
    throw error;
  }
}

/** What is known once the file is open. */
interface Found extends FoundFile {
  /** Of the file as it was asked for, without the ending of a coding. */
  readonly path: string;
  readonly options: Readonly<FileOptions>;
  readonly fields: Fields;
  readonly response: FileResponse;
  readonly request: RequestInfo;
}

async function answer(found: Found): Promise<FileAnswer> {
  const { file, fields, options, request, response } = found;
  const { size } = file.stat;
  const { status: wanted } = response;
  describe(found);
  // 13.2.1 and 14.2: what else a handler has to say with a file is said whatever the conditions are.
  if (wanted === 200 && (request.method === 'GET' || request.method === 'HEAD')) {
    const validators = validate(found, fields, options.etag);
    const status = evaluate(request.headers, validators);
    if (status === 304) {
      file.close();
      fields.drop(NOT_IN_304);
      if (validators.etag !== undefined) fields.drop(['last-modified']);
      return { status, fields, content: null };
    }
    if (status === 412) {
      file.close();
      return refusal(412, response);
    }
    fields.drop(['content-range']);
    if (options.acceptRanges !== false) {
      fields.offer('accept-ranges', 'bytes');
      const spans = spansOf(request, validators, size);
      if (spans?.length === 0) {
        file.close();
        return refusal(416, response, ['content-range', `bytes */${size}`]);
      }
      if (spans !== null) return partial(file, fields, spans);
    }
  }
  if (request.isHead || wanted === 204 || wanted === 205 || wanted === 304) {
    file.close();
    return { status: wanted, fields, content: size };
  }
  return send(wanted, fields, new FileSource(file, [{ from: 0, to: size }]));
}

async function send(status: number, fields: Fields, source: FileSource): Promise<FileAnswer> {
  const content = source.length <= AT_ONCE ? await source.all(disk()) : source;
  return { status, fields, content };
}

// -------------------------------------------------------------------------------------------------------- its headers

/** Fields that say what is in a body, and how long it may be kept: they are not for an answer in place of the file. */
const OF_THE_FILE = [
  'accept-ranges',
  'cache-control',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-length',
  'content-location',
  'content-range',
  'content-type',
  'etag',
  'expires',
  'last-modified',
];

/** 15.4.5: what the client has already. */
const NOT_IN_304 = [
  'accept-ranges',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-length',
  'content-range',
  'content-type',
];

function describe({ fields, options, encoding, path }: Found): void {
  // The true one is sent.
  fields.drop(['content-length']);
  fields.offer('content-type', options.contentType ?? contentTypeOf(path));
  if (encoding !== undefined) fields.set('content-encoding', encoding);
  const { maxAge, immutable, download = false } = options;
  if (maxAge !== undefined) {
    const seconds = Math.floor(maxAge / 1000);
    fields.offer('cache-control', `public, max-age=${seconds}${immutable === true ? ', immutable' : ''}`);
  }
  if (download !== false)
    fields.offer('content-disposition', attachment(download === true ? basename(path) : download));
}

// -------------------------------------------------------------------------------------------------------------- ranges

function spansOf({ method, headers }: RequestInfo, validators: Validators, size: number): Span[] | null {
  const { range } = headers;
  // 14.2: for GET only.
  if (range === undefined || method !== 'GET' || !rangeApplies(headers, validators)) return null;
  return parseRange(range, size);
}

function partial(file: OpenFile, fields: Fields, spans: readonly Span[]): Promise<FileAnswer> {
  const { size } = file.stat;
  const [only] = spans;
  if (spans.length === 1 && only !== undefined) {
    fields.set('content-range', contentRange(only, size));
    return send(206, fields, new FileSource(file, [only]));
  }
  // 14.6. Nobody can know the boundary beforehand, so nobody can have put it into the file.
  const boundary = crypto.randomUUID();
  const type = fields.get('content-type');
  const about = type === undefined ? '' : `content-type: ${type}\r\n`;
  const pieces: Piece[] = spans.flatMap((span, i) => [
    Buffer.from(
      `${i === 0 ? '' : '\r\n'}--${boundary}\r\n${about}content-range: ${contentRange(span, size)}\r\n\r\n`,
    ),
    span,
  ]);
  pieces.push(Buffer.from(`\r\n--${boundary}--\r\n`));
  fields.set('content-type', `multipart/byteranges; boundary=${boundary}`);
  return send(206, fields, new FileSource(file, pieces));
}

// ------------------------------------------------------------------------------------------------------------- refusals

const TEXTS = {
  403: 'Forbidden',
  404: 'Not Found',
  412: 'Precondition Failed',
  416: 'Range Not Satisfiable',
} as const;

/** An answer in place of the file. What the handler has set for every response stays. */
function refusal(
  status: keyof typeof TEXTS,
  { headers }: FileResponse,
  ...more: (readonly [string, string])[]
): FileAnswer {
  const fields = new Fields();
  fields.addAll(headers);
  fields.drop(OF_THE_FILE);
  fields.set('content-type', 'text/plain; charset=utf-8');
  for (const [name, value] of more) fields.set(name, value);
  return { status, fields, content: TEXTS[status] };
}
