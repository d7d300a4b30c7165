import { once } from 'node:events';
import { WebSocket } from 'ws';

/** A WebSocket client that keeps what it gets, so that nothing is missed between two looks. */
export interface Socket {
  readonly socket: WebSocket;
  /** The next message, or a rejection when there is none any more. */
  readonly next: () => Promise<string>;
  /** Code and reason of its end. */
  readonly closed: Promise<[code: number, reason: string]>;
}

/** Connect to `url`, of http or ws. */
export async function connect(url: string, protocols: string[] = []): Promise<Socket> {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), protocols);
  const messages: string[] = [];
  const waiting: { resolve: (message: string) => void; reject: (error: Error) => void }[] = [];
  let over = false;
  socket.on('message', (data: Buffer) => {
    const waiter = waiting.shift();
    if (waiter === undefined) messages.push(data.toString());
    else waiter.resolve(data.toString());
  });
  const closed = new Promise<[number, string]>((resolve) => {
    socket.on('close', (code, reason) => {
      over = true;
      for (const { reject } of waiting.splice(0)) reject(new Error(`closed with ${code}`));
      resolve([code, reason.toString()]);
    });
  });
  await once(socket, 'open');
  const next = (): Promise<string> => {
    const message = messages.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (over) return Promise.reject(new Error('closed'));
    return new Promise((resolve, reject) => {
      waiting.push({ resolve, reject });
    });
  };
  return { socket, next, closed };
}
