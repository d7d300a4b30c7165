/** A name for each request, for logs. */
import { randomUUID } from 'node:crypto';
import type { Rule } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import type { Returns } from '../handlers/types.js';
import { withFields } from './request.js';
import { after, withHeaders } from './response.js';
import { aBoolean, aFunction, checkOptions } from './rules.js';

/** What {@link requestId} adds to a request. */
export interface RequestId {
  readonly requestId: string;
}

export interface RequestIdOptions {
  /** Name of the header, of the answer and, with `trust`, of the request. Default 'X-Request-Id'. */
  header?: string;
  /** Take the id that the client sends, if it is one: up to 128 letters, digits and -_.:/+=@~. Default false. */
  trust?: boolean;
  /** Makes an id. Default: a random UUID. */
  generate?: () => string;
}

const RULES: Record<keyof RequestIdOptions, Rule> = {
  header: {
    allowed: 'a header name',
    ok: (v) => typeof v === 'string' && /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(v),
  },
  trust: aBoolean,
  generate: aFunction,
};
const ID = /^[\w.:/+=@~-]{1,128}$/;

/** Adds `requestId`, and says it in the answer. @throws OFFLOOP_BAD_OPTION. */
export function requestId(options: RequestIdOptions = {}): Middleware<RequestId> {
  checkOptions('requestId', options, RULES);
  const { header = 'X-Request-Id', trust = false, generate = randomUUID } = options;
  const field = header.toLowerCase();
  return (handler) => (req) => {
    const given = trust ? req.headers[field] : undefined;
    const id = given !== undefined && ID.test(given) ? given : generate();
    const inner = withFields(req, { requestId: id });
    return after(handler(inner) as Returns | Promise<Returns>, (result) =>
      withHeaders(result, (headers) => headers.set(header, id)),
    );
  };
}
