/** Reading request bodies up to a limit. */
import { BadRequestError } from '../handlers/request.js';
import type { HttpRequest, HttpResponse } from '../handlers/types.js';
import { plain } from './response.js';

/** An answer to a request whose body is not what it should be; thrown, and turned into that answer by who reads bodies. */
export class BodyProblem extends Error {
  constructor(readonly response: HttpResponse) {
    super('the body cannot be taken');
  }
}

export const tooLarge = (text = 'Content Too Large'): BodyProblem => new BodyProblem(plain(413, text));

/**
 * The body as text, at most `limit` bytes of it: rejects with a {@link BodyProblem}, a 413, beyond that. A body whose
 * length is known is refused before it is read.
 */
export async function readText(req: HttpRequest, limit: number): Promise<string> {
  const { contentLength } = req;
  if (contentLength !== null) {
    if (contentLength > limit) throw tooLarge();
    return await req.text();
  }
  const { body } = req;
  if (body === null) return '';
  const decoder = new TextDecoder();
  let size = 0;
  let text = '';
  // Leaving the loop cancels the stream.
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > limit) throw tooLarge();
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * Whether the Content-Type names UTF-8, or no charset. The formats read here are UTF-8 by their definition (RFC 8259, 8.1;
 * URL standard, 5), so another charset is a mistake that would garble what is read.
 */
export function isUtf8(contentType: string | null): boolean {
  const charset = /;\s*charset\s*=\s*"?([^";\s]*)/i.exec(contentType ?? '')?.[1];
  return charset === undefined || /^(utf-?8|us-ascii)$/i.test(charset);
}

export const notUtf8 = (): HttpResponse => plain(415, 'Only UTF-8 is understood');

/** The answer to what went wrong with reading a body, or a rethrow when it is not the body's fault. */
export function answerToBody(error: unknown): HttpResponse {
  if (error instanceof BodyProblem) return error.response;
  if (error instanceof BadRequestError) return plain(400, error.message);
  throw error;
}
