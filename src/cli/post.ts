/** What the processes of one server say to each other, and how: through the one that has started them, and bounded. */
import type { ChildProcess } from 'node:child_process';
import type { ServerStats } from '../index.js';

/** Published data, on its way to the channels of other processes. */
export interface Published {
  readonly kind: 'publish';
  readonly topic: string;
  readonly data: string | Uint8Array;
  readonly close: boolean;
}

/** From a process to its supervisor. */
export type Report =
  | { readonly kind: 'listening'; readonly url: string }
  /** It could not start; the explanation is for whoever has started the supervisor. */
  | { readonly kind: 'failed'; readonly code: number; readonly text: string }
  /** The numbers it was asked for. */
  | { readonly kind: 'stats'; readonly stats: ServerStats }
  /** Asks for the numbers of all. */
  | { readonly kind: 'collect' }
  | Published;

/** From the supervisor to a process. */
export type Order =
  /** Another has taken its place: serve the connections that are left, and end. */
  | { readonly kind: 'leave' }
  | { readonly kind: 'stats' }
  | { readonly kind: 'collected'; readonly stats: unknown }
  | Published;

/**
 * Ms for which a process that is replaced answers over connections that are open. The engine closes one on which nothing happens after 10 s,
 * so none is left then on which a client could be about to send.
 */
export const LEAVE_GRACE = 11_000;

/** Bytes of published data that may wait for a process that does not read; what comes then is dropped for it. */
const MOST = 16 * 1024 * 1024;
/** What a message costs besides its data, roughly. */
const EACH = 200;

/** One end of the pipe to another process. */
export class Post<Message extends { readonly kind: string }> {
  /** Messages dropped because the other side does not read. */
  dropped = 0;
  private waiting = 0;
  private full = false;

  /** `onFull` is called when dropping begins, each time. */
  constructor(
    private readonly to: Pick<ChildProcess, 'send' | 'connected'>,
    private readonly onFull: () => void,
  ) {}

  send(message: Message): void {
    if (this.to.connected) this.to.send(message, undefined, undefined, ignore);
  }

  /** Drops it when too much waits: whoever does not read holds up nobody else. */
  publish(message: Message & Published): void {
    const { topic, data } = message;
    const size = EACH + topic.length + (typeof data === 'string' ? data.length * 2 : data.byteLength);
    if (!this.to.connected) return;
    // One message of any size goes if nothing waits.
    if (this.waiting > 0 && this.waiting + size > MOST) {
      this.dropped++;
      if (!this.full) {
        this.full = true;
        this.onFull();
      }
      return;
    }
    this.waiting += size;
    this.to.send(message, undefined, undefined, () => {
      this.waiting -= size;
      if (this.waiting < MOST / 2) this.full = false;
    });
  }
}

// It has gone: its exit is dealt with elsewhere.
const ignore = (): void => undefined;
