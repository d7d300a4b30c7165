/** Query and form parameters, after Ring's wrap-params. */
import { integer, type Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import { BadRequestError } from '../handlers/request.js';
import type { Handler, HttpRequest } from '../handlers/types.js';
import { answerToBody, isUtf8, notUtf8, readText } from './body.js';
import { peer } from './peers.js';
import { mediaType, withFields } from './request.js';
import { aBoolean, checkOptions } from './rules.js';

/** A parameter: a string, an array when its name came more than once; with `nested` also an object. */
export type Param = string | Param[] | { [name: string]: Param };
/** Parameters by name. Has no prototype, so that a name such as `constructor` is one like any other. */
export type ParamRecord = { [name: string]: Param | undefined };

/** What {@link params} adds to a request. */
export interface Params {
  /** Parameters of the query. */
  readonly queryParams: ParamRecord;
  /** Fields of an urlencoded form in the body. */
  readonly formParams: ParamRecord;
  /** Both; a form field wins over a query parameter of its name. */
  readonly params: ParamRecord;
}

export interface ParamsOptions {
  /** Parameters that query and form may each have; more is a 400. Default 1000. */
  limit?: number;
  /** Bytes of a form; more is a 413. Default 1 MiB. */
  formLimit?: number;
  /** Read `a[b]=1` as an object and `a[]=1` as an array, through the package qs. Default false. */
  nested?: boolean;
  /** Levels of brackets with `nested`; more is a 400. Default 5. */
  depth?: number;
  /** Elements of an array with `nested`; more is a 400. Default 100. */
  arrayLimit?: number;
}

const RULES: Record<keyof ParamsOptions, Rule> = {
  limit: integer(1, 2 ** 20, 'a whole number from 1 to 2^20'),
  formLimit: integer(0, 2 ** 31 - 1, 'whole bytes from 0 to 2^31 - 1'),
  nested: aBoolean,
  depth: integer(0, 32, 'a whole number from 0 to 32'),
  arrayLimit: integer(0, 2 ** 20, 'a whole number from 0 to 2^20'),
};

type Parse = (text: string) => ParamRecord;

/**
 * Adds `queryParams`, `formParams` and `params`. Percent-encoding that is none stays as it came (URL standard, 5.1).
 * @throws OFFLOOP_BAD_OPTION, OFFLOOP_MISSING_PACKAGE.
 */
export function params(options: ParamsOptions = {}): Middleware<Params> {
  checkOptions('params', options, RULES);
  const { limit = 1000, formLimit = 1024 * 1024 } = options;
  const parse = options.nested === true ? nestedParser(options, limit) : flatParser(limit);

  return (handler) => {
    const withForm = async (
      req: HttpRequest,
      queryParams: ParamRecord,
    ): Promise<Awaited<ReturnType<Handler>>> => {
      let formParams: ParamRecord;
      try {
        formParams = parse(await readText(req, formLimit));
      } catch (error) {
        return answerToBody(error);
      }
      return handler(withParams(req, queryParams, formParams));
    };

    return (req) => {
      let queryParams: ParamRecord;
      try {
        queryParams = parse(req.query ?? '');
      } catch (error) {
        return answerToBody(error);
      }
      if (mediaType(req.contentType) !== 'application/x-www-form-urlencoded')
        return handler(withParams(req, queryParams, empty()));
      if (!isUtf8(req.contentType)) return notUtf8();
      return withForm(req, queryParams);
    };
  };
}

function withParams(
  req: HttpRequest,
  queryParams: ParamRecord,
  formParams: ParamRecord,
): HttpRequest & Params {
  const before = (req as Partial<Params>).params;
  return withFields(req, { queryParams, formParams, params: merged(before, queryParams, formParams) });
}

export const empty = (): ParamRecord => Object.create(null) as ParamRecord;

export function merged(...records: (ParamRecord | undefined)[]): ParamRecord {
  return Object.assign(empty(), ...records) as ParamRecord;
}

/** One more value under a name. */
export function addParam(record: ParamRecord, name: string, value: string): void {
  const before = record[name];
  if (before === undefined) record[name] = value;
  else if (Array.isArray(before)) before.push(value);
  else record[name] = [before, value];
}

function flatParser(limit: number): Parse {
  return (text) => {
    const record = empty();
    if (text === '') return record;
    checkCount(text, limit);
    for (const [name, value] of new URLSearchParams(text)) addParam(record, name, value);
    return record;
  };
}

/** Before anything is made of them. */
function checkCount(text: string, limit: number): void {
  let count = 0;
  for (let at = 0; at !== -1; count++) {
    if (count === limit) throw new BadRequestError(`more than ${limit} parameters`);
    at = text.indexOf('&', at);
    if (at !== -1) at++;
  }
}

interface Qs {
  parse(text: string, options: Record<string, unknown>): ParamRecord;
}

function nestedParser({ depth = 5, arrayLimit = 100 }: ParamsOptions, limit: number): Parse {
  const qs = peer<Qs>('qs', 'params({ nested: true })');
  const options = {
    depth,
    strictDepth: true,
    parameterLimit: limit,
    arrayLimit,
    throwOnLimitExceeded: true,
    plainObjects: true,
  };
  return (text) => {
    if (text === '') return empty();
    checkCount(text, limit);
    try {
      return qs.parse(text, options);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new BadRequestError('the parameters are nested too deeply, or one has too many values', {
        cause,
      });
    }
  };
}
