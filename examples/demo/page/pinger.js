performance.addEventListener('resourcetimingbufferfull', () => performance.clearResourceTimings());

/**
 * Sends a ping every `interval` ms and keeps the samples of the last `span` ms: { at, ms, refused }.
 *
 * The times are the browser's own: from the moment the request left it to the first byte of the answer (Resource
 * Timing). What the page itself waits for a core before and after, while all of them are busy, is not the server's doing.
 *
 * Pings are due on a fixed schedule. One that could not be sent because the one before was still out is counted from
 * the moment it was due, as if somebody else had sent it; otherwise a server that hangs for a second would show up as a
 * single slow ping, when in truth it kept everyone waiting who came in that second.
 */
export class Pinger {
  constructor(url, interval, span) {
    this.url = url;
    this.interval = interval;
    this.span = span;
    this.samples = [];
    this.sentAt = null; // of the ping that is out
    this.count = 0;
    setInterval(() => this.ping(), interval);
  }

  async ping() {
    if (this.sentAt !== null || document.hidden) return;
    const url = `${this.url}?${this.count++}`;
    this.sentAt = performance.now();
    try {
      const answer = await fetch(url, { cache: 'no-store' });
      await answer.text();
      // The entry is there a task later.
      await new Promise((resolve) => setTimeout(resolve));
      const timing = performance.getEntriesByName(new URL(url, location.href).href)[0];
      const from = timing?.requestStart || this.sentAt;
      const to = timing?.responseStart || performance.now();
      for (let due = from; due === from || due < to - this.interval; due += this.interval) {
        this.samples.push({ at: due, ms: to - due, refused: answer.status === 503 });
      }
    } catch {
      // The server is gone; the page says so elsewhere.
    } finally {
      this.sentAt = null;
    }
  }

  forget(now) {
    while (this.samples.length > 0 && this.samples[0].at < now - this.span) this.samples.shift();
  }

  get refused() {
    return this.samples.filter((sample) => sample.refused).length;
  }

  /** Of the pings answered that were due after `since`, and of the one that is out once it has waited for an interval. */
  quantile(q, now, since) {
    const answered = this.samples.filter((sample) => !sample.refused && sample.at >= since);
    const times = answered.map((sample) => sample.ms);
    for (let due = this.sentAt; due !== null && due < now - this.interval; due += this.interval)
      times.push(now - due);
    if (times.length === 0) return null;
    times.sort((a, b) => a - b);
    return times[Math.min(times.length - 1, Math.floor(q * times.length))];
  }
}
