import { inspect } from 'node:util';
import { keepable } from '../bytes.js';
import { OffloopError, REFUSALS, type Refusal } from '../errors.js';
import {
  type Accept,
  type Accepted,
  type Answer,
  ASK_ADDRESS,
  type BodyLine,
  type BodyOwner,
  type ChannelLine,
  type ChannelOwner,
  FLAG_CLOSE,
  type Invocation,
  type PackedHead,
  type Payload,
  type RefusalDetail,
  type RefusalReason,
} from '../protocol.js';
import { BodyFlow, type FlowOwner, STREAM_FROM } from './body-flow.js';
import { type BodyExchange, ResponseBody } from './body-line.js';
import { BodyWriter, type Writing } from './body-writer.js';
import {
  type ChannelHost,
  type ServerLine,
  type StreamExchange,
  StreamLine,
  WebSocketLine,
} from './channel.js';
import type { EngineResponse, UpgradeContext, Via } from './engine.js';
import { Leftover, type LeftoverOwner } from './leftover.js';
import type { Gated } from './read-gate.js';
import type { RequestReader } from './request-reader.js';
import type { ResponseWriter } from './response-writer.js';
import type { Mount } from './router.js';

/** What an exchange needs of the server it belongs to. */
export interface ExchangeHost extends ChannelHost {
  readonly stopping: boolean;
  readonly development: boolean;
  readonly writer: ResponseWriter;
  watch(exchange: Exchange): void;
  /** Reading goes on, and the answer has not ended. */
  keepOpen(exchange: Exchange): void;
  /** Reading is paused and may go on. */
  forget(exchange: Exchange): void;
  /** It need not be paused any longer, and is not over. */
  release(exchange: Exchange): void;
  /** The exchange is over: answered to the last byte, or its client gone. `large`: the engine may still hold some of it. */
  finished(large: boolean): void;
  answered(status: number, flags: number): void;
  refused(status: number, event: Refusal['event']): void;
  failed(request: string, error: unknown): void;
  /** Something of ours threw. */
  broken(error: unknown): void;
}

/** Bodies from this many bytes on are written as fast as the client reads, instead of being copied into the engine. */
const LARGE = 128 * 1024;
/** The same behind which the connection is closed: when the server stops, nothing may be left in the engine. */
const LARGE_LAST = 16 * 1024;

/** Ms after which a client that takes nothing of a streamed answer is cut while its body waits; otherwise the engine does that. */
const STALLED = 10_000;

/**
 * Bytes that an upgrade frees behind what the connection keeps, by build of the engine and where its memory lies: rarest in 20.30
 * first, since less can happen between the last of them and the upgrade.
 */
const FREED = [72, 104, 88];

const TEXT_HEAD = 'content-type: text/plain; charset=utf-8';

/**
 * One request and its response. Lives on the I/O thread from the engine's callback until the answer has been written
 * or the client is gone; owns the native response, which is dead from then on, and its abort hook.
 */
