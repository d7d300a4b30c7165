// PUT /name hashes what it is sent, as it comes. GET /name says how far it is: the two may be in different workers.
import { createHash } from 'node:crypto';
import { eventStream, file, formatEvent, json, publish, text } from 'offloop/handlers';

const STEP = 1024 * 1024;

export default async function handler(req) {
  if (req.path === '/') return { body: file(new URL('./index.html', import.meta.url)) };
  const topic = /^\/[\w-]{1,64}$/.exec(req.path)?.[0];
  if (topic === undefined) return text('a name has letters, digits, _ and -\n', { status: 404 });
  if (req.method === 'GET') return eventStream(req, { topics: [topic] });
  if (req.method !== 'PUT') return { status: 405, headers: { allow: 'GET, PUT' } };

  const hash = createHash('sha256');
  let size = 0;
  let told = 0;
  for await (const chunk of req.body ?? []) {
    hash.update(chunk);
    size += chunk.byteLength;
    if (size < told + STEP) continue;
    told = size;
    publish(topic, formatEvent({ event: 'progress', data: JSON.stringify({ size, of: req.contentLength }) }));
  }
  const done = { size, sha256: hash.digest('hex') };
  publish(topic, formatEvent({ event: 'done', data: JSON.stringify(done) }), { close: true });
  return json(done);
}
