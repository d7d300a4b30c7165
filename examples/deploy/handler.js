// Shows what arrives behind a proxy. Runs on a worker thread.
import { createHash } from 'node:crypto';
import { asChannel, json } from 'offloop/handlers';

export default async (req) => {
  const { method, path, scheme, serverName, remoteAddr } = req;
  if (req.isWebSocket) return asChannel(req, { onReceive: (channel, data) => void channel.send(data) });
  if (path === '/slow') {
    console.log('/slow waits');
    await new Promise((resolve) => req.signal.addEventListener('abort', resolve));
    console.log('the client of /slow has gone');
    return null;
  }
  let size = 0;
  const hash = createHash('sha1');
  for await (const chunk of req.body ?? []) {
    size += chunk.length;
    hash.update(chunk);
  }
  return json({ method, path, scheme, serverName, remoteAddr, size, sha1: hash.digest('hex') });
};
