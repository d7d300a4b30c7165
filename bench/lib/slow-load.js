import { Agent, get } from 'node:http';

/**
 * Keeps a number of requests in flight until it is stopped: the next one leaves when the last is answered.
 * @param {string} url
 * @param {number} inFlight
 */
export function startSlowLoad(url, inFlight) {
  const agent = new Agent({ keepAlive: true, maxSockets: inFlight });
  const start = performance.now();
  let stopping = false;
  let completed = 0;
  let errors = 0;

  const one = () =>
    new Promise((resolve) => {
      get(url, { agent }, (res) => {
        if (res.statusCode === 200) completed++;
        else errors++;
        res.resume().on('close', resolve);
      }).on('error', () => {
        if (!stopping) errors++;
        resolve(undefined);
      });
    });
  const loops = Array.from({ length: inFlight }, async () => {
    while (!stopping) await one();
  });

  return {
    async stop() {
      stopping = true;
      const perSecond = completed / ((performance.now() - start) / 1000);
      agent.destroy();
      await Promise.all(loops);
      return { inFlight, completed, perSecond, errors };
    },
  };
}
