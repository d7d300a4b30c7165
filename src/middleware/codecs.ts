/** Ways to compress that this Node has. */
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';
import type { Encoding } from '../handlers/file/encodings.js';

/** The part of zlib that Node has from 22.15 and 23.8 on. */
interface Zstd {
  createZstdCompress(options: object): Transform & Flushable;
  zstdCompressSync(data: Uint8Array, options: object): Buffer;
  zstdCompress(data: Uint8Array, options: object, done: Done): void;
}
type Done = (error: Error | null, result: Buffer) => void;
/** A transform of zlib that can be told to let go of what it has. */
export interface Flushable {
  flush(kind: number, done?: () => void): void;
}

/** One way to compress. */
export interface Codec {
  readonly flushKind: number;
  stream(level: number): Transform & Flushable;
  sync(data: Uint8Array, level: number): Buffer;
  later(data: Uint8Array, level: number, done: Done): void;
}

const { constants } = zlib;
const ZSTD = zlib as unknown as Partial<Zstd>;
export const HAS_ZSTD = typeof ZSTD.zstdCompressSync === 'function';
// ZSTD_c_compressionLevel and ZSTD_e_flush; @types/node of the oldest Node does not know them.
const ZSTD_LEVEL = 100;
const ZSTD_FLUSH = 1;

const brotli = (level: number, size = 0): zlib.BrotliOptions => ({
  params: { [constants.BROTLI_PARAM_QUALITY]: level, [constants.BROTLI_PARAM_SIZE_HINT]: size },
});
const zstd = (level: number): object => ({ params: { [ZSTD_LEVEL]: level } });

export const CODECS: Record<Encoding, Codec> = {
  gzip: {
    flushKind: constants.Z_SYNC_FLUSH,
    stream: (level) => zlib.createGzip({ level }),
    sync: (data, level) => zlib.gzipSync(data, { level }),
    later: (data, level, done) => zlib.gzip(data, { level }, done),
  },
  br: {
    flushKind: constants.BROTLI_OPERATION_FLUSH,
    stream: (level) => zlib.createBrotliCompress(brotli(level)),
    sync: (data, level) => zlib.brotliCompressSync(data, brotli(level, data.byteLength)),
    later: (data, level, done) => zlib.brotliCompress(data, brotli(level, data.byteLength), done),
  },
  zstd: {
    flushKind: ZSTD_FLUSH,
    stream: (level) => (ZSTD as Zstd).createZstdCompress(zstd(level)),
    sync: (data, level) => (ZSTD as Zstd).zstdCompressSync(data, zstd(level)),
    later: (data, level, done) => (ZSTD as Zstd).zstdCompress(data, zstd(level), done),
  },
};
export const LEVELS: Record<Encoding, number> = { gzip: 6, br: 4, zstd: 3 };
export const MAX_LEVELS: Record<Encoding, number> = { gzip: 9, br: 11, zstd: 19 };
/** The one that is fastest for what it saves comes first. */
export const OFFERED: readonly Encoding[] = HAS_ZSTD ? ['zstd', 'br', 'gzip'] : ['br', 'gzip'];
