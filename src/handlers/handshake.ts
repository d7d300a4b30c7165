/** Whether a request for a WebSocket is one that can be granted: the engine grants almost anything with a key. */
import type { HttpRequest } from './types.js';

/** How a bad handshake is answered. */
export interface HandshakeProblem {
  readonly status: 400 | 405 | 426;
  readonly text: string;
  readonly headers: Record<string, string>;
}

const hasToken = (value: string | undefined, token: string): boolean =>
  value?.split(',').some((part) => part.trim().toLowerCase() === token) === true;

/** Check a handshake against RFC 6455, 4.2.1. Undefined when it is good. */
export function handshakeProblem(req: HttpRequest): HandshakeProblem | undefined {
  const { headers } = req;
  if (req.method !== 'GET')
    return { status: 405, text: 'A WebSocket handshake is a GET request', headers: { allow: 'GET' } };
  if (!hasToken(headers['upgrade'], 'websocket') || !hasToken(headers['connection'], 'upgrade')) {
    return { status: 400, text: 'Bad Upgrade or Connection header', headers: {} };
  }
  if (headers['sec-websocket-version'] !== '13')
    return {
      status: 426,
      text: 'WebSocket version 13 is required',
      headers: { upgrade: 'websocket', 'sec-websocket-version': '13' },
    };
  const key = headers['sec-websocket-key'] ?? '';
  // 16 bytes in canonical base64: 22 characters of which the last has four bits, and two of padding.
  if (!/^[A-Za-z0-9+/]{21}[AQgw]==$/.test(key))
    return { status: 400, text: 'Bad Sec-WebSocket-Key header', headers: {} };
  return undefined;
}
