/** Ring's shape of a WebSocket response, `{ websocket: listener, protocol }`: an alternative to asChannel. */
import { asChannel, type Channel, type Message } from './channel.js';
import type { HttpRequest } from './types.js';

/** Callbacks of a WebSocket, after Ring's Listener. */
export interface WebSocketListener {
  onOpen?: (socket: Channel) => unknown;
  onMessage?: (socket: Channel, message: Message) => unknown;
  onPing?: (socket: Channel, data: Uint8Array) => unknown;
  onClose?: (socket: Channel, code: number, reason: string) => unknown;
}

/** Accepts the WebSocket a request asks for; a request that asks for none is answered 426. */
export interface WebSocketResponse {
  websocket: WebSocketListener;
  /** Subprotocol, one of those the client offers. */
  protocol?: string;
}

export function isListenerResponse(value: unknown): value is WebSocketResponse {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as Partial<WebSocketResponse>).websocket === 'object' &&
    (value as Partial<WebSocketResponse>).websocket !== null
  );
}

export function openListener(req: HttpRequest, { websocket, protocol }: WebSocketResponse): void {
  if (!req.isWebSocket) {
    asChannel(req).send({
      status: 426,
      headers: { upgrade: 'websocket', 'content-type': 'text/plain; charset=utf-8' },
      body: 'This is a WebSocket',
    });
    return;
  }
  asChannel(req, {
    ...(protocol !== undefined && { protocol }),
    onOpen: (socket) => websocket.onOpen?.(socket),
    onReceive: (socket, message) => websocket.onMessage?.(socket, message),
    onPing: (socket, data) => websocket.onPing?.(socket, data),
    onClose: (socket, _status, { code, reason }) => websocket.onClose?.(socket, code, reason),
  });
}
