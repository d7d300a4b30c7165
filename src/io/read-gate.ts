import { readFile } from 'node:fs/promises';

/** An exchange as the gate sees it. */
export interface Gated {
  /** Whether the answer is still to come. */
  readonly waiting: boolean;
  pauseReading(): void;
  /** Safe to call when reading is not paused. */
  resumeReading(): void;
  /** Keep the engine from cutting a connection that waits for its answer. Returns false when there is nothing to wait for. */
  stayOpen(): boolean;
  /** The gate's own: in which of its lists this is, and where. */
  gateList?: Watched[] | undefined;
  gateAt?: number;
}

/** Emptied when the answer is there: a list that kept the exchange would keep the garbage of a whole busy moment alive. */
type Watched = Gated | undefined;

/** With at most this many answers pending, each is paused at once. */
const FEW = 4;
/** With more, each is paused when its answer has not come after this many ms, or twice as many at most. */
const PAUSE_AFTER = 5;
/** Ms between looks for clients that have gone; more when looking itself takes long, see `LOOK_SHARE`. */
const LOOK_EVERY = 25;
/** Looking at the table may take one part in so many of the time. */
const LOOK_SHARE = 50;
/** Ms after which reading goes on in any case: on systems where nobody can look, and for what looking cannot see. */
const PAUSE_AT_MOST_BLIND = 250;
const PAUSE_AT_MOST = 1000;
/** Ms between reminders that an answer is still pending: the engine cuts a connection 10 s after reading has gone on. */
const REMIND_EVERY = 4000;

/**
 * Stops reading from connections whose answer is pending. The engine closes a connection when a second request arrives
 * while the first is unanswered, so a client that pipelines would lose both; unread, the second one waits its turn.
 *
 * Pausing has two prices. It takes half a dozen system calls, half as much as the whole of a cheap request: so when many
 * answers are pending, only those are paused that take longer than a busy server needs for a cheap one. And a paused socket does not
 * tell that its client has hung up: so while anything is paused, the kernel's table of connections is looked at now and
 * then, and when some client of this port has closed its side, reading goes on and the engine finds out which.
 */
export class ReadGate {
  /** Watched since the timer last fired, and between that and the time before. */
  private later: Watched[] = [];
  private older: Watched[] = [];
  /** Where in `later` this turn begins. */
  private turn = 0;
  /** Answers pending when the last of this turn's requests was taken. */
  private pending = 0;
  private readonly paused = new Map<Gated, number>();
  private turnScheduled = false;
  private laterTimer: NodeJS.Timeout | undefined;
  private lookTimer: NodeJS.Timeout | undefined;
  private looking = false;
  /** When the table may be looked at again. */
  private lookAt = 0;
  /** Read from again while their answers are pending. */
  private readonly resumed = new Set<Gated>();
  private remindTimer: NodeJS.Timeout | undefined;
  private readonly table: HangUpTable;

  constructor(table: HangUpTable = new HangUpTable()) {
    this.table = table;
  }

  /** The port being served, as soon as it is known; 0 for a Unix socket. */
  listening(port: number, ipv6: boolean): void {
    this.table.listening(port, ipv6);
  }

  /** A request has been taken and its answer is not there yet; `pending` are in that state, this one included. */
  watch(exchange: Gated, pending: number): void {
    exchange.gateList = this.later;
    exchange.gateAt = this.later.push(exchange) - 1;
    this.pending = pending;
    if (this.turnScheduled) return;
    this.turnScheduled = true;
    setImmediate(this.endOfTurn);
  }

  /** Its answer is there, or its client gone. */
  forget(exchange: Gated): void {
    if (exchange.gateList !== undefined) this.unlist(exchange, exchange.gateList);
    else if (this.paused.delete(exchange)) exchange.resumeReading();
  }

  /** The same, but its answer is still to come, or to go on: its connection is to stay open. */
  release(exchange: Gated): void {
    const wasPaused = this.paused.has(exchange);
    this.forget(exchange);
    if (wasPaused) this.keepOpen(exchange);
  }

