/**
 * Sends a ping every `interval` ms and keeps the samples of the last `span` ms: { at, ms, refused }.
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
    setInterval(() => this.ping(), interval);
  }

  async ping() {
    if (this.sentAt !== null || document.hidden) return;
    const sentAt = performance.now();
    this.sentAt = sentAt;
    try {
      const answer = await fetch(this.url, { cache: 'no-store' });
      const now = performance.now();
      await answer.text();
      for (let due = sentAt; due === sentAt || due < now - this.interval; due += this.interval) {
        this.samples.push({ at: due, ms: now - due, refused: answer.status === 503 });
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

  /** Of the answered ones, and of the one that is still out once it has waited longer than that. */
  quantile(q, now) {
    const times = this.samples.filter((sample) => !sample.refused).map((sample) => sample.ms);
    for (let due = this.sentAt; due !== null && due < now - this.interval; due += this.interval) times.push(now - due);
    if (times.length === 0) return null;
    times.sort((a, b) => a - b);
    return times[Math.min(times.length - 1, Math.floor(q * times.length))];
  }
}
