/** Every open channel of the process by its id, and where published data goes. Used on the I/O thread. */
import { randomInt } from 'node:crypto';
import { type ChannelLine, OP, type OpField, type Payload, type TopicHost } from './protocol.js';

export class ChannelRegistry {
  private readonly lines = new Map<string, ChannelLine>();
  readonly hosts = new Set<TopicHost>();
  /** Ids may be kept where other processes find them: one of theirs must not lead to a channel of ours. */
  private readonly mark = randomInt(36 ** 5).toString(36);
  private nextPrefix = 1;

  get size(): number {
    return this.lines.size;
  }

  /** A beginning for the ids of one thread, different from all others in this process, and in practice from those of others. */
  newPrefix(): string {
    return `${this.mark}.${(this.nextPrefix++).toString(36)}.`;
  }

  add(line: ChannelLine): void {
    this.lines.set(line.id, line);
  }
  find(id: string): ChannelLine | undefined {
    return this.lines.get(id);
  }
  delete(id: string): void {
    this.lines.delete(id);
  }

  publish(topic: string, data: string | Uint8Array, close: boolean, except: string): void {
    for (const host of this.hosts) host.publish(topic, data, close, except);
  }

  /** Do what a thread asks for. Channels that have ended meanwhile are passed over. */
  apply(op: OpField, id: string, a: OpField, b: OpField, c: OpField): void {
    if (op === OP.publish) {
      this.publish(a as string, b as string | Uint8Array, c as boolean, id);
      return;
    }
    const line = this.lines.get(id);
    if (line === undefined) return;
    switch (op) {
      case OP.answer:
        line.answer((a as number) % 1024, b as string, c as Payload, Math.floor((a as number) / 1024));
        return;
      case OP.start:
        line.start((a as number) % 1024, b as string, Math.floor((a as number) / 1024), c as number | null);
        return;
      case OP.send:
        line.send(a as string | Uint8Array, b as boolean);
        return;
      case OP.close:
        line.close(a as number, b as string);
        return;
      case OP.subscribe:
        line.subscribe(a as string);
        return;
      case OP.unsubscribe:
        line.unsubscribe(a as string);
        return;
      case OP.preset:
        line.preset((a as number) % 1024, b as string, Math.floor((a as number) / 1024));
        return;
      case OP.presetStop:
        line.presetStop((a as number) % 1024, b as string, c as Payload, Math.floor((a as number) / 1024));
        return;
      default:
        throw new Error(`unknown channel operation ${String(op)}`);
    }
  }
}

/** The one of this process. */
export const channels = new ChannelRegistry();
