/** Where a busy thread is, asked from outside: works while it spins, since the inspector interrupts it. I/O thread. */
import { Session } from 'node:inspector';
import { setTimeout as sleep } from 'node:timers/promises';

interface Frame {
  readonly functionName: string;
  readonly url: string;
  readonly location: {
    readonly scriptId: string;
    readonly lineNumber: number;
    readonly columnNumber?: number;
  };
}
interface FromWorker {
  readonly method?: string;
  readonly params?: {
    readonly scriptId?: string;
    readonly url?: string;
    readonly callFrames?: readonly Frame[];
  };
}

/** Frames shown; a runaway recursion has thousands. */
const MOST_FRAMES = 30;
/** Ms between looks at what the inspector has said. */
const LOOK_EVERY = 4;

let last: Promise<unknown> = Promise.resolve();

/**
 * The JavaScript stack of a thread, a line for each frame, innermost first. Undefined when it cannot be had within `ms`:
 * the thread is in native code, gone, or gets no time, or the inspector is not available.
 */
export function captureStack(threadId: number, ms: number): Promise<string | undefined> {
  // Waiting for those before it included: however many are stuck, each is ended in time.
  const until = performance.now() + ms;
  // One at a time: each attaches to every thread of the process for a moment.
  const mine = last.then(() => capture(threadId, until)).catch(() => undefined);
  last = mine;
  return mine;
}

/** What the inspector has said, in order. */
interface Heard {
  readonly attached: { readonly sessionId: string; readonly title: string }[];
  readonly messages: { readonly sessionId: string; readonly message: string }[];
}

/**
 * Listen without doing anything: the inspector interrupts this thread wherever it is, in the middle of Node's own timers
 * for example, so that whatever a listener of its does beyond remembering may find things half done, and leave them so.
 */
function listen(session: Session): Heard {
  const heard: Heard = { attached: [], messages: [] };
  session.on('NodeWorker.attachedToWorker', ({ params }) => {
    heard.attached.push({ sessionId: params.sessionId, title: params.workerInfo.title });
  });
  session.on('NodeWorker.receivedMessageFromWorker', ({ params }) => {
    heard.messages.push({ sessionId: params.sessionId, message: params.message });
  });
  return heard;
}

async function capture(threadId: number, until: number): Promise<string | undefined> {
  if (performance.now() > until) return undefined;
  const session = new Session();
  session.connect();
  const { attached, messages } = listen(session);
  const send = (sessionId: string, id: number, method: string): void =>
    session.post('NodeWorker.sendMessageToWorker', { sessionId, message: JSON.stringify({ id, method }) });
  const urls = new Map<string, string>();
  let sessionId: string | undefined;
  try {
    session.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
    while (performance.now() < until) {
      if (sessionId === undefined) {
        // The inspector numbers the threads in its own way; the title holds the number everybody else uses.
        sessionId = attached.find(({ title }) => title.startsWith(`[worker ${threadId}]`))?.sessionId;
        if (sessionId !== undefined) {
          send(sessionId, 1, 'Debugger.enable');
          send(sessionId, 2, 'Debugger.pause');
        }
      }
      for (let said = messages.shift(); said !== undefined; said = messages.shift()) {
        if (said.sessionId !== sessionId) continue;
        const { method, params } = JSON.parse(said.message) as FromWorker;
        if (method === 'Debugger.scriptParsed') urls.set(params?.scriptId ?? '', params?.url ?? '');
        else if (method === 'Debugger.paused') return format(params?.callFrames ?? [], urls);
      }
      await sleep(LOOK_EVERY);
    }
    return undefined;
  } finally {
    // A thread left paused can never be ended.
    if (sessionId !== undefined) send(sessionId, 3, 'Debugger.disable');
    session.post('NodeWorker.disable');
    session.disconnect();
  }
}

function format(frames: readonly Frame[], urls: ReadonlyMap<string, string>): string {
  const lines = frames.slice(0, MOST_FRAMES).map(({ functionName, url, location }) => {
    const { scriptId, lineNumber, columnNumber = 0 } = location;
    const where = `${url || urls.get(scriptId) || '<unknown>'}:${lineNumber + 1}:${columnNumber + 1}`;
    return functionName === '' ? `    at ${where}` : `    at ${functionName} (${where})`;
  });
  if (frames.length > MOST_FRAMES) lines.push(`    ... ${frames.length - MOST_FRAMES} more`);
  return lines.join('\n');
}
