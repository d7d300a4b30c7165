/** Events of channels, as invocations that nobody waits to have answered. I/O thread. */
import { copyOf, textOf } from '../bytes.js';
import { type ChannelStatus, EVENT, type Invocation } from '../protocol.js';

/** Texts of at most so many bytes travel in the record of their event; longer ones are cheaper as bytes. */
const SHORT = 4096;

/** A message as it travels: kind and rest of its record, and the body beside it. `data` is the engine's own memory. */
export function messageOf(
  data: ArrayBuffer,
  isText: boolean,
): { readonly kind: string; readonly rest: string; readonly body: Uint8Array | null } {
  if (isText && data.byteLength <= SHORT) {
    const rest = textOf(data);
    // What separates records must not be in one.
    if (!rest.includes('\0')) return { kind: EVENT.text, rest, body: null };
  }
  // The engine takes its memory back when its callback returns.
  return { kind: isText ? EVENT.longText : EVENT.binary, rest: '', body: copyOf(data) };
}

/** The rest of the record of an end. */
export function endOf(status: ChannelStatus, code: number, reason: string): string {
  return `${status}\n${code}\n${reason.replaceAll('\0', '')}`;
}

/** An event on its way to a worker. */
export class ChannelEvent implements Invocation {
  readonly isHead = false;

  constructor(
    readonly head: string,
    readonly body: Uint8Array | null,
    /** Its callback has run, or never will. */
    private readonly over?: () => void,
  ) {}

  addressOf(): string {
    return '';
  }
  answer(): void {
    this.over?.();
  }
  fail(): void {
    // The worker is gone, and the channel is closed for that reason.
    this.over?.();
  }
  refuse(): void {
    this.over?.();
  }
  openChannel(): null {
    return null;
  }
  openBody(): null {
    return null;
  }
}
