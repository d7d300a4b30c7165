import { REFUSALS, type Refusal } from '../errors.js';
import type { EngineRequest } from './engine.js';

/** Bytes of all lines of a head together. http-kit's bound. */
const MAX_HEAD = 65_536;

// RFC 9112, 3.2 and RFC 3986, 3.2.2: a name, an IPv4 address or an IPv6 address in brackets, perhaps a port. An empty
// one, user info and anything with a slash are refused: proxies and servers disagree about what they mean.
const HOST = /^(?:[A-Za-z0-9\-._~%!$&'()*+,;=]+|\[[0-9A-Fa-f:.]+\])(?::(\d{0,5}))?$/;

/** The one control character that the engine lets into targets and values. */
const DEL = '\x7f';

/**
 * Copies a request's head out of the engine, and refuses what the engine lets through and must not: whatever two
 * parsers could read differently (RFC 9112, 6.3 and 11.2) is answered 400, so that nothing can be smuggled in behind a
 * proxy. One instance serves all requests; its fields are valid until the next `read`.
 */
export class RequestReader {
  method = '';
  path = '';
  /** Starts with '?' when there is a query. */
  query = '';
  host = '';
  /** `\nname\nvalue` for each header line, as in a PackedHead. */
  headers = '';
  /** Content-Length, or -1. */
  contentLength = -1;
  chunked = false;
  wantsClose = false;

  private size = 0;
  private problem: Refusal | undefined;
  private hosts = 0;
  /** The last good Host: most requests have the same. */
  private goodHost: string | undefined;

  constructor(private readonly maxLine: number) {}

  get hasBody(): boolean {
    return this.chunked || this.contentLength > 0;
  }

  /** Read the head. Returns why the request must be refused, or undefined. */
  read(req: EngineRequest, method: string): Refusal | undefined {
    this.headers = '';
    this.host = '';
    this.contentLength = -1;
    this.chunked = false;
    this.wantsClose = false;
    this.problem = undefined;
    this.hosts = 0;
    this.method = method;
    this.path = req.getUrl();
    const query = req.getQuery();
    this.query = query === undefined ? '' : `?${query}`;
    // 'GET ', ' HTTP/1.1', and the line end, which counts as it does in http-kit.
    this.size = this.method.length + this.path.length + this.query.length + 12;
    if (this.size > this.maxLine) return REFUSALS.uriTooLong(this.maxLine);
    req.forEach(this.visit);
    if (this.problem !== undefined) return this.problem;
    if (this.size > MAX_HEAD) return REFUSALS.headTooLarge(MAX_HEAD);
    if (this.hosts === 0) return REFUSALS.badRequest('HTTP/1.1 request is missing Host header');
    if (this.chunked && this.contentLength !== -1) {
      return REFUSALS.badRequest('Request contains both Transfer-Encoding and Content-Length');
    }
    if (this.path.includes(DEL) || this.query.includes(DEL))
      return REFUSALS.badRequest('Invalid HTTP request target');
    return undefined;
  }

  private readonly visit = (name: string, value: string): void => {
    // ': ' and the line end.
    const length = name.length + value.length + 4;
    this.size += length;
    this.headers += `\n${name}\n${value}`;
    if (length > this.maxLine) this.problem ??= REFUSALS.headerTooLong(this.maxLine);
    switch (name) {
      case 'host':
        this.hosts++;
        this.host = value;
        if (this.hosts > 1 || value !== this.goodHost) this.checkHost(value);
        return;
      case 'content-length':
        // Digits only, and only once: even two equal ones are a sign of somebody trying.
        if (this.contentLength !== -1 || !/^\d{1,15}$/.test(value)) {
          this.problem ??= REFUSALS.badRequest(`Invalid Content-Length: ${value}`);
        } else {
          this.contentLength = Number(value);
        }
        return;
      case 'transfer-encoding':
        if (this.chunked || value.toLowerCase() !== 'chunked') {
          this.problem ??= REFUSALS.badRequest(`Unsupported Transfer-Encoding: ${value}`);
        }
        this.chunked = true;
        return;
      case 'connection':
        if (/(?:^|,)\s*close\s*(?:,|$)/i.test(value)) this.wantsClose = true;
        break;
      case '':
        this.problem ??= REFUSALS.badRequest('Invalid HTTP header name');
        return;
      default:
    }
    // The fields above have a stricter check of their own.
    if (value.includes(DEL)) this.problem ??= REFUSALS.badRequest('Invalid character in HTTP header value');
  };

  private checkHost(value: string): void {
    const match = HOST.exec(value);
    if (this.hosts > 1 || match === null)
      this.problem ??= REFUSALS.badRequest(`Invalid host header: ${value}`);
    else if (Number(match[1] ?? 0) > 65_535)
      this.problem ??= REFUSALS.badRequest(`Invalid host header (bad port): ${value}`);
    else this.goodHost = value;
  }
}
