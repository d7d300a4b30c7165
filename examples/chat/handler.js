// The people in a room may be connected to any worker: what is published under a topic reaches them all.
import { asChannel, file, publish } from 'offloop/handlers';

export default (req) => {
  if (!req.isWebSocket)
    return req.path === '/' ? { body: file(new URL('./index.html', import.meta.url)) } : null;

  // Browsers let any page connect to any WebSocket. Ours is for our own page.
  const { origin, host } = req.headers;
  if (origin !== undefined && !origin.endsWith(`://${host}`)) return { status: 403 };

  const query = new URLSearchParams(req.query ?? '');
  const name = query.get('name')?.trim().slice(0, 24) || 'somebody';
  const room = `room:${query.get('room') ?? ''}`;
  const say = (what) => publish(room, JSON.stringify({ name, ...what }));

  return asChannel(req, {
    topics: [room],
    onOpen: () => say({ did: 'joined' }),
    onReceive: (_channel, message) => say({ text: String(message) }),
    onClose: () => say({ did: 'left' }),
  });
};