export class Exchange
  implements Invocation, Gated, FlowOwner, LeftoverOwner, StreamExchange, BodyExchange, Writing
{
  /** Where it goes; set when it has been routed. */
  mount!: Mount;

  private accepted: Accepted | null = null;
  private hooked = false;
  private answeredYet = false;
  over = false;
  /** What it has become, if its body comes bit by bit. */
  private stream: StreamLine | ResponseBody | undefined;
  private writer: BodyWriter | undefined;
  /** Its handler has taken it over as a channel, or is sending its body: answers and failures come too late. */
  private taken = false;
  private saysClose = false;
  private paused = false;
  /** The body of the request, while it comes. */
  private flow: BodyFlow | undefined;
  /** What is left of it behind the answer. */
  private leftover: Leftover | undefined;
  private stallTimer: NodeJS.Timeout | undefined;
  /** It is of no use any more: the client would go on and on. */
  private mustClose = false;
  /** Inside the engine's own callback, where everything written travels in one packet. */
  private corked = true;

  readonly isHead: boolean;
  private readonly method: string;
  private readonly path: string;
  private readonly query: string;
  private readonly headers: string;
  private readonly wantsClose: boolean;
  private packed: PackedHead | undefined;
  gateList: Gated['gateList'];
  gateAt = 0;

  constructor(
    private readonly host: ExchangeHost,
    private readonly res: EngineResponse,
    reader: RequestReader,
    private readonly upgradeContext?: UpgradeContext,
    private readonly via?: Via,
  ) {
    this.method = reader.method;
    this.path = reader.path;
    this.query = reader.query;
    this.headers = reader.headers;
    this.isHead = reader.method === 'HEAD';
    // A WebSocket that is refused: what its client does with the connection is anybody's guess. http-kit closes it too.
    this.wantsClose = reader.wantsClose || upgradeContext !== undefined;
  }

  get head(): PackedHead {
    if (this.packed === undefined) {
      const { via, mount } = this;
      const address =
        via !== undefined
          ? via.address
          : mount.wantsAddress && !this.over
            ? remoteAddress(this.res)
            : ASK_ADDRESS;
      const line = via?.secure === true ? mount.line.replace(/^https?/, 'https') : mount.line;
      this.packed = `${this.method}\n${this.path}\n${this.query}\n${address}\n${line}${this.headers}`;
    }
    return this.packed;
  }

  // -------------------------------------------------------------------------------------------------------- taking

  /** Run the request. Call in the engine's callback for the head. `length` of the body, -1 when it is not known. */
  begin(hasBody: boolean, length: number): void {
    if (hasBody) {
      this.hook();
      const { maxBody, streamBody } = this.mount;
      // An upgrade is answered when all of the request is here.
      const upgrades = this.upgradeContext !== undefined;
      this.flow = new BodyFlow(this.res, this, {
        most: upgrades ? Math.min(maxBody, STREAM_FROM) : maxBody,
        readyFrom: streamBody && !upgrades ? 0 : STREAM_FROM,
        declared: length,
        crossesThreads: this.mount.dispatcher.crossesThreads,
      });
      if (streamBody && !upgrades) this.dispatch();
    } else {
      this.dispatch();
    }
    this.corked = false;
  }

  get body(): Uint8Array | null {
    return this.flow === undefined ? null : this.flow.whole;
  }
  get incoming(): BodyFlow | null {
    return this.flow?.flows === true ? this.flow : null;
  }

  bodyReady(): void {
    if (this.upgradeContext !== undefined) {
      this.dispatchLater();
    } else {
      this.corked = true;
      this.dispatch();
    }
  }

  /** An upgrade takes memory away with which the engine goes on when it has told of the last of a body. */
  private dispatchLater(): void {
    setImmediate(() => {
      try {
        this.dispatch();
      } catch (error) {
        this.rescue(error);
      }
    });
  }

  bodyTooLarge(size: number, most: number): void {
    this.corked = true;
    this.refuseAndLinger(REFUSALS.bodyTooLarge(size, most));
    this.corked = false;
  }

  bodyEnded(resumed: boolean): void {
    if (this.over) return;
    if (this.leftover !== undefined) {
      this.corked = true;
      this.leftover.ended();
      this.corked = false;
    } else {
      if (resumed) this.host.keepOpen(this);
      this.watch();
    }
  }

  bodyEndless(): void {
    this.leftover?.endless();
  }

  private dispatch(): void {
    if (this.over) return;
    const accepted = this.mount.dispatcher.dispatch(this);
    // An inline handler has answered by now, if it could, and whatever was not accepted has been refused.
    if (!this.answeredYet) {
      this.hook();
      this.accepted = accepted;
    }
    this.watch();
    this.corked = false;
  }

  /** Do not read on for the time being. A channel is read from as long as it is open: it has to notice that its client has gone. */
  private watch(): void {
    // A body has a brake of its own.
    if (this.waiting && !(this.stream instanceof StreamLine) && this.flow?.ended !== false)
      this.host.watch(this);
  }

  /** The abort hook: from here on the engine may take the response away at any time. */
  private hook(): void {
    if (this.hooked) return;
    this.hooked = true;
    this.res.onAborted(() => {
      if (this.over) return;
      this.over = true;
      clearTimeout(this.stallTimer);
      this.leftover?.forget();
      try {
        this.flow?.over('gone');
        if (this.paused || this.gateList !== undefined) this.host.forget(this);
        if (this.stream === undefined) this.accepted?.cancel();
        else this.stream.gone();
      } catch (error) {
        this.host.broken(error);
      }
      this.host.finished(false);
    });
  }

  /** Last resort when something of ours threw in the engine's callback: never let it return unhooked. */
  rescue(error: unknown): void {
    this.host.broken(error);
    if (this.over || this.answeredYet) return;
    this.hook();
    this.fail(error);
  }

  addressOf(): string {
    if (this.via !== undefined) return this.via.address;
    if (this.over) return '';
    this.mount.wantsAddress = true;
    return remoteAddress(this.res);
  }

  // ----------------------------------------------------------------------------------------------------- answering

  /**
   * The handler has opened a channel: from now on its line is the way to the client.
   */
  openChannel(id: string, owner: ChannelOwner, accept: Accept | null): ChannelLine | null {
    if (this.over || this.answeredYet || this.taken) return null;
    this.taken = true;
    this.hook();
    if (accept === null) {
      if (this.paused || this.gateList !== undefined) this.host.release(this);
      const stream = new StreamLine(id, owner, this.host, this);
      this.stream = stream;
      this.host.channelOpened(stream);
      this.stopSoon(stream);
      return stream;
    }
    if (this.paused || this.gateList !== undefined) this.host.forget(this);
    const line = new WebSocketLine(id, owner, this.host);
    this.upgrade(line, accept);
    if (!this.over) return null;
    this.stopSoon(line);
    return line;
  }

  /** A channel that is opened while the server stops comes too late to be told: it has this turn for what it wants to say. */
  private stopSoon(line: ServerLine): void {
    if (this.host.stopping) setImmediate(() => line.stop());
  }

  private upgrade(line: WebSocketLine, { head, protocol }: Accept): void {
    const { res, upgradeContext } = this;
    try {
      if (upgradeContext === undefined) throw new Error('the engine cannot upgrade this request');
      this.host.answered(101, 0);
      const key = this.field('sec-websocket-key');
      const extensions = this.field('sec-websocket-extensions');
      // Without lines of ours the engine's own status does, and everything leaves in one packet.
      if (head !== '') this.inCork(() => void res.writeStatus(`101 Switching Protocols\r\n${head}`));
      this.answeredYet = true;
      // The response is dead from here on; the connection is open as long as the channel is.
      this.over = true;
      this.host.channelOpened(line);
      const upgrade = res.upgrade.bind(res, { line }, key, protocol, extensions, upgradeContext.native);
      if (this.corked) upgrade();
      else corkUpgrade(res, upgrade);
      line.opened(upgradeContext.last);
    } catch (error) {
      this.host.broken(error);
    }
  }

  private field(name: string): string {
    const lines = this.headers.split('\n');
    for (let i = 1; i < lines.length; i += 2) if (lines[i] === name) return lines[i + 1] as string;
    return '';
  }

  // -------------------------------------------------------------------------------------------------------- stream

  /** The handler sends its body bit by bit: from now on this is the way to the client. */
  openBody(owner: BodyOwner): BodyLine | null {
    if (this.over || this.answeredYet || this.taken) return null;
    this.taken = true;
    this.hook();
    const body = new ResponseBody(owner, this);
    this.stream = body;
    return body;
  }

  startStream(status: number, head: string, flags: number, length: number | null): void {
    if (this.over) return;
    this.answeredYet = true;
    this.saysClose = (flags & FLAG_CLOSE) !== 0;
    this.writer = new BodyWriter(
      this.res,
      this,
      () => {
        this.host.answered(status, flags);
        this.host.writer.begin(this.res, status, head, flags, this.closing);
      },
      length,
      this.host.secure || this.via !== undefined,
    );
  }

  writeStream(data: string | Uint8Array): boolean {
    if (this.over || this.writer === undefined) return true;
    return this.writer.write(data);
  }

  get closing(): boolean {
    return this.wantsClose || this.saysClose || this.mustClose || this.host.stopping;
  }
  get cutting(): boolean {
    return this.mustClose;
  }

  get answerWaits(): boolean {
    return this.writer?.full === true;
  }
  tryWriting(): void {
    if (!this.over) this.writer?.tryOn();
  }
  stuck(): void {
    if (!this.over && this.answerWaits) this.res.close();
  }

  unsent(): void {
    if (this.over || this.flow?.ended !== false) return;
    this.flow.unsent();
    this.stallTimer ??= setTimeout(() => {
      this.stallTimer = undefined;
      this.stuck();
    }, STALLED);
  }
  moved(): void {
    clearTimeout(this.stallTimer);
    this.stallTimer = undefined;
  }

  mayComplete(then: () => void): boolean {
    const { flow } = this;
    if (flow?.ended !== false || this.mustClose) return true;
    this.leaveBody(flow).linger(() => {
      this.mustClose = !flow.ended;
      then();
    });
    return false;
  }

  cutBehind(): void {
    if (this.flow?.ended === false) this.cutWhenQuiet(this.flow);
    else this.cutStream();
  }

  /** Bytes that the engine has not been given, since the client does not read. */
  get kept(): number {
    return this.writer?.kept ?? 0;
  }

  get holdsAny(): boolean {
    return this.writer?.holdsAny ?? false;
  }

  get movedAt(): number | undefined {
    return this.writer?.movedAt;
  }

  inCork(write: () => void): void {
    if (this.corked) write();
    else this.res.cork(write);
  }

  drained(): void {
    this.flow?.sent();
    this.stream?.drained();
  }

  completing(): void {
    // While the response is not dead yet.
    if (this.paused || this.gateList !== undefined) this.host.forget(this);
  }

  broken(error: unknown): void {
    this.host.broken(error);
  }

  endStream(): void {
    if (!this.over) this.writer?.end();
  }

  cutStream(): void {
    if (this.over) return;
    this.writer?.flush();
    this.finish();
    if (this.paused || this.gateList !== undefined) this.host.forget(this);
    this.res.close();
  }

  cut(): void {
    if (this.over) return;
    this.hook();
    this.cutStream();
  }

  failStream(error: unknown): void {
    if (this.over) return;
    this.host.failed(`${this.method} ${this.path}`, error);
    this.writer?.flush();
    if (this.writer?.begun === true) {
      this.cutStream();
      return;
    }
    // The head leaves with the first of the body.
    this.answeredYet = false;
    this.turnAway(REFUSALS.failed, 0, error);
  }

  refuseStopping(): void {
    this.turnAway(REFUSALS.stopping);
  }

  refuseFailed(): void {
    this.turnAway(REFUSALS.failed);
  }

  answer(status: number, head: string, payload: Payload, flags: number): void {
    if (this.over || this.answeredYet) return;
    if (status === 413 && this.flow?.tooLarge === true) this.host.refused(status, 'serverStatus413');
    else this.host.answered(status, flags);
    this.send(status, head, payload, flags);
  }

  fail(error: unknown): void {
    if (this.taken) {
      // Its channel is the answer; but somebody should know.
      this.host.failed(`${this.method} ${this.path}`, error);
      if (this.stream instanceof StreamLine) this.stream.handlerFailed();
      return;
    }
    if (this.over || this.answeredYet) return;
    this.host.failed(`${this.method} ${this.path}`, error);
    const { stopping, failed } = REFUSALS;
    this.turnAway(isStopped(error) ? stopping : failed, 0, error);
  }

  refuse(reason: RefusalReason, { retryAfter, cause }: RefusalDetail): void {
    // A handler that is late behind its channel has answered.
    if (this.taken) return;
    this.turnAway(REFUSALS[reason], retryAfter, cause);
  }

  /** Answer in the server's own name. `retryAfter` in seconds, 0 for none. */
  turnAway({ status, text, close, event }: Refusal, retryAfter = 0, cause?: unknown): void {
    if (this.over || this.answeredYet) return;
    this.host.refused(status, event);
    const head = retryAfter > 0 ? `${TEXT_HEAD}\r\nretry-after: ${retryAfter}` : TEXT_HEAD;
    const body = this.host.development && cause !== undefined ? `${text}\n\n${stackOf(cause)}\n` : text;
    this.send(status, text === '' ? '' : head, this.own(body), close ? FLAG_CLOSE : 0);
  }

  private own(text: string): Payload {
    return this.isHead ? Buffer.byteLength(text) : text === '' ? 0 : text;
  }

  private send(status: number, head: string, payload: Payload, flags: number): void {
    this.answeredYet = true;
    if (this.flow?.ended === false) {
      this.hook();
      const kept = keepable(payload);
      this.leaveBody(this.flow).send({ status, head, payload: kept, flags }, this.host.stopping);
    } else {
      this.sendOut(status, head, payload, flags);
    }
  }

  /** The body is of no interest any more. */
  private leaveBody(flow: BodyFlow): Leftover {
    this.leftover ??= new Leftover(flow, this);
    return this.leftover;
  }

  /** @internal */
  sendNow({ status, head, payload, flags }: Answer): void {
    this.sendOut(status, head, payload, flags);
  }

  private sendOut(status: number, head: string, payload: Payload, flags: number): void {
    // Ending without a body does not count as an answer for the engine while its callback runs.
    if (payload === null || typeof payload === 'number') this.hook();
    if (this.paused || this.gateList !== undefined) this.host.forget(this);
    this.saysClose = (flags & FLAG_CLOSE) !== 0;
    if (this.flow?.tooLarge === true) this.mustClose = true;
    const close = this.closing;
    if (close && this.corked) {
      // Not in this turn, for the reason given at `refuseLater`.
      this.hook();
      this.corked = false;
      const kept = keepable(payload);
      setImmediate(() => {
        if (!this.over) this.put(status, head, kept, flags, true);
      });
      return;
    }
    this.put(status, head, payload, flags, close);
  }

  private put(status: number, head: string, payload: Payload, flags: number, close: boolean): void {
    if (close && (payload === null || (typeof payload === 'number' && payload > 0))) {
      this.closeBehind(status, head, payload, flags);
    } else if (this.corked) {
      this.write(status, head, payload, flags, close);
    } else {
      job = { exchange: this, status, head, payload, flags, close };
      this.res.cork(runJob);
    }
  }

  /** The engine cannot close behind an answer without a body: we do, on the next turn. */
  private closeBehind(status: number, head: string, length: number | null, flags: number): void {
    this.hook();
    this.inCork(() => this.host.writer.writeBareAhead(this.res, status, head, length, flags));
    setImmediate(() => {
      if (this.over) return;
      this.finish();
      this.res.close();
    });
  }

  /** @internal Runs in a callback of the engine's, so nothing may escape. */
  write(status: number, head: string, payload: Payload, flags: number, close: boolean): void {
    try {
      if (payload !== null && typeof payload !== 'number' && payload.length >= (close ? LARGE_LAST : LARGE)) {
        this.writeLarge(status, head, payload, flags);
        return;
      }
      this.host.writer.write(this.res, status, head, payload, flags, close);
      this.finish();
    } catch (error) {
      this.host.broken(error);
      this.finish();
      this.res.close();
    }
  }

  private writeLarge(status: number, head: string, payload: string | Uint8Array, flags: number): void {
    this.hook();
    const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload;
    const writeHead = (): void => this.host.writer.begin(this.res, status, head, flags, this.closing);
    this.writer = new BodyWriter(this.res, this, writeHead, bytes.byteLength, this.host.secure);
    // They may change after this, see `keepable`.
    this.writer.write(bytes, true);
  }

  /** The answer has been written to the last byte. */
  finish(): void {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.stallTimer);
    this.flow?.over('answered');
    this.host.finished(this.writer !== undefined);
  }

  /** @internal Answer a request whose body goes on and on. */
  sendAhead({ status, head, payload, flags }: Answer): void {
    const { flow } = this;
    const { writer } = this.host;
    if (flow === undefined) return;
    const bytes = payload === null || typeof payload === 'number' ? undefined : payload;
    if (bytes !== undefined && bytes.length >= LARGE_LAST) {
      this.mustClose = true;
      flow.drop(Number.POSITIVE_INFINITY);
      this.writeLarge(status, head, bytes, flags);
      return;
    }
    this.inCork(() => {
      if (bytes === undefined) writer.writeBareAhead(this.res, status, head, payload as number | null, flags);
      else if (bytes.length === 0) writer.writeBareAhead(this.res, status, head, 0, flags);
      else writer.writeWholeAhead(this.res, status, head, bytes, flags);
    });
    this.cutWhenQuiet(flow);
  }

  private cutWhenQuiet(flow: BodyFlow): void {
    this.leaveBody(flow).linger(() => this.cutStream());
  }

  // ------------------------------------------------------------------------------------------------------ refusing

  /**
   * Refuse a request whose head is not to be trusted. Not in this turn: answered now, the engine would go on and run
   * whatever follows in the same packet; unanswered, it closes the connection on a follower, and on nothing else.
   */
  refuseLater(refusal: Refusal): void {
    this.hook();
    this.corked = false;
    setImmediate(() => this.turnAway(refusal));
  }

  /** Refuse a body that is too large, at once. */
  refuseAndLinger(refusal: Refusal): void {
    if (this.over || this.answeredYet) return;
    this.hook();
    if (this.isHead) {
      this.turnAway(refusal);
      return;
    }
    this.answeredYet = true;
    this.host.refused(refusal.status, refusal.event);
    const { res } = this;
    this.inCork(() => this.host.writer.writeAhead(res, refusal.status, refusal.text));
    this.flow ??= new BodyFlow(res, this, {
      most: 0,
      readyFrom: 0,
      declared: -1,
      crossesThreads: false,
    });
    this.cutWhenQuiet(this.flow);
  }

  // --------------------------------------------------------------------------------------------------------- gated

  get waiting(): boolean {
    if (this.over) return false;
    return !this.answeredYet || (this.stream instanceof ResponseBody && this.stream.isFlowing);
  }

  pauseReading(): void {
    this.paused = true;
    this.res.pause();
  }

  resumeReading(): void {
    if (!this.paused || this.over) return;
    this.paused = false;
    this.readOn();
  }

  /** Reading on makes the engine forget that it waits for the socket to take more. */
  private readOn(): void {
    // Behind a pause, for the reason given at Brake.
    this.res.pause();
    this.res.resume();
    this.writer?.goOn();
  }

  stayOpen(): boolean {
    if (this.over || (this.answeredYet && this.stream === undefined)) return false;
    // Every call gives it 10 s more. A client that does not read what there is has the engine's 10 s, and no more.
    if (this.stream?.isFlowing !== false) this.readOn();
    return true;
  }
}

