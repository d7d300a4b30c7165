/** Uploads: multipart/form-data (RFC 7578), after Ring's wrap-multipart-params. */
import { tmpdir } from 'node:os';
import type { Readable } from 'node:stream';
import { integer, type Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import type { HttpRequest, Returns } from '../handlers/types.js';
import { answerToBody } from './body.js';
import { empty, merged, type ParamRecord } from './params.js';
import { peer } from './peers.js';
import { mediaType, withFields } from './request.js';
import type { Result } from './response.js';
import { aFunction, checkOptions } from './rules.js';
import { sentFrom } from './sent.js';
import { Upload, type UploadSettings } from './upload.js';

/** A file that a client has sent. */
export interface UploadedFile {
  /** Name of the form field. */
  readonly name: string;
  /** The name the client gives it, without folders. Never a path to write to. '' if it gives none. */
  readonly filename: string;
  /** What the client says it is. */
  readonly contentType: string;
  /** Bytes. */
  readonly size: number;
  /** Where it lies until the response is done; undefined with a `sink`. Move it to keep it. */
  readonly path: string | undefined;
  /** What the `sink` made of it. */
  readonly value: unknown;
}

/** A file that is being sent, for a `sink`. */
export interface IncomingFile extends Pick<UploadedFile, 'name' | 'filename' | 'contentType'> {
  /** Its bytes. Fails when the client goes away or a limit is hit. */
  readonly stream: Readable;
}

/** What {@link multipart} adds to a request. */
export interface Multipart {
  readonly files: readonly UploadedFile[];
  /** Fields that are no files. */
  readonly formParams: ParamRecord;
  /** With those that {@link params} has found outside of this. */
  readonly params: ParamRecord;
}

export interface MultipartOptions {
  /** Folder for files until the response is done. Default: the system's for temporary files. */
  folder?: string;
  /** Takes files instead of the folder. Its promise is waited for; what it resolves with is the `value` of the file. */
  sink?: (file: IncomingFile, req: HttpRequest) => unknown;
  /** Fields at most. Default 100. */
  fields?: number;
  /** Bytes of a field. Default 64 KiB. */
  fieldSize?: number;
  /** Files at most. Default 10. */
  files?: number;
  /** Bytes of a file. Default 32 MiB; the server's `maxBody` holds for all of them together. */
  fileSize?: number;
}

const count = integer(0, 65536, 'a whole number from 0 to 65536');
const bytes = integer(0, Number.MAX_SAFE_INTEGER, 'whole bytes, 0 or more');
const RULES: Record<keyof MultipartOptions, Rule> = {
  folder: {
    allowed: 'the path of a folder',
    ok: (v) => typeof v === 'string' && v !== '' && !v.includes('\0'),
  },
  sink: aFunction,
  fields: count,
  fieldSize: bytes,
  files: count,
  fileSize: bytes,
};

/**
 * Reads forms with files, and adds `files`, `formParams` and `params`. Files go to a folder of the request, which is removed
 * when the response is done or the request has failed, or to a `sink`. More than a limit allows is a 413, what is no
 * multipart body a 400; the handler is not called then. @throws OFFLOOP_BAD_OPTION, OFFLOOP_MISSING_PACKAGE.
 */
export function multipart(options: MultipartOptions = {}): Middleware<Multipart> {
  checkOptions('multipart', options, RULES);
  const settings: UploadSettings = {
    Busboy: peer<UploadSettings['Busboy']>('@fastify/busboy', 'multipart'),
    folder: options.folder ?? tmpdir(),
    sink: options.sink,
    limits: {
      fields: options.fields ?? 100,
      fieldSize: options.fieldSize ?? 64 * 1024,
      files: options.files ?? 10,
      fileSize: options.fileSize ?? 32 * 1024 * 1024,
    },
  };

  return (handler) => {
    const receive = async (req: HttpRequest): Promise<Result> => {
      const upload = new Upload(req, settings);
      try {
        await upload.read();
      } catch (error) {
        await upload.remove();
        return answerToBody(error);
      }
      let result: Result;
      try {
        const { files, fields } = upload;
        result = await (handler(withForm(req, files, fields)) as Returns | Promise<Returns>);
      } catch (error) {
        await upload.remove();
        throw error;
      }
      return sentFrom(upload.folder, result, () => upload.remove());
    };
    return (req) => {
      if (mediaType(req.contentType) !== 'multipart/form-data') return handler(withForm(req, [], undefined));
      return receive(req);
    };
  };
}

function withForm(
  req: HttpRequest,
  files: readonly UploadedFile[],
  fields: ParamRecord | undefined,
): HttpRequest & Multipart {
  const before = req as Partial<Multipart>;
  return withFields(req, {
    files,
    formParams: fields ?? before.formParams ?? empty(),
    params: merged(before.params, fields),
  });
}
