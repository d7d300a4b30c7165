/** Profiles of running threads, taken from outside: also of one that spins. I/O thread. */
import { type HeapProfiler, type Profiler, Session } from 'node:inspector';
import { setTimeout as sleep } from 'node:timers/promises';
import { OffloopError } from '../errors.js';
import { InspectedThread } from './inspected.js';

/** Where the time of a thread went. As JSON it is a .cpuprofile file, which browsers and speedscope open. */
export type CpuProfile = Profiler.Profile;
/** Which functions allocated what is alive. As JSON it is a .heapprofile file. */
export type HeapProfile = HeapProfiler.SamplingHeapProfile;

/** Ms until the inspector has found a thread, and until the thread has answered it. */
const FOUND_WITHIN = 2_000;
const ANSWERED_WITHIN = 5_000;

/** The thread that this runs on, in the place of the id of a worker. */
const SELF = 0;

const KINDS = {
  cpu: { domain: 'Profiler', start: 'Profiler.start', stop: 'Profiler.stop' },
  heap: {
    domain: 'HeapProfiler',
    start: 'HeapProfiler.startSampling',
    stop: 'HeapProfiler.stopSampling',
  },
} as const;

export interface ProfileTask {
  readonly kind: keyof typeof KINDS;
  /** Ms that are profiled. */
  readonly duration: number;
  /** Its reason is what the profile fails with. */
  readonly signal: AbortSignal;
}

/** Has commands of the inspector's protocol carried out, one right behind the other. Resolves with what the last one returns. */
type Ask = (...methods: string[]) => Promise<unknown>;

/** Threads that are being profiled, by whomever: samples of two would count what the other costs. */
const profiled = new Set<number>();

/** @throws OFFLOOP_NO_PROFILE, OFFLOOP_WORKER_LOST, or the reason of the signal. */
export function profileThread(threadId: number, name: string, task: ProfileTask): Promise<unknown> {
  const { kind, signal } = task;
  return alone(threadId, name, task, async () => {
    const thread = await InspectedThread.attach(threadId, FOUND_WITHIN, signal);
    if (thread === undefined) throw unknown(name);
    const ask: Ask = async (...methods) => {
      const until = performance.now() + ANSWERED_WITHIN;
      const waiting = new Map(methods.map((method) => [thread.send(method), method]));
      for (;;) {
        const said = await thread.hear(until, signal);
        if (said === undefined) throw thread.gone ? lost(name) : silent(name);
        const method = waiting.get(said.id ?? 0);
        if (method === undefined) continue;
        if (said.error !== undefined) throw refused(method, said.error.message);
        waiting.delete(said.id ?? 0);
        if (waiting.size === 0) return said.result;
      }
    };
    try {
      return await sample(ask, task, kind === 'cpu' && process.env['NODE_V8_COVERAGE'] === undefined);
    } finally {
      thread.detach();
    }
  });
}

/** The same for the thread that calls. @throws OFFLOOP_NO_PROFILE, or the reason of the signal. */
export function profileSelf(task: ProfileTask): Promise<unknown> {
  return alone(SELF, 'the I/O thread', task, async () => {
    const session = new Session();
    session.connect();
    const askOne = (method: string): Promise<unknown> =>
      new Promise((resolve, reject) =>
        session.post(method, {}, (error: { message?: string } | null, result?: object) =>
          error === null ? resolve(result) : reject(refused(method, String(error.message))),
        ),
      );
    const ask: Ask = async (...methods) => {
      let result: unknown;
      for (const method of methods) result = await askOne(method);
      return result;
    };
    try {
      return await sample(ask, task, false);
    } finally {
      session.disconnect();
    }
  });
}

async function alone(
  threadId: number,
  name: string,
  { signal }: ProfileTask,
  take: () => Promise<unknown>,
): Promise<unknown> {
  if (profiled.has(threadId))
    throw noProfile(
      `${name} is being profiled already: wait for that profile, or take one of another thread`,
    );
  profiled.add(threadId);
  try {
    signal.throwIfAborted();
    return await take();
  } catch (error) {
    // Whatever else has failed because of that.
    signal.throwIfAborted();
    throw error;
  } finally {
    profiled.delete(threadId);
  }
}

/**
 * `recompile`: a loop that was compiled while it ran is unknown to a profiler that starts later, and its time is booked on the caller. Switching
 * coverage on and off gives up all compiled code of the thread, and what is compiled from then on is known. It ends the coverage of others, too.
 */
async function sample(
  ask: Ask,
  { kind, duration, signal }: ProfileTask,
  recompile: boolean,
): Promise<unknown> {
  const { domain, start, stop } = KINDS[kind];
  const coverage = recompile ? ['Profiler.startPreciseCoverage', 'Profiler.stopPreciseCoverage'] : [];
  await ask(`${domain}.enable`, start, ...coverage);
  await sleep(duration, undefined, { signal });
  const { profile } = (await ask(stop)) as { profile: unknown };
  return profile;
}

export const noProfile = (message: string): OffloopError => new OffloopError('OFFLOOP_NO_PROFILE', message);

export const lost = (name: string, cause?: unknown): OffloopError =>
  new OffloopError('OFFLOOP_WORKER_LOST', `${name} ended while it was being profiled`, { cause });

const unknown = (name: string): OffloopError =>
  noProfile(
    `the inspector did not find ${name} within ${FOUND_WITHIN} ms: it has ended, or this Node has no inspector`,
  );

const silent = (name: string): OffloopError =>
  noProfile(
    `${name} did not answer the inspector within ${ANSWERED_WITHIN} ms: it is in native code, which cannot be interrupted`,
  );

const refused = (method: string, message: string): OffloopError =>
  noProfile(`the inspector refused ${method}: ${message}`);
