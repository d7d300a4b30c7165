/** The inspector of a running thread, asked from outside: works while the thread spins, since the inspector interrupts it. I/O thread. */
import { Session } from 'node:inspector';
import { setTimeout as sleep } from 'node:timers/promises';

/** An event of the inspector's, or the answer to what was sent under the same id. */
export interface Said {
  readonly id?: number;
  readonly method?: string;
  readonly params?: unknown;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
}

/** Ms between looks at what the inspector has said. */
const LOOK_EVERY = 4;

/**
 * One thread of this process with the inspector attached, until {@link InspectedThread.detach}. Several may be attached to one thread, and a
 * debugger of the user's beside them: each has a session of its own.
 */
export class InspectedThread {
  private nextId = 1;
  private readonly unread: Said[] = [];

  private constructor(
    private readonly session: Session,
    private readonly heard: Heard,
    private readonly sessionId: string,
  ) {}

  /** Undefined when the thread cannot be found within `ms`: it is gone, or there is no inspector. Or when `signal` is aborted. */
  static async attach(
    threadId: number,
    ms: number,
    signal?: AbortSignal,
  ): Promise<InspectedThread | undefined> {
    const session = new Session();
    session.connect();
    const heard = listen(session);
    const until = performance.now() + ms;
    try {
      session.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
      for (;;) {
        // The inspector numbers the threads in its own way; the title holds the number everybody else uses.
        const found = heard.attached.find(({ title }) => title.startsWith(`[worker ${threadId}]`));
        if (found !== undefined) return new InspectedThread(session, heard, found.sessionId);
        if (performance.now() >= until || signal?.aborted === true) break;
        await sleep(LOOK_EVERY);
      }
    } catch {
      // This thread is a worker itself, or Node was built without an inspector.
    }
    disconnect(session);
    return undefined;
  }

  /** Whether the thread has ended. */
  get gone(): boolean {
    return this.heard.detached.includes(this.sessionId);
  }

  /** Returns the id that the answer will have. */
  send(method: string, params: object = {}): number {
    const id = this.nextId++;
    const message = JSON.stringify({ id, method, params });
    // A thread that has just ended is no longer known: nobody will answer.
    this.session.post('NodeWorker.sendMessageToWorker', { sessionId: this.sessionId, message }, () => {});
    return id;
  }

  /**
   * What it says next. Undefined when it has said nothing by `until`, on the performance.now() clock, or nothing will come: the thread has ended,
   * or `signal` is aborted.
   */
  async hear(until: number, signal?: AbortSignal): Promise<Said | undefined> {
    for (;;) {
      const { messages } = this.heard;
      for (let next = messages.shift(); next !== undefined; next = messages.shift())
        if (next.sessionId === this.sessionId) this.unread.push(JSON.parse(next.message) as Said);
      const said = this.unread.shift();
      if (said !== undefined || this.gone || signal?.aborted === true || performance.now() >= until)
        return said;
      await sleep(LOOK_EVERY);
    }
  }

  /** Let go of the thread: what was switched on by this session is switched off. Safe to call again. */
  detach(): void {
    disconnect(this.session);
  }
}

function disconnect(session: Session): void {
  try {
    session.post('NodeWorker.disable');
  } catch {
    // There is nothing to be disabled.
  }
  session.disconnect();
}

/** What the inspector has said, in order. */
interface Heard {
  readonly attached: { readonly sessionId: string; readonly title: string }[];
  readonly detached: string[];
  readonly messages: { readonly sessionId: string; readonly message: string }[];
}

/**
 * Listen without doing anything: the inspector interrupts this thread wherever it is, in the middle of Node's own timers
 * for example, so that whatever a listener of its does beyond remembering may find things half done, and leave them so.
 */
function listen(session: Session): Heard {
  const heard: Heard = { attached: [], detached: [], messages: [] };
  session.on('NodeWorker.attachedToWorker', ({ params }) => {
    heard.attached.push({ sessionId: params.sessionId, title: params.workerInfo.title });
  });
  session.on('NodeWorker.detachedFromWorker', ({ params }) => {
    heard.detached.push(params.sessionId);
  });
  session.on('NodeWorker.receivedMessageFromWorker', ({ params }) => {
    heard.messages.push({ sessionId: params.sessionId, message: params.message });
  });
  return heard;
}
