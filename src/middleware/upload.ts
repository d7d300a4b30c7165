/** One multipart body on its way in. */
import { createWriteStream, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { BadRequestError } from '../handlers/request.js';
import type { HttpRequest } from '../handlers/types.js';
import { tooLarge } from './body.js';
import type { IncomingFile, UploadedFile } from './multipart.js';
import { addParam, empty } from './params.js';

interface Limits {
  readonly fields: number;
  readonly fieldSize: number;
  readonly files: number;
  readonly fileSize: number;
}

/** The part of @fastify/busboy that is used. */
type BusboyClass = new (options: Record<string, unknown>) => Writable;
type BusboyFile = Readable & { readonly bytesRead: number };

export interface UploadSettings {
  readonly Busboy: BusboyClass;
  readonly folder: string;
  readonly sink: ((file: IncomingFile, req: HttpRequest) => unknown) | undefined;
  readonly limits: Limits;
}

/** Characters of the name of a field, which the package does not limit. */
const NAME_SIZE = 256;
/** Header lines of a part. */
const PART_HEADERS = 32;

/** Folders that are in use, for the end of this thread. */
const inUse = new Set<string>();
process.once('exit', () => {
  for (const folder of inUse) {
    try {
      rmSync(folder, { recursive: true, force: true });
    } catch {}
  }
});

export class Upload {
  /** In the order in which they were sent. */
  files: readonly UploadedFile[] = [];
  readonly fields = empty();
  /** Made for the first file. */
  folder: string | undefined;

  private readonly jobs: Promise<UploadedFile | undefined>[] = [];
  private making: Promise<string> | undefined;
  /** Rejects with the first thing that goes wrong. */
  private readonly failed: Promise<never>;
  private fail!: (error: unknown) => void;
  private busboy: Writable | undefined;
  /** Cut the files that are on their way. */
  private readonly stops = new Set<() => void>();

  constructor(
    private readonly req: HttpRequest,
    private readonly settings: UploadSettings,
  ) {
    this.failed = new Promise<never>((_, reject) => {
      this.fail = reject;
    });
    this.failed.catch(() => undefined);
  }

  /** Resolves when all of it is there. Rejects with a BodyProblem, a BadRequestError, or what the sink throws. */
  async read(): Promise<void> {
    const { body } = this.req;
    if (body === null) throw malformed();
    const reader = body.getReader();
    try {
      const busboy = this.start();
      this.busboy = busboy;
      const finished = new Promise<void>((resolve) => busboy.once('finish', resolve));
      for (;;) {
        const { done, value } = await this.or(reader.read());
        if (done) break;
        if (!busboy.write(value)) await this.or(new Promise((resolve) => busboy.once('drain', resolve)));
      }
      busboy.end();
      await this.or(finished);
      const files = await this.or(Promise.all(this.jobs));
      this.files = files.filter((file) => file !== undefined);
    } catch (error) {
      // The rest of the body is not wanted, and files on their way fail too.
      reader.cancel(error).catch(() => undefined);
      this.fail(error);
      this.busboy?.destroy();
      for (const stop of this.stops) stop();
      await Promise.allSettled(this.jobs);
      throw error;
    }
  }

  /** Remove its files. Never rejects: who waits for the answer has nothing to do with it. */
  async remove(): Promise<void> {
    const folder = await this.making?.catch(() => undefined);
    if (folder === undefined) return;
    await rm(folder, { recursive: true, force: true, maxRetries: 2 }).catch(() => undefined);
    inUse.delete(folder);
  }

  private or<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.failed]);
  }

  private start(): Writable {
    const { Busboy, limits } = this.settings;
    let busboy: Writable;
    try {
      busboy = new Busboy({
        headers: { 'content-type': this.req.contentType },
        limits: {
          ...limits,
          // One more than may be, so that the limits above are the ones that are hit.
          parts: limits.fields + limits.files + 1,
          headerPairs: PART_HEADERS,
        },
      });
    } catch (cause) {
      throw malformed(cause);
    }
    busboy.on('error', (cause: unknown) => this.fail(malformed(cause)));
    for (const limit of ['partsLimit', 'fieldsLimit', 'filesLimit'])
      busboy.on(limit, () => this.fail(tooLarge('Too many fields or files')));
    busboy.on('field', (name: string, value: string, nameCut: boolean, valueCut: boolean) => {
      if (nameCut || valueCut || name.length > NAME_SIZE) this.fail(tooLarge('A field is too large'));
      else addParam(this.fields, name, value);
    });
    busboy.on(
      'file',
      (name: string, stream: BusboyFile, filename: unknown, _encoding: string, type: string) => {
        stream.on('limit', () => this.fail(tooLarge('A file is too large')));
        const file = {
          name,
          filename: typeof filename === 'string' ? filename : '',
          contentType: type,
          stream,
        };
        const job = this.take(file, stream);
        job.catch((error: unknown) => this.fail(error));
        this.jobs.push(job);
      },
    );
    return busboy;
  }

  /** Write a file down, or give it to the sink. */
  private async take(
    { stream, ...file }: IncomingFile,
    counted: BusboyFile,
  ): Promise<UploadedFile | undefined> {
    const { sink } = this.settings;
    const stop = (): void => void stream.destroy(new Error('the upload has failed'));
    this.stops.add(stop);
    // Whoever reads it hears of it.
    stream.on('error', () => undefined);
    try {
      let path: string | undefined;
      let value: unknown;
      if (sink === undefined) {
        const number = this.jobs.length;
        path = join(await this.makeFolder(), String(number));
        await pipeline(stream, createWriteStream(path, { flags: 'wx', mode: 0o600 }));
      } else {
        value = await sink({ ...file, stream }, this.req);
        // What it has not read is in the way of what follows.
        stream.resume();
        if (!stream.readableEnded) await ended(stream);
      }
      // A file input with nothing chosen.
      if (file.filename === '' && counted.bytesRead === 0) return undefined;
      return { ...file, size: counted.bytesRead, path, value };
    } finally {
      this.stops.delete(stop);
    }
  }

  private makeFolder(): Promise<string> {
    this.making ??= mkdtemp(join(this.settings.folder, 'offloop-')).then((folder) => {
      inUse.add(folder);
      this.folder = folder;
      return folder;
    });
    return this.making;
  }
}

function ended(stream: Readable): Promise<void> {
  return new Promise((resolve, reject) => {
    if (stream.destroyed)
      reject(new Error('the sink of an upload has destroyed its stream; it may leave it unread'));
    stream.once('end', resolve);
    stream.once('error', reject);
  });
}

const malformed = (cause?: unknown): BadRequestError =>
  new BadRequestError('Malformed multipart body', { cause });
