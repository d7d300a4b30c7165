/** Where a busy thread is, asked from outside: works while it spins, since the inspector interrupts it. I/O thread. */
import { Session } from 'node:inspector';

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

let last: Promise<unknown> = Promise.resolve();

/**
 * The JavaScript stack of a thread, a line for each frame, innermost first. Undefined when it cannot be had within `ms`:
 * the thread is in native code, gone, or the inspector is not available.
 */
export function captureStack(threadId: number, ms: number): Promise<string | undefined> {
  // One at a time: each attaches to every thread of the process for a moment.
  const mine = last.then(() => capture(threadId, ms)).catch(() => undefined);
  last = mine;
  return mine;
}

function capture(threadId: number, ms: number): Promise<string | undefined> {
  const session = new Session();
  session.connect();
  const urls = new Map<string, string>();
  let sessionId: string | undefined;
  const send = (id: number, method: string): void =>
    session.post('NodeWorker.sendMessageToWorker', {
      sessionId: sessionId as string,
      message: JSON.stringify({ id, method }),
    });
  return new Promise<string | undefined>((resolve) => {
    const timer = setTimeout(() => resolve(undefined), ms);
    const done = (stack: string | undefined): void => {
      clearTimeout(timer);
      resolve(stack);
    };
    session.on('NodeWorker.attachedToWorker', ({ params }) => {
      // The inspector numbers the threads in its own way; the title holds the number everybody else uses.
      if (!params.workerInfo.title.startsWith(`[worker ${threadId}]`)) return;
      sessionId = params.sessionId;
      send(1, 'Debugger.enable');
      send(2, 'Debugger.pause');
    });
    session.on('NodeWorker.receivedMessageFromWorker', ({ params }) => {
      if (params.sessionId !== sessionId) return;
      const { method, params: about } = JSON.parse(params.message) as FromWorker;
      if (method === 'Debugger.scriptParsed') urls.set(about?.scriptId ?? '', about?.url ?? '');
      else if (method === 'Debugger.paused') done(format(about?.callFrames ?? [], urls));
    });
    session.post('NodeWorker.enable', { waitForDebuggerOnStart: false }, (error) => {
      if (error !== null) done(undefined);
    });
  }).finally(() => {
    // A thread left paused can never be ended.
    if (sessionId !== undefined) send(3, 'Debugger.disable');
    session.post('NodeWorker.disable');
    session.disconnect();
  });
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
