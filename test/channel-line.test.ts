import { describe, expect, it, vi } from 'vitest';
import { type ChannelHost, WebSocketLine } from '../src/io/channel.js';
import type { EngineWebSocket } from '../src/io/engine.js';
import type { ChannelOwner } from '../src/protocol.js';
import { until } from './support/server.js';

/** A WebSocket whose upgrade is running, and what its owner and its server have been told. */
function upgrading() {
  const told: string[] = [];
  const host = {
    channelClosed: () => void told.push('server: closed'),
    broken: (error: unknown) => void told.push(`broken: ${String(error)}`),
  };
  const owner = {
    closed: (_line: unknown, status: string, code: number, reason: string) =>
      void told.push(`owner: ${status} ${code} ${reason}`),
  };
  const line = new WebSocketLine('id', owner as unknown as ChannelOwner, host as unknown as ChannelHost);
  const touched = vi.fn(() => 1);
  const native = new Proxy({}, { get: () => touched }) as EngineWebSocket;
  const returned = () => line.opened({ opened: native, publishElsewhere: touched });
  return { line, told, touched, returned };
}
const NO_REASON = new ArrayBuffer(0);

describe('a WebSocket whose connection breaks', () => {
  it('when it is open: its owner is told at once, and once', () => {
    const { line, told, returned } = upgrading();
    returned();
    line.closed(1006, NO_REASON);
    line.closed(1006, NO_REASON);
    expect(told).toEqual(['owner: going-away 1006 ', 'server: closed']);
  });

  it('while it is upgraded: its owner is told when it knows the line, and nothing is sent to what is gone', async () => {
    const { line, told, touched, returned } = upgrading();
    line.closed(1006, NO_REASON);
    returned();
    expect(told).toEqual([]);
    line.send('welcome', true);
    line.subscribe('news');
    line.publishToOthers('news', 'somebody has come');
    line.together(() => line.send('and', false));
    line.close(1000, '');
    line.stop();
    await until(() => told.length > 0, 'its owner is told');
    expect(told).toEqual(['owner: going-away 1006 ', 'server: closed']);
    expect(touched).not.toHaveBeenCalled();
  });
});
