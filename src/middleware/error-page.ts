/** A page for errors, for who develops. */
import { inspect, stripVTControlCharacters } from 'node:util';
import type { Rule } from '../check.js';
import { fromErrorRecord, toErrorRecord } from '../errors.js';
import type { Middleware } from '../handlers/compose.js';
import { isThenable } from '../handlers/reasons.js';
import type { HttpRequest, HttpResponse, Returns } from '../handlers/types.js';
import { peer } from './peers.js';
import { hasChannel, logError, statusFor } from './request.js';
import type { Result } from './response.js';
import { aBoolean, checkOptions } from './rules.js';

export interface ErrorPageOptions {
  /** Default: whether the environment variable NODE_ENV is 'development'. */
  enabled?: boolean;
}

const RULES: Record<keyof ErrorPageOptions, Rule> = { enabled: aBoolean };

/** The part of the package youch that is used. */
interface Youch {
  toHTML(error: unknown, options: object): Promise<string>;
}
interface YouchModule {
  readonly Youch: new () => Youch;
}

/** The page needs its own styles and scripts, and nothing from anywhere else, whatever is in the error. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/**
 * Shows what a handler throws to who asked: a page with the message, the stack with the lines of source around it and the
 * causes; text for who does not accept HTML. The error goes to the server's `errorLogger` as ever. Where it is not enabled it
 * is not there: handlers are returned as they are. @throws OFFLOOP_BAD_OPTION, OFFLOOP_MISSING_PACKAGE.
 */
export function errorPage(options: ErrorPageOptions = {}): Middleware {
  checkOptions('errorPage', options, RULES);
  const { enabled = process.env['NODE_ENV'] === 'development' } = options;
  if (!enabled) return (handler) => handler;
  const { Youch } = peer<YouchModule>('youch', 'errorPage');

  const show = (req: HttpRequest, error: unknown): Promise<HttpResponse> => {
    // These have an answer already: what is the client's fault, and what a channel has answered.
    if (statusFor(error, req) !== null || hasChannel(req)) throw error;
    logError(req, `${req.method} ${req.path}`, error);
    return pageOf(req, error, new Youch());
  };
  return (handler) => (req) => {
    let result: Result | Promise<Result>;
    try {
      result = handler(req) as Returns | Promise<Returns>;
    } catch (error) {
      return show(req, error);
    }
    if (!isThenable<Result>(result)) return result;
    return result.then(
      (answer) => answer,
      (error: unknown) => show(req, error),
    ) as Promise<Result>;
  };
}

async function pageOf(req: HttpRequest, thrown: unknown, youch: Youch): Promise<HttpResponse> {
  const headers = { 'cache-control': 'no-store', 'content-type': 'text/plain; charset=utf-8' };
  const answer = (body: string): HttpResponse => ({ status: 500, headers, body });
  if (!/\btext\/html\b/i.test(req.headers['accept'] ?? '')) return answer(textOf(thrown));
  const { method, path, headers: asked } = req;
  try {
    const body = await youch.toHTML(thrown, {
      title: 'Error',
      request: { url: path, method, headers: { ...asked } },
    });
    return {
      status: 500,
      headers: { ...headers, 'content-type': 'text/html; charset=utf-8', 'content-security-policy': POLICY },
      body,
    };
  } catch {
    // What was thrown does not want to be looked at.
    return answer(textOf(thrown));
  }
}

/** Never throws: what a handler throws may be anything. */
function textOf(thrown: unknown): string {
  try {
    return stripVTControlCharacters(inspect(thrown, { depth: 4, maxStringLength: 10_000 }));
  } catch {
    return String(fromErrorRecord(toErrorRecord(thrown)).stack);
  }
}
