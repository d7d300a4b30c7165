/** Door 2: what handler modules import. Safe in a worker: nothing here loads the engine or the pool. */

export type { ChannelStatus } from '../protocol.js';
export {
  asChannel,
  type Channel,
  type ChannelOptions,
  type CloseInfo,
  channel,
  type Message,
  type Overflow,
  publish,
} from './channel.js';
export { type Accepted, type Added, compose, type Middleware } from './compose.js';
export {
  type ChannelCallbacks,
  type ChannelDefinition,
  type DefinedChannel,
  defineChannel,
  type OpenOptions,
} from './define-channel.js';
export { FileBody, type FileOptions, file } from './file.js';
export { html, json, type ResponseInit, redirect, text } from './helpers.js';
export type { WebSocketListener, WebSocketResponse } from './listener.js';
export { type NodeListener, nodeHandler } from './node.js';
export { BadRequestError } from './request.js';
export {
  type EventStream,
  type EventStreamOptions,
  eventStream,
  formatEvent,
  type ServerSentEvent,
} from './sse.js';
export type {
  Body,
  FetchHandler,
  Handler,
  HandlerModule,
  HeaderValue,
  HttpRequest,
  HttpResponse,
  Returns,
} from './types.js';
