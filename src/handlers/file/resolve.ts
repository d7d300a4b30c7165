/** Decides what a file is answered with: the whole of it, some of it, or only a status. */
import { randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import { contentTypeOf, type FileBody, type FileOptions } from '../file.js';
import type { RequestInfo } from '../respond.js';
import type { SizedSource } from '../source.js';
import type { HttpResponse } from '../types.js';
import { evaluate, isEntityTag, rangeApplies, type Validators } from './conditions.js';
import { formatDate, parseDate } from './dates.js';
import { disk } from './disk.js';
import { attachment } from './disposition.js';
import { acceptable, ENDINGS, type Encoding } from './encodings.js';
import { Fields } from './fields.js';
import { type OpenFile, openFile } from './open.js';
import { pathBelow } from './path.js';
import { contentRange, parseRange, type Span } from './ranges.js';
import { FileSource, type Piece } from './source.js';

/** Up to here a file is read at once and closed, which costs less than sending it in chunks. */
const AT_ONCE = 128 * 1024;
/** Ms after which a file cannot change any more without its time of change telling: the systems' clocks tick every 10 ms at worst. */
const TICK = 50;
/** The same where that time is in whole seconds: FAT knows even ones only. */
const COARSE_TICK = 2000;

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
  const { file, encoding } = found;
  try {
    return await answer({ file, encoding, path, options, fields, response, request });
  } catch (error) {
    file.close();
    throw error;
  }
}

/** What is known once the file is open. */
interface Found {
  readonly file: OpenFile;
  /** It is in this coding. */
  readonly encoding: Encoding | undefined;
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
    const validators = validate(found);
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

// ------------------------------------------------------------------------------------------------------- which file

interface FoundFile {
  readonly file: OpenFile;
  readonly encoding: Encoding | undefined;
}

const PREFERENCE: readonly Encoding[] = ['br', 'zstd', 'gzip'];

function encodingsFor(options: FileOptions, fields: Fields, { headers }: RequestInfo): Encoding[] {
  const { precompressed = false } = options;
  // A handler that names the coding has chosen the file.
  if (precompressed === false || fields.has('content-encoding')) return [];
  vary(fields);
  return acceptable(headers['accept-encoding'], precompressed === true ? PREFERENCE : precompressed);
}

function vary(fields: Fields): void {
  const given = [fields.value('vary') ?? []].flat();
  const names = given
    .join(',')
    .split(',')
    .map((name) => name.trim().toLowerCase());
  if (!names.includes('accept-encoding') && !names.includes('*'))
    fields.set('vary', [...given, 'accept-encoding'].join(', '));
}

/** The file, or one of its encoded forms that lies beside it: not if that is older, since it is of an older file then. */
async function findFile(
  path: string,
  root: string | undefined,
  encodings: readonly Encoding[],
): Promise<FoundFile | null> {
  const file = await openFile(path, root, disk());
  if (file === null) return null;
  try {
    for (const encoding of encodings) {
      const beside = path + ENDINGS[encoding];
      // To be told that there is none costs an exception.
      if (!(await disk().exists(beside))) continue;
      // One that cannot be read is none: there is something else to send.
      const encoded = await openFile(beside, root, disk()).catch(() => null);
      if (encoded === null) continue;
      // No coding makes nothing of something: one that is empty has not been written yet.
      if (encoded.stat.mtimeMs >= file.stat.mtimeMs && encoded.stat.size > 0) {
        file.close();
        return { file: encoded, encoding };
      }
      encoded.close();
    }
  } catch (error) {
    file.close();
    throw error;
  }
  return { file, encoding: undefined };
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

/**
 * Size and time of change make a strong validator (8.8.1), which If-Range asks for, once that time lies so far back that another
 * change would show. Until then the same tag is weak. Neither inode nor time of status change is in it, so that servers with
 * copies of the same files give the same tags.
 */
function validate({ file, encoding, fields, options }: Found): Validators {
  const { size, mtimeMs } = file.stat;
  const now = Date.now();
  const age = now - mtimeMs;
  const isCoarse = mtimeMs % 1000 === 0;
  const isStrong = age > (isCoarse ? COARSE_TICK : TICK);
  if (options.etag !== false) fields.offer('etag', etagOf(size, mtimeMs, isStrong, encoding, options.etag));
  const own = fields.has('last-modified') ? (fields.get('last-modified') ?? '') : undefined;
  // 8.8.2.1: never later than Date.
  const modified = own === undefined ? Math.floor(Math.min(mtimeMs, now) / 1000) : parseDate(own);
  if (own === undefined && modified !== undefined) fields.set('last-modified', formatDate(modified));
  const etag = fields.get('etag');
  return {
    etag: etag !== undefined && isEntityTag(etag) ? etag : undefined,
    modified,
    settled: age > (isCoarse ? COARSE_TICK : 1000),
  };
}

function etagOf(
  size: number,
  mtimeMs: number,
  isStrong: boolean,
  encoding: Encoding | undefined,
  own: string | true = true,
): string {
  // 8.8.3.3: the same content in another coding is another representation, with a tag of its own.
  const suffix = encoding === undefined ? '' : `-${encoding}`;
  if (own !== true) return `${own.slice(0, -1)}${suffix}"`;
  // Clocks of file systems are finer than milliseconds.
  const tag = `"${size.toString(36)}-${Math.floor(mtimeMs * 1000).toString(36)}${suffix}"`;
  return isStrong ? tag : `W/${tag}`;
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
  const boundary = randomBytes(18).toString('base64url');
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
