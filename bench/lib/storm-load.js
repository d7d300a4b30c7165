// Run as a program by a ClientProcess: WebSockets that come, talk and go as they like, with the handler of handlers/storm.js on
// the other side. They see to it that every message is answered in order, and that each end has a reason.
import { setTimeout as sleep } from 'node:timers/promises';
import { answerDriver } from './serve.js';
import { seeded } from './stats.js';
import { topicOf } from './storm-books.js';
import { frame, OPCODE, sourceAddress, WsClient } from './ws-client.js';

const OPENING_AT_MOST = 128;
const TICK = 5;
/** For each connection, in a second. */
const MESSAGES = 0.4;
const DROPS = 0.04;
/** Of those that are opened, these leave before they have their answer. */
const GONE_AT_ONCE = 0.03;
/** Ms after which what was asked for is not coming any more. */
const PATIENCE = 20_000;
/** The same for a message that may be lost with the thread of its callback. */
const INSIST_AFTER = 3000;

const RESTART = 1012;
const OVERLOADED = 1013;
const AS_YOU_WISH = 4000;

let nextId = 0;

process.once('disconnect', () => process.exit());
answerDriver({ storm: (plan) => new Storm(plan).run() });

class Storm {
  /** Those that can be talked to. */
  #open = [];
  #opening = new Set();
  #leaving = new Set();
  #told = { sent: 0, answered: 0, news: 0, missing: 0, insisted: 0, kills: 0, mostOpen: 0 };
  #handshakes = {};
  #ends = {};
  #faults = {};
  /** Numbers of those whose handshake was not accepted, or that did not wait for it. */
  #unaccepted = [];

  constructor({ url, connections, seconds, killEveryMs, seed }) {
    Object.assign(this, { url, connections, seconds, killEveryMs, random: seeded(seed) });
  }

  async run() {
    const begun = nextId;
    const start = performance.now();
    await this.#until(
      () => this.#open.length >= this.connections,
      'opening them',
      () => this.#fill(),
    );
    const opened = performance.now();

    const end = opened + this.seconds * 1000;
    let killAt = opened + this.killEveryMs / 2;
    let last = opened;
    for (let now = opened; now < end; now = performance.now()) {
      this.#fill();
      this.#often(MESSAGES * this.connections * ((now - last) / 1000), () => this.#talk());
      this.#often(DROPS * this.connections * ((now - last) / 1000), () => this.#drop());
      if (now >= killAt) {
        killAt += this.killEveryMs;
        this.#kill();
      }
      last = now;
      await sleep(TICK);
    }

    await this.#until(() => this.#opening.size === 0, 'handshakes');
    let askedAt = Number.NEGATIVE_INFINITY;
    const answered = ({ sent, back }) => sent > 0 && back === sent - 1;
    await this.#until(
      () => this.#open.every(answered),
      'answers',
      () => {
        // Again: the last one may have been lost with a thread.
        if (performance.now() - askedAt < INSIST_AFTER) return;
        askedAt = performance.now();
        for (const client of this.#open) if (!answered(client)) this.#send(client, 'echo');
      },
    );
    while (this.#open.length > 0) this.#drop();
    await this.#until(() => this.#leaving.size === 0, 'ends');
    return {
      ids: nextId,
      connections: nextId - begun,
      openedInMs: opened - start,
      ...this.#told,
      handshakes: this.#handshakes,
      ends: this.#ends,
      faults: this.#faults,
      unaccepted: this.#unaccepted,
    };
  }

  // ------------------------------------------------------------------------------------------------ what they do

  #fill() {
    while (this.#opening.size < OPENING_AT_MOST && this.#opening.size + this.#open.length < this.connections)
      this.#begin();
  }

