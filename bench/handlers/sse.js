import { eventStream, formatEvent, publish } from '../../dist/handlers/index.js';
import { news } from '../lib/news.js';

/** Who asks has subscribed, and a POST says how often to publish. */
export default (req) => {
  if (req.method !== 'POST') return eventStream(req, { topics: ['news'] });
  for (let left = Number(req.query); left > 0; left--) publish('news', formatEvent(news));
  return { body: 'published' };
};
