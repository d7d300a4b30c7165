/** JSON in and out, after ring-json. */
import { integer, type Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { FileBody } from '../handlers/file.js';
import { asBytes, isBlob, isWebResponse } from '../handlers/respond.js';
import type { Handler, HttpRequest, HttpResponse, Returns } from '../handlers/types.js';
import { answerToBody, isUtf8, notUtf8, readText } from './body.js';
import { merged, type ParamRecord } from './params.js';
import { mediaType, withFields } from './request.js';
import { after, Draft, plain, type Result } from './response.js';
import { aBoolean, aFunction, checkOptions } from './rules.js';

/** What {@link jsonBody} adds to a request. */
export interface JsonBody {
  /** The parsed body; undefined when it is not JSON by its Content-Type, or empty. */
  readonly jsonBody: unknown;
}

export interface JsonBodyOptions {
  /** Bytes of a body; more is a 413. Default 1 MiB. */
  limit?: number;
  /** Answer 415 to a request with a body that is not JSON, instead of passing it on. Default false. */
  strict?: boolean;
  /** Also put the members of a JSON object into `params`, where they win. Default false. */
  params?: boolean;
  /** As of JSON.parse. */
  reviver?: (key: string, value: unknown) => unknown;
}

const BODY_RULES: Record<keyof JsonBodyOptions, Rule> = {
  limit: integer(0, 2 ** 31 - 1, 'whole bytes from 0 to 2^31 - 1'),
  strict: aBoolean,
  params: aBoolean,
  reviver: aFunction,
};

// application/json, and what is JSON by its suffix (RFC 6839, 3.1).
const JSON_TYPE = /^application\/(?:[^;\s]+\+)?json$/;

/**
 * Adds `jsonBody`. A body that is JSON by its Content-Type and not in fact is answered 400. @throws OFFLOOP_BAD_OPTION.
 */
export function jsonBody(options: JsonBodyOptions = {}): Middleware<JsonBody> {
  checkOptions('jsonBody', options, BODY_RULES);
  const { limit = 1024 * 1024, strict = false, params = false, reviver } = options;

  return (handler) => {
    const read = async (req: HttpRequest): Promise<Awaited<ReturnType<Handler>>> => {
      let value: unknown;
      try {
        const text = await readText(req, limit);
        if (text !== '') value = JSON.parse(text, reviver);
        if (mayNameProto(text) && namesProto(value)) return malformed();
      } catch (error) {
        if (error instanceof SyntaxError) return malformed();
        return answerToBody(error);
      }
      return handler(withFields(req, additions(req, value, params)));
    };

    return (req) => {
      if (JSON_TYPE.test(mediaType(req.contentType))) return isUtf8(req.contentType) ? read(req) : notUtf8();
      if (strict && req.body !== null)
        return plain(415, 'The request body must be JSON', { accept: 'application/json' });
      return handler(withFields(req, { jsonBody: undefined }));
    };
  };
}

function additions(req: HttpRequest, value: unknown, params: boolean): JsonBody {
  if (!params || typeof value !== 'object' || value === null || Array.isArray(value))
    return { jsonBody: value };
  const before = (req as { params?: ParamRecord }).params;
  return { jsonBody: value, params: merged(before, value as ParamRecord) } as JsonBody;
}

const malformed = (): HttpResponse => plain(400, 'Malformed JSON in request body.');

/** Whether it is worth looking: the name, or an escape that may stand for a letter of it. */
const mayNameProto = (text: string): boolean => text.includes('__proto__') || text.includes('\\u00');

/**
 * Whether any object has a member of its own called `__proto__`. JSON.parse makes one, and who then merges such an object
 * into another changes the prototype of that.
 */
function namesProto(value: unknown): boolean {
  const left = [value];
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next !== 'object' || next === null) continue;
    if (Object.hasOwn(next, '__proto__')) return true;
    for (const inner of Object.values(next)) left.push(inner);
  }
  return false;
}

/** A response whose body becomes JSON. */
export interface JsonResponse extends Omit<HttpResponse, 'body'> {
  body?: unknown;
}

export interface JsonResponseOptions {
  /** As of JSON.stringify. */
  replacer?: (key: string, value: unknown) => unknown;
}

const JSON_UTF8 = 'application/json; charset=utf-8';

const RESPONSE_RULES: Record<keyof JsonResponseOptions, Rule> = { replacer: aFunction };

/**
 * Lets handlers return objects and arrays as body: they are sent as JSON, with a Content-Type unless one is set. Strings,
 * bytes, files, streams and other iterables are sent as ever. @throws OFFLOOP_BAD_OPTION.
 */
export function jsonResponse(options: JsonResponseOptions = {}): Middleware<unknown, Returns | JsonResponse> {
  checkOptions('jsonResponse', options, RESPONSE_RULES);
  const { replacer } = options;
  const encode = (result: Returns | JsonResponse | undefined): Result => {
    const draft = isWebResponse(Object(result)) ? null : Draft.of(result);
    if (draft === null || !isData(draft.body)) return result as Result;
    const body = JSON.stringify(draft.body, replacer);
    const response = result as HttpResponse;
    // The usual case. A response that is put together anew, header by header, costs half of what JSON.stringify does.
    if (response.headers === undefined) return { ...response, headers: { 'Content-Type': JSON_UTF8 }, body };
    draft.body = body;
    if (!draft.headers.has('content-type')) draft.headers.set('Content-Type', JSON_UTF8);
    return draft.finish();
  };
  return (handler) => (req) => after(handler(req) as Returns | Promise<Returns>, encode);
}

/** Whether a body is none of those that have a way to the wire already. Arrays are data here. */
function isData(body: unknown): boolean {
  if (Array.isArray(body)) return true;
  if (typeof body === 'number' || typeof body === 'boolean') return true;
  if (typeof body !== 'object' || body === null) return false;
  if (body instanceof FileBody || asBytes(body) !== undefined || isBlob(body)) return false;
  return !(Symbol.iterator in body) && !(Symbol.asyncIterator in body);
}