  #begin() {
    const id = nextId++;
    const kind = this.random() < 0.5 ? 'pinned' : 'defined';
    const client = new WsClient({ url: this.url, path: `/${kind}/${id}`, from: sourceAddress(this.url, id) });
    // `sent` and `back`: the next number, and the last one that was answered. `reasons`: codes it may end with.
    Object.assign(client, { id, kind, sent: 0, back: -1, reasons: [RESTART, OVERLOADED], dropped: false });
    client.payloads = true;
    this.#opening.add(client);
    client.onOpen = () => {
      this.#count(this.#handshakes, 101);
      this.#opening.delete(client);
      client.place = this.#open.push(client) - 1;
      this.#told.mostOpen = Math.max(this.#told.mostOpen, this.#open.length);
    };
    client.onMessage = (_client, _length, _opcode, payload) => this.#heard(client, payload.toString());
    client.onClose = () => this.#closed(client);
    if (this.random() < GONE_AT_ONCE) {
      client.dropped = true;
      setTimeout(() => client.socket.resetAndDestroy(), 3 * this.random());
    }
  }

  #talk() {
    const client = this.#anyone();
    if (client === undefined) return;
    const what = this.random();
    if (what < 0.05) this.#send(client, 'publish', false);
    else if (what < 0.15) this.#send(client, 'later');
    else for (let left = 1 + 3 * this.random(); left >= 1; left--) this.#send(client, 'echo');
  }

  #send(client, word, numbered = true) {
    client.write(frame(OPCODE.text, numbered ? `${word} ${client.sent++}` : word));
    this.#told.sent++;
  }

  #drop() {
    const client = this.#anyone();
    if (client === undefined) return;
    this.#forget(client);
    this.#leaving.add(client);
    const how = this.random();
    // Some have just said something.
    if (this.random() < 0.3) this.#send(client, 'echo');
    if (how < 0.25) {
      client.reasons.push(4001);
      client.close(4001);
    } else if (how < 0.5) {
      client.reasons.push(AS_YOU_WISH);
      this.#send(client, 'close', false);
      // A defined channel lives on when the thread dies that was about to obey.
      if (client.kind === 'defined') setTimeout(() => this.#insist(client), INSIST_AFTER);
    } else {
      client.dropped = true;
      if (how < 0.75) client.socket.destroy();
      else client.socket.resetAndDestroy();
    }
  }

  #insist(client) {
    if (!client.isOpen) return;
    this.#told.insisted++;
    client.reasons.push(4001);
    client.close(4001);
  }

  #kill() {
    const client = this.#anyone();
    if (client === undefined) return;
    this.#send(client, this.#told.kills++ % 2 === 0 ? 'exit' : 'spin', false);
  }

  #anyone() {
    return this.#open[Math.floor(this.random() * this.#open.length)];
  }

  /** Out of the list in one step: the last one takes its place. */
  #forget(client) {
    if (this.#open[client.place] !== client) return;
    const other = this.#open.pop();
    if (other === client) return;
    this.#open[client.place] = other;
    other.place = client.place;
  }

  // ----------------------------------------------------------------------------------------------- what they hear

  #heard(client, text) {
    const [word, last] = text.split(' ');
    const number = Number(last);
    if (word === 'news') {
      this.#told.news++;
      if (topicOf(number) !== topicOf(client.id)) this.#fault('news of another topic');
      return;
    }
    this.#told.answered++;
    if (number <= client.back || number >= client.sent) this.#fault('answers out of order');
    // A message whose callback ran in a thread that died is lost; a channel that lived there is as well.
    const missing = number - client.back - 1;
    this.#told.missing += missing;
    if (missing > 0 && client.kind === 'pinned') this.#fault('answers missing');
    client.back = number;
  }

  #closed(client) {
    const { id, status, code, error, dropped, reasons } = client;
    this.#leaving.delete(client);
    this.#forget(client);
    if (this.#opening.delete(client)) {
      this.#unaccepted.push(id);
      this.#count(this.#handshakes, dropped ? 'left' : status || error || 'cut');
      if (!dropped && ![500, 503, 504].includes(status))
        this.#fault(`handshake: ${status || error || 'cut'}`);
      return;
    }
    this.#count(this.#ends, dropped ? 'left' : code);
    if (!dropped && !reasons.includes(code)) this.#fault(`end: ${code}${error ? ` ${error}` : ''}`);
  }

  // ------------------------------------------------------------------------------------------------------ helpers

  #often(times, what) {
    for (let left = times; left > this.random(); left--) what();
  }

  #count(tally, what) {
    tally[what] = (tally[what] ?? 0) + 1;
  }

  #fault(what) {
    this.#count(this.#faults, what);
  }

  async #until(condition, what, meanwhile = () => {}) {
    const deadline = performance.now() + PATIENCE;
    while (!condition()) {
      if (performance.now() > deadline) {
        this.#fault(`waited in vain for ${what}`);
        return;
      }
      meanwhile();
      await sleep(TICK);
    }
  }
}
