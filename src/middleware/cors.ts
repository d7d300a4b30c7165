/** Cross-origin requests of browsers (WHATWG Fetch, 3.2). */
import { integer, type Rule, refuse } from '../check.js';
import type { Middleware } from '../handlers/compose.js';
import type { HttpRequest, HttpResponse, Returns } from '../handlers/types.js';
import { after, Draft, draftFor, HeaderBag, type Result } from './response.js';
import { aBoolean, checkOptions } from './rules.js';

type OriginRule = string | RegExp;

export interface CorsOptions {
  /**
   * Who may read answers: '*' for all, an origin as browsers write it ('https://example.org'), a RegExp, an array of these,
   * or a function that says for each. Default '*'.
   */
  origin?:
    | OriginRule
    | readonly OriginRule[]
    | ((origin: string, req: HttpRequest) => boolean | Promise<boolean>);
  /** Methods beyond GET, HEAD and POST that are allowed. Default PUT, PATCH, DELETE. */
  methods?: readonly string[];
  /** Request headers that are allowed. Default: those the browser asks for. */
  allowedHeaders?: readonly string[];
  /** Response headers that scripts may read. Default: only those they always may. */
  exposedHeaders?: readonly string[];
  /** Whether cookies and the like may be sent; not with '*'. Default false. */
  credentials?: boolean;
  /** Ms for which a browser may remember a preflight. Default: as long as it likes, 5 s. */
  maxAge?: number;
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** Names, and what separates them. */
const LIST = /^[!#$%&'*+\-.^_`|~0-9A-Za-z, \t]+$/;
/** No host name makes a longer one. It bounds what a RegExp has to look at. */
const MAX_ORIGIN = 300;

const isOrigin = (v: string): boolean =>
  v === '*' || v === 'null' || /^[a-z][a-z0-9+.-]*:\/\/[^/\s]+$/.test(v);
const isRule = (v: unknown): boolean =>
  typeof v === 'string' ? isOrigin(v) : v instanceof RegExp && !v.global && !v.sticky;
const tokens: Rule = {
  allowed: 'an array of names',
  ok: (v) => Array.isArray(v) && v.every((one) => typeof one === 'string' && TOKEN.test(one)),
};
const RULES: Record<keyof CorsOptions, Rule> = {
  origin: {
    allowed:
      "'*', an origin such as 'https://example.org' without a slash behind it, a RegExp without the flags g and y, a non-empty array of these, or a function",
    ok: (v) => typeof v === 'function' || isRule(v) || (Array.isArray(v) && v.length > 0 && v.every(isRule)),
  },
  methods: tokens,
  allowedHeaders: tokens,
  exposedHeaders: tokens,
  credentials: aBoolean,
  maxAge: integer(0, 2 ** 31 - 1, 'whole milliseconds from 0 to 2^31 - 1'),
};

/**
 * Answers preflights, and tells browsers who may read answers. It refuses nothing to other clients: that is not what CORS is.
 * @throws OFFLOOP_BAD_OPTION.
 */
export function cors(options: CorsOptions = {}): Middleware {
  checkOptions('cors', options, RULES);
  const policy = new Policy(options);
  return (handler) => (req) => {
    const origin = req.headers['origin'];
    const isPreflight =
      req.method === 'OPTIONS' &&
      origin !== undefined &&
      req.headers['access-control-request-method'] !== undefined;
    return after(policy.allows(origin, req), (allowed) => {
      if (isPreflight) return policy.preflight(req, allowed);
      return after(handler(req) as Returns | Promise<Returns>, (result) =>
        policy.decorate(req, result, allowed),
      );
    });
  };
}

/** What the options come to. The origin that is allowed is written '*' if all are, or as the browser named it. */
class Policy {
  private readonly anyone: boolean;
  private readonly credentials: boolean;
  private readonly matches: (origin: string, req: HttpRequest) => boolean | Promise<boolean>;
  private readonly methods: string;
  private readonly allowedHeaders: string | undefined;
  private readonly exposedHeaders: string | undefined;
  private readonly maxAge: string | undefined;

  constructor(options: CorsOptions) {
    const { origin = '*', credentials = false, methods = ['PUT', 'PATCH', 'DELETE'], maxAge } = options;
    const rules = typeof origin === 'function' ? [] : ([origin].flat() as OriginRule[]);
    this.anyone = rules.includes('*');
    if (this.anyone && credentials)
      refuse('cors', 'credentials', credentials, "false with origin '*': name those that may send cookies");
    this.credentials = credentials;
    this.matches =
      typeof origin === 'function'
        ? origin
        : (asking) => rules.some((rule) => (typeof rule === 'string' ? rule === asking : rule.test(asking)));
    this.methods = [...new Set(['GET', 'HEAD', 'POST', ...methods])].join(', ');
    this.allowedHeaders = options.allowedHeaders?.join(', ');
    this.exposedHeaders = options.exposedHeaders?.join(', ');
    this.maxAge = maxAge === undefined ? undefined : String(Math.floor(maxAge / 1000));
  }

  /** The value of Access-Control-Allow-Origin, or undefined where there shall be none. */
  allows(origin: string | undefined, req: HttpRequest): string | undefined | Promise<string | undefined> {
    if (this.anyone) return '*';
    if (origin === undefined || origin.length > MAX_ORIGIN) return undefined;
    return after(this.matches(origin, req), (allowed) => (allowed === true ? origin : undefined));
  }

  preflight(req: HttpRequest, allowed: string | undefined): HttpResponse {
    const headers = new HeaderBag(undefined);
    this.grant(headers, allowed);
    const asked = req.headers['access-control-request-headers'];
    if (this.allowedHeaders === undefined) headers.vary('Access-Control-Request-Headers');
    if (allowed !== undefined) {
      headers.set('Access-Control-Allow-Methods', this.methods);
      const names = this.allowedHeaders ?? (asked !== undefined && LIST.test(asked) ? asked : '');
      if (names !== '') headers.set('Access-Control-Allow-Headers', names);
      headers.set('Access-Control-Max-Age', this.maxAge);
    }
    return { status: 204, headers: headers.toRecord() };
  }

  decorate(req: HttpRequest, result: Result, allowed: string | undefined): Result {
    // Without these lines a script cannot even see that it was a 404.
    const asked = allowed !== undefined && req.headers['origin'] !== undefined;
    const draft = asked ? draftFor(req, result) : Draft.of(result);
    if (draft === null) return result;
    this.grant(draft.headers, allowed);
    if (allowed !== undefined) draft.headers.set('Access-Control-Expose-Headers', this.exposedHeaders);
    return draft.finish();
  }

  private grant(headers: HeaderBag, allowed: string | undefined): void {
    // Also where it is not allowed: caches must not give this answer to somebody who is (Fetch, 3.2.5).
    if (!this.anyone) headers.vary('Origin');
    if (allowed === undefined) return;
    headers.set('Access-Control-Allow-Origin', allowed);
    if (this.credentials) headers.set('Access-Control-Allow-Credentials', 'true');
  }
}
