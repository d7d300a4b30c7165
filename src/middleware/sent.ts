/** To do something when a response is done. */
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { sep } from 'node:path';
import { Readable } from 'node:stream';
import { contentTypeOf, FileBody } from '../handlers/file.js';
import { asBytes, isBlob } from '../handlers/respond.js';
import { asChunk, type Source, sourceOf, wellFormed } from '../handlers/source.js';
import { Draft, type Result } from './response.js';

/**
 * Have `done` called when the body of a response has been read to its end, or never will be. A body that lies in memory is
 * done at once; so is nothing, and a channel. A file below `folder` is opened before, since it may go then.
 */
export async function sentFrom(
  folder: string | undefined,
  result: Result,
  done: () => unknown,
): Promise<Result> {
  const draft = folder === undefined ? null : Draft.of(result);
  const { body } = draft ?? {};
  const inMemory = typeof body !== 'object' || body === null || asBytes(body) !== undefined;
  const stream = draft === null || inMemory ? undefined : await streamOf(body, `${folder}${sep}`);
  if (draft === null || stream === undefined) {
    await done();
    return result;
  }
  if (body instanceof FileBody && !draft.headers.has('content-type'))
    draft.headers.set('Content-Type', body.options.contentType ?? contentTypeOf(body.path));
  stream.once('close', () => void done());
  draft.body = draft.isWeb ? Readable.toWeb(stream) : stream;
  return draft.finish();
}

async function streamOf(body: object, folder: string): Promise<Readable | undefined> {
  if (body instanceof FileBody) {
    if (!body.path.startsWith(folder)) return undefined;
    const stream = createReadStream(body.path);
    // One that is not there is for the server to answer.
    return await once(stream, 'open').then(
      () => stream,
      () => undefined,
    );
  }
  const source = sourceOf(isBlob(body) ? body.stream() : body);
  return source === undefined ? undefined : readable(source);
}

/** A source as a stream of Node, which says when it is over. */
function readable(source: Source): Readable {
  const read = async (): Promise<Uint8Array | string | null> => {
    const { done, value } = await source.next();
    if (done === true) return null;
    const chunk = asChunk(value);
    return typeof chunk === 'string' ? wellFormed(chunk) : chunk;
  };
  let ended = false;
  const stream = new Readable({
    read() {
      read().then(
        (chunk) => {
          ended = chunk === null;
          // An empty chunk is none to a stream, and it would not ask again.
          if (chunk !== null && chunk.length === 0) this._read(0);
          else this.push(chunk);
        },
        (error: unknown) => {
          ended = true;
          this.destroy(error as Error);
        },
      );
    },
    destroy(error, callback) {
      source.letGo(ended, error);
      callback(error);
    },
  });
  // Whoever reads it gets the error; until somebody does, it is nobody's.
  stream.on('error', () => undefined);
  return stream;
}
