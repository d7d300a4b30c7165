/** Door 3: middleware, for handler modules. Safe in a worker, and on the I/O thread too. */
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
export { head } from './head.js';
export {
  type JsonBody,
  type JsonBodyOptions,
  type JsonResponse,
  type JsonResponseOptions,
  jsonBody,
  jsonResponse,
} from './json.js';
export { type NotModifiedOptions, notModified } from './not-modified.js';
export { type Param, type ParamRecord, type Params, type ParamsOptions, params } from './params.js';
export { derive } from './request.js';
export { type Session, type SessionOptions, session, type WithSession } from './session.js';
export { type MemoryStoreOptions, memoryStore, type SessionStore } from './session-store.js';
