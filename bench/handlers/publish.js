import '../lib/lane-count.js';
import { asChannel, publish } from '../../dist/handlers/index.js';

const news = 'n'.repeat(Number(process.env.BENCH_BYTES));

/** Who connects has subscribed, and a message on `/trigger` says how often to publish. */
export default (req) =>
  asChannel(req, {
    topics: req.path === '/trigger' ? [] : ['news'],
    onReceive: (_channel, times) => {
      for (let left = Number(times); left > 0; left--) publish('news', news);
    },
  });
