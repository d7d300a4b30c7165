import { connect, createServer, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { type Gated, HangUpTable, ReadGate } from '../src/io/read-gate.js';
import { until } from './support/server.js';

/** An exchange that notes whether its connection is read from. */
class FakeExchange implements Gated {
  waiting = true;
  reading = true;
  pauses = 0;
  resumes = 0;
  reminders = 0;
  constructor(private readonly gate: ReadGate) {}
  pauseReading(): void {
    this.reading = false;
    this.pauses++;
  }
  resumeReading(): void {
    this.reading = true;
    this.resumes++;
  }
  stayOpen(): boolean {
    if (this.waiting) this.reminders++;
    return this.waiting;
  }
  /** Its answer is there. */
  answer(): void {
    this.waiting = false;
    this.gate.forget(this);
  }
}

/** A table that says what it is told to. */
class FakeTable extends HangUpTable {
  looks = 0;
  constructor(public says: boolean | undefined = false) {
    super();
  }
  override async look(): Promise<boolean | undefined> {
    this.looks++;
    return this.says;
  }
}

let table: FakeTable;
let gate: ReadGate;

/** As many exchanges, taken in one turn while `pending` answers are pending. */
function take(count: number, pending = count): FakeExchange[] {
  const exchanges = Array.from({ length: count }, () => new FakeExchange(gate));
  for (const exchange of exchanges) gate.watch(exchange, pending);
  return exchanges;
}
const one = (pending = 1): FakeExchange => take(1, pending)[0] as FakeExchange;
const paused = (exchanges: FakeExchange[]): number =>
  exchanges.filter((exchange) => !exchange.reading).length;
/** The turn ends. Nothing of the fake clock passes. */
const endOfTurn = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

describe('the read gate', () => {
  beforeEach(() => {
    vi.useFakeTimers({
      toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate', 'performance'],
    });
    table = new FakeTable();
    gate = new ReadGate(table);
  });
  afterEach(() => {
    gate.close();
    vi.useRealTimers();
  });

  it('stops reading at the end of the turn while few answers are pending', async () => {
    const exchanges = take(4);
    expect(paused(exchanges)).toBe(0);
    await endOfTurn();
    expect(paused(exchanges)).toBe(4);
  });

  it('leaves alone what was answered in the same turn', async () => {
    const exchange = one();
    exchange.answer();
    await endOfTurn();
    expect(exchange).toMatchObject({ pauses: 0, resumes: 0 });
  });

  it('reads on when the answer is there, once', async () => {
    const exchange = one();
    await endOfTurn();
    exchange.answer();
    exchange.answer();
    expect(exchange).toMatchObject({ reading: true, pauses: 1, resumes: 1 });
  });

  it('leaves cheap requests of a busy server alone, and pauses those that take longer than five to ten milliseconds', async () => {
    const exchanges = take(10);
    await endOfTurn();
    expect(paused(exchanges)).toBe(0);
    await vi.advanceTimersByTimeAsync(4);
    for (const exchange of exchanges.slice(0, 6)) exchange.answer();
    expect(paused(exchanges)).toBe(0);
    await vi.advanceTimersByTimeAsync(7);
    expect(exchanges.map((exchange) => exchange.pauses)).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
  });

  it('gives each at least five milliseconds, whenever it comes', async () => {
    take(5, 9);
    await vi.advanceTimersByTimeAsync(4);
    const late = one(10);
    await vi.advanceTimersByTimeAsync(4);
    expect(late.reading).toBe(true);
    await vi.advanceTimersByTimeAsync(10);
    expect(late.reading).toBe(false);
  });

  it('looks for clients that have gone only while something is paused', async () => {
    await vi.advanceTimersByTimeAsync(200);
    expect(table.looks).toBe(0);
    const exchange = one();
    await vi.advanceTimersByTimeAsync(110);
    expect(table.looks).toBeGreaterThanOrEqual(4);
    exchange.answer();
    await vi.advanceTimersByTimeAsync(50);
    const { looks } = table;
    await vi.advanceTimersByTimeAsync(500);
    expect(table.looks).toBe(looks);
    expect(vi.getTimerCount()).toBe(0);
    const next = one();
    await vi.advanceTimersByTimeAsync(60);
    expect(table.looks).toBeGreaterThan(looks);
    next.answer();
  });

  it('reads on everywhere when some client has gone, for the engine to find out which', async () => {
    const exchanges = take(3);
    await endOfTurn();
    table.says = true;
    await vi.advanceTimersByTimeAsync(30);
    expect(paused(exchanges)).toBe(0);
    expect(exchanges.map((exchange) => exchange.resumes)).toEqual([1, 1, 1]);
  });

  it('reads on after a second where nobody seems to have gone', async () => {
    const exchange = one();
    await vi.advanceTimersByTimeAsync(900);
    expect(exchange.reading).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    expect(exchange.reading).toBe(true);
  });

  it('reads on after a second also where the table is so long that it is rarely looked at', async () => {
    table.look = async () => {
      table.looks++;
      await new Promise((resolve) => setTimeout(resolve, 200));
      return false;
    };
    one();
    await vi.advanceTimersByTimeAsync(300);
    const exchange = one(2);
    await vi.advanceTimersByTimeAsync(900);
    expect(exchange.reading).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    expect(exchange.reading).toBe(true);
    expect(table.looks).toBe(1);
  });

  it('looks at a table that takes long less often, and again when some time has passed', async () => {
    table.look = async () => {
      table.looks++;
      await new Promise((resolve) => setTimeout(resolve, 10));
      return false;
    };
    one();
    await vi.advanceTimersByTimeAsync(900);
    // Each takes 10 ms, and may take a fiftieth of the time.
    expect(table.looks).toBe(2);
  });

  it('reads on after a quarter of a second where nobody can look', async () => {
    table.says = undefined;
    const exchange = one();
    await vi.advanceTimersByTimeAsync(200);
    expect(exchange.reading).toBe(false);
    await vi.advanceTimersByTimeAsync(100);
    expect(exchange.reading).toBe(true);
  });

  it('keeps the engine from cutting connections that are read from again while their answers are pending', async () => {
    const exchange = one();
    await vi.advanceTimersByTimeAsync(31_000);
    expect(exchange.reading).toBe(true);
    expect(exchange.reminders).toBe(7);
    exchange.answer();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(exchange.reminders).toBe(7);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('does so for those that are released, if they were paused', async () => {
    const exchange = one();
    await endOfTurn();
    gate.release(exchange);
    expect(exchange.reading).toBe(true);
    const other = one();
    gate.release(other);
    await vi.advanceTimersByTimeAsync(9000);
    expect(exchange.reminders).toBe(2);
    expect([other.pauses, other.reminders]).toEqual([0, 0]);
  });

  it('goes on reading the connections that were paused first, and keeps the later ones', async () => {
    const first = one();
    await vi.advanceTimersByTimeAsync(600);
    const second = one(2);
    await vi.advanceTimersByTimeAsync(450);
    expect(first.reading).toBe(true);
    expect(second.reading).toBe(false);
  });

  it('leaves no timer behind when it is closed', async () => {
    take(3);
    take(10);
    await vi.advanceTimersByTimeAsync(1);
    gate.close();
    gate.close();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('leaves no timer behind when it is closed in the turn of a request', async () => {
    const exchange = one();
    gate.close();
    exchange.waiting = false;
    await vi.advanceTimersByTimeAsync(100);
    expect(exchange.pauses).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('leaves no timer behind when it is closed while it looks', async () => {
    one();
    await endOfTurn();
    let release: (() => void) | undefined;
    table.look = () =>
      new Promise((resolve) => {
        release = () => resolve(false);
      });
    await vi.advanceTimersByTimeAsync(30);
    gate.close();
    release?.();
    await vi.advanceTimersByTimeAsync(100);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('the table of connections', () => {
  /** A server that never reads, and a client of it. */
  async function pair(): Promise<{ port: number; client: Socket }> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
    const client = connect(port, '127.0.0.1');
    const socket = await accepted;
    onTestFinished(() => {
      client.destroy();
      socket.destroy();
      server.close();
    });
    return { port, client };
  }

  it.runIf(process.platform === 'linux')('tells that a client of the port has closed its side', async () => {
    const { port, client } = await pair();
    const watching = new HangUpTable();
    watching.listening(port, false);
    expect(await watching.look()).toBe(false);
    client.end();
    await until(async () => (await watching.look()) === true, 'it is seen');
  });

  it.runIf(process.platform === 'linux')('tells nothing of the clients of other ports', async () => {
    const other = await pair();
    const { port } = await pair();
    const watching = new HangUpTable();
    watching.listening(port, true);
    const control = new HangUpTable();
    control.listening(other.port, false);
    other.client.end();
    await until(async () => (await control.look()) === true, 'it is seen there');
    expect(await watching.look()).toBe(false);
  });

  it('tells nothing of a Unix domain socket, nor before the port is known', async () => {
    const watching = new HangUpTable();
    expect(await watching.look()).toBeUndefined();
    watching.listening(0, false);
    expect(await watching.look()).toBeUndefined();
  });
});
