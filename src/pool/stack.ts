/** Where a busy thread is, asked from outside. I/O thread. */
import { InspectedThread } from './inspected.js';

interface Frame {
  readonly functionName: string;
  readonly url: string;
  readonly location: {
    readonly scriptId: string;
    readonly lineNumber: number;
    readonly columnNumber?: number;
  };
}
/** What the Debugger domain tells. */
interface DebuggerParams {
  readonly scriptId?: string;
  readonly url?: string;
  readonly callFrames?: readonly Frame[];
}

/** Frames shown; a runaway recursion has thousands. */
const MOST_FRAMES = 30;

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

async function capture(threadId: number, until: number): Promise<string | undefined> {
  const thread = await InspectedThread.attach(threadId, until - performance.now());
  if (thread === undefined) return undefined;
  const urls = new Map<string, string>();
  try {
    thread.send('Debugger.enable');
    thread.send('Debugger.pause');
    for (;;) {
      const said = await thread.hear(until);
      if (said === undefined) return undefined;
      const { scriptId = '', url = '', callFrames = [] } = (said.params ?? {}) as DebuggerParams;
      if (said.method === 'Debugger.scriptParsed') urls.set(scriptId, url);
      else if (said.method === 'Debugger.paused') return format(callFrames, urls);
    }
  } finally {
    // A thread left paused can never be ended.
    thread.send('Debugger.disable');
    thread.detach();
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
