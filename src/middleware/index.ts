/** Door 3: middleware, for handler modules. Safe in a worker, and on the I/O thread too. */
export { type AccessLogOptions, accessLog, type LogEntry } from './access-log.js';
export { type BasicAuth, type BasicAuthOptions, basicAuth } from './basic-auth.js';
export { type CompressOptions, compress } from './compress.js';
export { type ContentTypeOptions, contentType } from './content-type.js';
export {
  type CookieAttributes,
  type CookieResponse,
  type Cookies,
  type CookiesOptions,
  type CookieToSet,
  cookies,
} from './cookies.js';
export { type CorsOptions, cors } from './cors.js';
export { type CsrfOptions, csrf } from './csrf.js';
export { type ErrorPageOptions, errorPage } from './error-page.js';
export { type ForwardedOptions, forwarded } from './forwarded.js';
export { head } from './head.js';
export { type HttpsRedirectOptions, httpsRedirect } from './https-redirect.js';
export {
  type JsonBody,
  type JsonBodyOptions,
  type JsonResponse,
  type JsonResponseOptions,
  jsonBody,
  jsonResponse,
} from './json.js';
export {
  type IncomingFile,
  type Multipart,
  type MultipartOptions,
  multipart,
  type UploadedFile,
} from './multipart.js';
export { type NotModifiedOptions, notModified } from './not-modified.js';
export { type Param, type ParamRecord, type Params, type ParamsOptions, params } from './params.js';
export {
  type Limiter,
  type LimitState,
  type MemoryLimiterOptions,
  memoryLimiter,
  type RateLimitOptions,
  rateLimit,
} from './rate-limit.js';
export { derive } from './request.js';
export { type RequestId, type RequestIdOptions, requestId } from './request-id.js';
export { type SecurityHeadersOptions, securityHeaders } from './security-headers.js';
export { type Session, type SessionOptions, session, type WithSession } from './session.js';
export { type MemoryStoreOptions, memoryStore, type SessionStore } from './session-store.js';
export { type StaticFilesOptions, staticFiles } from './static-files.js';
export { type TimeoutOptions, timeout } from './timeout.js';
export { writeErrors } from './write-errors.js';
