/** Compression of answers, on the thread of the handler. */
import { Readable, type Transform } from 'node:stream';
import { isMainThread } from 'node:worker_threads';
import { integer, plainObject, type Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { acceptable, type Encoding } from '../handlers/file/encodings.js';
import { FileBody } from '../handlers/file.js';
import { asBytes, isBlob } from '../handlers/respond.js';
import {
  asChunk,
  type Chunk,
  type Result as Next,
  type Source,
  sourceOf,
  wellFormed,
} from '../handlers/source.js';
import type { HttpRequest, Returns } from '../handlers/types.js';
import { CODECS, type Flushable, HAS_ZSTD, LEVELS, MAX_LEVELS, OFFERED } from './codecs.js';
import { isHead, mediaType } from './request.js';
import { after, Draft, type Result } from './response.js';
import { aFunction, checkOptions } from './rules.js';

export interface CompressOptions {
  /** What is offered, the best first: 'zstd', 'br', 'gzip'. Default: all, zstd where this Node has it. */
  encodings?: readonly Encoding[];
  /** Bytes below which a body is not worth it. Default 1024. */
  minSize?: number;
  /** Whether to compress what has this media type (lower case, without parameters). Default: text, and what is like text. */
  filter?: (mediaType: string) => boolean;
  /** How hard to try: gzip 0 to 9 (default 6), br 0 to 11 (4), zstd 1 to 19 (3). */
  level?: Partial<Record<Encoding, number>>;
}

/** Bytes up to which the I/O thread compresses at once, for inline handlers; more goes to Node's own threads. */
const SYNC_INLINE = 4096;

const isEncoding = (v: unknown): v is Encoding => typeof v === 'string' && Object.hasOwn(CODECS, v);
const RULES: Record<keyof CompressOptions, Rule> = {
  encodings: {
    allowed: `a non-empty array of ${HAS_ZSTD ? "'zstd', " : ''}'br', 'gzip'${HAS_ZSTD ? '' : "; this Node has no 'zstd'"}`,
    ok: (v) =>
      Array.isArray(v) && v.length > 0 && v.every((one) => isEncoding(one) && (HAS_ZSTD || one !== 'zstd')),
  },
  minSize: integer(0, 2 ** 31 - 1, 'whole bytes from 0 to 2^31 - 1'),
  filter: aFunction,
  level: {
    allowed: 'an object with some of gzip (0 to 9), br (0 to 11), zstd (1 to 19), each a whole number',
    ok: (v) =>
      plainObject(v) &&
      Object.entries(v).every(
        ([name, level]) =>
          level === undefined ||
          (isEncoding(name) &&
            Number.isInteger(level) &&
            (level as number) >= (name === 'zstd' ? 1 : 0) &&
            (level as number) <= MAX_LEVELS[name]),
      ),
  },
};

// A list of our own: the package compressible would load the whole of mime-db into every worker for this one question.
const LIKE_TEXT = new RegExp(
  '^(?:text/.+|.+\\+(?:json|xml|text|yaml)' +
    '|application/(?:json5?|json-seq|(?:x-)?ndjson|(?:x-)?javascript|ecmascript|xml(?:-dtd)?|(?:x-)?yaml|toml|graphql|sql|rtf|wasm|(?:x-)?sh|postscript|(?:x-)?protobuf|x-www-form-urlencoded|vnd\\.ms-fontobject)' +
    '|font/(?:collection|otf|ttf)|image/(?:bmp|x-ms-bmp|x-icon|vnd\\.microsoft\\.icon))$',
);

interface Settings {
  readonly offered: readonly Encoding[];
  readonly minSize: number;
  readonly filter: (mediaType: string) => boolean;
  readonly levels: Record<Encoding, number>;
}

/**
 * Compresses answers for clients that accept it. Streams are compressed as they come, and whatever has been written is sent
 * on as soon as no more is there. Not touched: what is encoded already, has no Content-Type, or says
 * `Cache-Control: no-transform`; 204, 206 and the like; files, which have encoded siblings (see `file`); channels.
 * @throws OFFLOOP_BAD_OPTION.
 */
export function compress(options: CompressOptions = {}): Middleware {
  checkOptions('compress', options, RULES);
  const settings: Settings = {
    offered: options.encodings ?? OFFERED,
    minSize: options.minSize ?? 1024,
    filter: options.filter ?? ((type) => LIKE_TEXT.test(type)),
    levels: { ...LEVELS, ...options.level },
  };
  return (handler) => (req) =>
    after(handler(req) as Returns | Promise<Returns>, (result) => compressed(req, result, settings));
}

function compressed(req: HttpRequest, result: Result, settings: Settings): Result | Promise<Result> {
  const draft = Draft.of(result);
  if (draft === null) return result;
  const { status, headers, body } = draft;
  if (headers.has('content-encoding') || /no-transform/i.test(headers.get('cache-control') ?? ''))
    return result;
  const encoding = acceptable(req.headers['accept-encoding'], settings.offered)[0];
  if (status === 304) {
    // It stands for the 200 that this client has: the same fields, or caches would take it for another's.
    headers.vary('Accept-Encoding');
    if (encoding !== undefined) weaken(draft);
    return draft.finish();
  }
  if (status === 204 || status === 205 || status === 206 || headers.has('content-range')) return result;
  if (body === null || body === undefined || body instanceof FileBody) return result;
  const type = mediaType(headers.get('content-type'));
  if (type === '' || !settings.filter(type)) return result;

  const bytes = bytesOf(body);
  const size = bytes?.byteLength ?? sizeOf(draft);
  if (size !== undefined && size < settings.minSize) return result;
  headers.vary('Accept-Encoding');
  if (encoding === undefined) return draft.finish();
  const job: Job = { draft, encoding, level: settings.levels[encoding], minSize: settings.minSize };
  if (isHead(req)) {
    // The same head as for GET, but the length, which only the work would tell.
    if (bytes !== undefined || isBlob(body as object)) draft.body = [];
    return encoded(job);
  }
  if (bytes !== undefined) return compressBytes(job, bytes);
  const stream = isBlob(body as object) ? (body as Blob).stream() : body;
  const source = typeof stream === 'object' ? sourceOf(stream as object) : undefined;
  return source === undefined ? result : compressSource(job, source);
}

interface Job {
  readonly draft: Draft;
  readonly encoding: Encoding;
  readonly level: number;
  readonly minSize: number;
}

function bytesOf(body: unknown): Uint8Array | undefined {
  if (typeof body === 'string') return Buffer.from(wellFormed(body));
  return typeof body === 'object' && body !== null ? asBytes(body) : undefined;
}

/** Bytes of what is read later, if they are known. */
function sizeOf({ body, headers }: Draft): number | undefined {
  if (isBlob(body as object)) return (body as Blob).size;
  const length = headers.get('content-length');
  return length === undefined ? undefined : Number(length);
}

/** An entity tag stands for these very bytes, and they are others now (RFC 9110, 8.8.3.3). */
function weaken({ headers }: Draft): void {
  const etag = headers.get('etag');
  if (etag?.startsWith('"')) headers.set('ETag', `W/${etag}`);
}

function encoded({ draft, encoding }: Job): Result {
  const { headers } = draft;
  headers.set('Content-Encoding', encoding);
  headers.delete('content-length');
  headers.delete('accept-ranges');
  weaken(draft);
  return draft.finish();
}

function compressBytes(job: Job, bytes: Uint8Array): Result | Promise<Result> {
  const codec = CODECS[job.encoding];
  const take = (result: Buffer): Result => {
    if (result.byteLength >= bytes.byteLength) return job.draft.finish();
    job.draft.body = result;
    return encoded(job);
  };
  // A worker is there to compute, and the pool bounds how many do. The I/O thread is not.
  if (!isMainThread || bytes.byteLength <= SYNC_INLINE) return take(codec.sync(bytes, job.level));
  return new Promise((resolve, reject) => {
    codec.later(bytes, job.level, (error, result) => {
      if (error === null) resolve(take(result));
      else reject(error);
    });
  });
}

async function compressSource(job: Job, source: Source): Promise<Result> {
  const { draft, minSize } = job;
  const ask = async (): Promise<Next> => source.next();
  // Whether it is worth it shows with the second chunk; but nobody waits for one that is not there yet.
  const chunks: Buffer[] = [];
  let size = 0;
  let next = ask();
  try {
    while (size < minSize && (await settlesNow(next))) {
      const { done, value } = await next;
      if (done === true) {
        draft.body = Buffer.concat(chunks);
        return draft.finish();
      }
      const chunk = Buffer.from(asChunk(value) as Uint8Array);
      size += chunk.byteLength;
      chunks.push(chunk);
      next = ask();
    }
  } catch (error) {
    source.letGo(false, error);
    throw error;
  }
  const { flushKind, stream } = CODECS[job.encoding];
  const zip = stream(job.level);
  // Who reads it gets the error; until somebody does, it is nobody's.
  zip.on('error', () => undefined);
  // Also when nobody reads it to its end.
  zip.once('close', () => source.letGo(zip.readableEnded));
  void pump(chunks, next, ask, zip, flushKind);
  draft.body = draft.isWeb ? Readable.toWeb(zip) : zip;
  return encoded(job);
}

/** Write a source into `zip`; whenever no more is there yet, what has been written is sent on. */
async function pump(
  first: readonly Chunk[],
  second: Promise<Next>,
  ask: () => Promise<Next>,
  zip: Transform & Flushable,
  flushKind: number,
): Promise<void> {
  try {
    for (const chunk of first) await write(zip, chunk);
    let next = second;
    let flushed = first.length === 0;
    for (;;) {
      if (!flushed && !(await settlesNow(next))) {
        if (zip.destroyed) return;
        zip.flush(flushKind);
        flushed = true;
      }
      const { done, value } = await next;
      if (zip.destroyed) return;
      if (done === true) break;
      await write(zip, asChunk(value));
      flushed = false;
      next = ask();
    }
    zip.end();
  } catch (error) {
    zip.destroy(error as Error);
  }
}

/** Resolves when there is room for more, or nobody is left to read it. */
function write(zip: Transform, chunk: Chunk): Promise<void> | undefined {
  if (zip.write(typeof chunk === 'string' ? wellFormed(chunk) : chunk)) return undefined;
  return new Promise((resolve) => {
    const go = (): void => {
      zip.off('drain', go);
      zip.off('close', go);
      resolve();
    };
    zip.on('drain', go);
    zip.on('close', go);
  });
}

/** Whether a promise settles by itself before the loop of this thread turns: what it stands for is there already. */
function settlesNow(promise: Promise<unknown>): Promise<boolean> {
  const settled = (): boolean => true;
  return Promise.race([
    promise.then(settled, settled),
    new Promise<false>((resolve) => setImmediate(resolve, false)),
  ]);
}
