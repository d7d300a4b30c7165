/** Server-sent events over a channel (WHATWG HTML, 9.2). */
import { OffloopTypeError } from '../errors.js';
import { asChannel, type Channel, type ChannelOptions } from './channel.js';
import type { HttpRequest } from './types.js';

/** One event, as an EventSource gets it. */
export interface ServerSentEvent {
  /** Text; each of its lines becomes a line of data. */
  data: string;
  /** The type it is listened for under; 'message' without one. */
  event?: string;
  /** Comes back as `Last-Event-ID` when the client connects again. */
  id?: string;
  /** Ms the client shall wait before it connects again. */
  retry?: number;
}

export interface EventStreamOptions
  extends Pick<ChannelOptions, 'topics' | 'headers' | 'highWater' | 'overflow' | 'closeOnError'> {
  /** The stream is open. */
  onOpen?: (stream: EventStream) => unknown;
  /** The stream has ended: `server-close`, or `client-close`. */
  onClose?: (stream: EventStream, status: 'server-close' | 'client-close') => unknown;
  /** Ms between comments that keep proxies from cutting a quiet stream; 0 = none. Default 15000. */
  keepAlive?: number;
}

/** A stream of events, made by {@link eventStream}. */
export interface EventStream {
  readonly channel: Channel;
  /** The id of the last event this client got before it connected again, or ''. */
  readonly lastEventId: string;
  /** Send an event; a string is its data. Returns as {@link Channel.send} does. */
  send(event: ServerSentEvent | string): boolean;
  /** Send a line that clients ignore. */
  comment(text?: string): boolean;
  close(): boolean;
}

const KEEP_ALIVE = 15_000;

/**
 * Answer a request with a stream of events. Return what it returns from the handler.
 *
 * What is published under one of its topics is sent as it is, so publish `formatEvent(...)`.
 */
export function eventStream(req: HttpRequest, options: EventStreamOptions = {}): Channel {
  const { onOpen, onClose, keepAlive = KEEP_ALIVE, headers, ...rest } = options;
  if (!(Number.isInteger(keepAlive) && keepAlive >= 0)) {
    throw new OffloopTypeError(
      'OFFLOOP_BAD_CHANNEL',
      `eventStream: keepAlive is ${String(keepAlive)}; allowed: whole milliseconds, 0 for none`,
    );
  }
  let timer: NodeJS.Timeout | undefined;
  let stream: EventStream | undefined;
  return asChannel(req, {
    ...rest,
    headers: [
      ['content-type', 'text/event-stream'],
      ['cache-control', 'no-store'],
      // nginx would collect the events otherwise.
      ['x-accel-buffering', 'no'],
      ...(headers === undefined ? [] : Symbol.iterator in headers ? headers : Object.entries(headers)),
    ],
    onOpen: (channel) => {
      const made = new Stream(channel, req.headers['last-event-id'] ?? '');
      stream = made;
      // The client is connected when it sees the first byte.
      made.comment();
      if (keepAlive > 0 && channel.isOpen) {
        timer = setInterval(() => made.comment(), keepAlive);
        timer.unref();
      }
      return onOpen?.(made);
    },
    onClose: (_channel, status) => {
      clearInterval(timer);
      if (stream !== undefined) return onClose?.(stream, status as 'server-close' | 'client-close');
      return undefined;
    },
  });
}

class Stream implements EventStream {
  constructor(
    readonly channel: Channel,
    readonly lastEventId: string,
  ) {}

  send(event: ServerSentEvent | string): boolean {
    return this.channel.send(formatEvent(event), false);
  }
  comment(text = ''): boolean {
    return this.channel.send(`${prefixed(':', text)}\n`, false);
  }
  close(): boolean {
    return this.channel.close();
  }
}

/** An event as it goes over the wire, for `publish`. A string is its data. */
export function formatEvent(event: ServerSentEvent | string): string {
  if (typeof event === 'string') return `${prefixed('data:', event)}\n`;
  const { data, event: type, id, retry } = event;
  let text = '';
  if (type !== undefined) text += `event: ${oneLine('event', type)}\n`;
  if (id !== undefined) text += `id: ${oneLine('id', id)}\n`;
  if (retry !== undefined) text += `retry: ${wholeMs(retry)}\n`;
  return `${text}${prefixed('data:', data)}\n`;
}

/** Each line of `text` behind `prefix`. All three kinds of line ends count. */
function prefixed(prefix: string, text: string): string {
  return text
    .split(/\r\n|\r|\n/)
    .map((line) => `${prefix} ${line}\n`)
    .join('');
}

function oneLine(field: string, text: string): string {
  if (typeof text !== 'string' || /[\r\n\0]/.test(text))
    throw new OffloopTypeError('OFFLOOP_BAD_CHANNEL', `the ${field} of an event is a string of one line`);
  return text;
}

function wholeMs(retry: number): number {
  if (!(Number.isInteger(retry) && retry >= 0))
    throw new OffloopTypeError('OFFLOOP_BAD_CHANNEL', 'the retry of an event is whole milliseconds');
  return retry;
}