/** What the engine's cork is to write: it calls back before it returns, so that one function serves all. */
interface Job {
  readonly exchange: Exchange;
  readonly status: number;
  readonly head: string;
  readonly payload: Payload;
  readonly flags: number;
  readonly close: boolean;
}
let job: Job;

function runJob(): void {
  const { exchange, status, head, payload, flags, close } = job;
  exchange.write(status, head, payload, flags, close);
}

/** The peer's address as text; '' on a Unix domain socket. */
export function remoteAddress(res: EngineResponse): string {
  const bytes = Buffer.from(res.getRemoteAddressAsText());
  return bytes.toString('latin1');
}

/** Never throws: what a handler throws may be a proxy that refuses to be looked at. */
function isStopped(error: unknown): boolean {
  try {
    return error instanceof OffloopError && error.code === 'OFFLOOP_STOPPED';
  } catch {
    return false;
  }
}

/** As {@link isStopped}. Causes included. */
function stackOf(error: unknown): string {
  try {
    return inspect(error);
  } catch {
    return 'unprintable error';
  }
}

/**
 * Run an upgrade, and send what it writes as one packet.
 *
 * When the cork ends, the engine looks once more at the memory of the response, and part of it is free by then: what somebody else
 * has written there may say that the connection is to be closed. So nobody may get it in between.
 * - Other threads do not while it is among the few free blocks of a size that the allocator keeps for the thread that has freed
 *   them. There is room for one more when one has just been taken.
 * - This thread allocates most when the compiler is done with a function that has got warm. So `upgrade` has to be one without
 *   code of its own, as the engine's `open` is.
 */
function corkUpgrade(res: EngineResponse, upgrade: () => void): void {
  for (const bytes of FREED) {
    // Zeroed memory does not come from those few, but fills them up if there is more: taking the last of them would do so, too.
    new ArrayBuffer(bytes);
    Buffer.allocUnsafeSlow(bytes);
  }
  res.cork(upgrade);
}