  /** Reading from its connection has gone on while its answer is still to come, or to go on. */
  keepOpen(exchange: Gated): void {
    this.resumed.add(exchange);
    this.remindTimer ??= setTimeout(this.remind, REMIND_EVERY).unref();
  }

  private readonly remind = (): void => {
    for (const exchange of this.resumed) if (!exchange.stayOpen()) this.resumed.delete(exchange);
    this.remindTimer = this.resumed.size > 0 ? setTimeout(this.remind, REMIND_EVERY).unref() : undefined;
  };

  private unlist(exchange: Gated, list: Watched[]): void {
    list[exchange.gateAt as number] = undefined;
    exchange.gateList = undefined;
  }

  close(): void {
    clearTimeout(this.laterTimer);
    clearTimeout(this.lookTimer);
    clearTimeout(this.remindTimer);
    this.resumed.clear();
    this.paused.clear();
  }

  private readonly endOfTurn = (): void => {
    this.turnScheduled = false;
    if (this.pending <= FEW) this.pauseAll(this.later.splice(this.turn));
    this.turn = this.later.length;
    if (this.turn > 0) this.laterTimer ??= setTimeout(this.pauseLate, PAUSE_AFTER);
  };

  private readonly pauseLate = (): void => {
    const due = this.older;
    this.older = this.later;
    this.later = [];
    this.turn = 0;
    this.pauseAll(due);
    this.laterTimer = this.older.length > 0 ? setTimeout(this.pauseLate, PAUSE_AFTER) : undefined;
  };

  private pauseAll(list: readonly Watched[]): void {
    for (const exchange of list) {
      if (exchange === undefined) continue;
      exchange.gateList = undefined;
      this.pause(exchange);
    }
  }

  private pause(exchange: Gated): void {
    if (!exchange.waiting) return;
    exchange.pauseReading();
    this.paused.set(exchange, performance.now());
    if (!this.looking) this.lookSoon();
  }

  // ------------------------------------------------------------------------------------------------------- looking

  private lookSoon(): void {
    this.looking = true;
    this.lookTimer = setTimeout(() => void this.look(), LOOK_EVERY);
    this.lookTimer.unref();
  }

  private async look(): Promise<void> {
    const began = performance.now();
    let someoneHungUp: boolean | undefined = false;
    if (began >= this.lookAt) {
      someoneHungUp = await this.table.look();
      const took = performance.now() - began;
      this.lookAt = began + took * (1 + LOOK_SHARE);
    }
    const now = performance.now();
    const atMost = someoneHungUp === undefined ? PAUSE_AT_MOST_BLIND : PAUSE_AT_MOST;
    // In insertion order, so the longest paused come first. Their time is up whether the table has been looked at or not.
    for (const [exchange, since] of this.paused) {
      if (someoneHungUp !== true && now - since < atMost) break;
      this.release(exchange);
    }
    if (this.paused.size === 0) this.looking = false;
    else this.lookSoon();
  }
}

/** Linux's table of TCP connections: says whether a client has closed its side of a connection to a port of ours. */
export class HangUpTable {
  private files: string[] = [];
  private closeWait: RegExp | undefined;

  listening(port: number, ipv6: boolean): void {
    if (port === 0 || process.platform !== 'linux') return;
    this.files = ipv6 ? ['/proc/self/net/tcp', '/proc/self/net/tcp6'] : ['/proc/self/net/tcp'];
    // local address:port, remote address:port, state; 08 is CLOSE_WAIT (net/tcp_states.h).
    const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
    this.closeWait = new RegExp(`:${hexPort} [0-9A-F]+:[0-9A-F]{4} 08 `);
  }

  /** undefined = there is no way to know. */
  async look(): Promise<boolean | undefined> {
    const { closeWait } = this;
    if (closeWait === undefined) return undefined;
    try {
      for (const file of this.files) if (closeWait.test(await readFile(file, 'latin1'))) return true;
      return false;
    } catch {
      this.closeWait = undefined;
      return undefined;
    }
  }
}
