/** Several processes on one port: started, watched, replaced one by one, and ended. Opens no sockets of its own. */
import { type ChildProcess, fork } from 'node:child_process';
import type { ServerStats } from '../index.js';
import type { Address } from '../io/engine.js';
import { adviceOn, cannotListen, tryToListen } from '../io/place.js';
import { cliEntry } from '../paths.js';
import type { Explained } from './errors.js';
import type { Plan } from './plan.js';
import { LEAVE_GRACE, type Order, Post, type Published, type Report } from './post.js';

/** What a process is told in its environment, as JSON: where to listen. */
export const MEMBER_VARIABLE = 'OFFLOOP_PROCESS';
export interface MemberOrders {
  readonly port: number;
}

/** Ms until one that has ended is started again, doubling from the first to the second while it goes on ending. */
const BACKOFF = [100, 10_000] as const;
/** Ms after which one that ends counts as a first time again. */
const SETTLED = 10_000;
/** Ms beyond its time to stop until one that does not end is killed. */
const GRACE = 5_000;
/** Ports tried, when it may be any. */
const ATTEMPTS = 5;
/** Ms that one may take to say its numbers. */
const STATS_WAIT = 1_000;

/** It did not start. */
export class MemberFailure extends Error {
  constructor(readonly explained: Explained) {
    super(explained.text);
  }
}

interface Member {
  readonly child: ChildProcess;
  readonly post: Post<Order>;
  readonly ended: Promise<void>;
  readonly startedAt: number;
  state: 'starting' | 'ready' | 'ending' | 'ended';
  /** The numbers it said last, and who waits for them. */
  answer: ((stats: ServerStats | null) => void) | undefined;
}

/** A place among the processes. It has one member; for the moment of a change another, which takes over. */
interface Place {
  readonly number: number;
  member: Member | undefined;
  /** Starts in a row that did not last. */
  failures: number;
  restarts: number;
  timer: NodeJS.Timeout | undefined;
  /** A successor is being started: nobody else is to start one. */
  changing: boolean;
}

export class Supervisor {
  url = '';
  private port = 0;
  private readonly places: Place[];
  private readonly members = new Set<Member>();
  private stopping = false;
  private rolling: Promise<void> | undefined;
  private rollAgain = false;
  private collecting: Promise<unknown> | undefined;

  constructor(
    private readonly plan: Plan,
    private readonly args: readonly string[],
    private readonly log: (line: string) => void,
  ) {
    this.places = Array.from({ length: plan.own.processes }, (_, i) => ({
      number: i + 1,
      member: undefined,
      failures: 0,
      restarts: 0,
      timer: undefined,
      changing: false,
    }));
  }

  /** Resolves when all of them listen. Rejects with why one does not, and then none is left. */
  async start(): Promise<void> {
    const { port = 8090, ip = '0.0.0.0' } = this.plan.server;
    const [first, ...others] = this.places as [Place, ...Place[]];
    try {
      // The first one takes the port, and the others share it.
      await this.take(ip, port, first);
      await Promise.all(others.map((place) => this.fill(place)));
    } catch (error) {
      this.stopping = true;
      await this.kill();
      throw error;
    }
  }

  /** A port that is to be any free one may be somebody else's by the time it is bound. */
  private async take(ip: string, wanted: number, first: Place): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      this.port = await freePort(ip, wanted);
      try {
        await this.fill(first);
        return;
      } catch (error) {
        const taken = error instanceof MemberFailure && error.message.includes('EADDRINUSE');
        if (wanted !== 0 || !taken || attempt === ATTEMPTS) throw error;
      }
    }
  }

  /** Ids of the processes that listen. */
  get pids(): number[] {
    return this.places.flatMap(({ member }) =>
      member?.state === 'ready' ? [member.child.pid as number] : [],
    );
  }

  // ------------------------------------------------------------------------------------------------------- starting

  private async fill(place: Place): Promise<void> {
    place.member = await this.spawn(place);
  }

  /** Start a process. Resolves when it listens; until then it is nobody's member. */
  private async spawn(place: Place): Promise<Member> {
    const orders: MemberOrders = { port: this.port };
    const child = fork(cliEntry, this.args, {
      env: { ...process.env, [MEMBER_VARIABLE]: JSON.stringify(orders) },
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const post = new Post<Order>(child, () =>
      this.log(`process ${child.pid} does not read: what others publish is dropped for it`),
    );
    const ended = new Promise<void>((resolve) => {
      // One that could not even be started has no exit.
      child.once('exit', () => resolve());
      child.once('error', () => child.pid === undefined && resolve());
    });
    const member: Member = {
      child,
      post,
      ended,
      startedAt: performance.now(),
      state: 'starting',
      answer: undefined,
    };
    this.members.add(member);
    let failure: Explained | undefined;
    const listening = new Promise<void>((resolve) => {
      child.on('message', (report: Report) => {
        if (report.kind === 'failed') failure = report;
        else if (report.kind === 'listening') {
          this.url = report.url;
          resolve();
        } else this.hear(member, report);
      });
    });
    void ended.then(() => this.gone(place, member));
    await Promise.race([listening, ended]);
    if (this.stopping || (member.state as Member['state']) === 'ended' || failure !== undefined) {
      child.kill('SIGKILL');
      await ended;
      throw new MemberFailure(
        failure ?? { code: 1, text: `a process ended ${howItEnded(child)} before it listened` },
      );
    }
    member.state = 'ready';
    return member;
  }

  private gone(place: Place, member: Member): void {
    const { state } = member;
    member.state = 'ended';
    member.answer?.(null);
    this.members.delete(member);
    if (place.member !== member) return;
    place.member = undefined;
    if (this.stopping || state === 'ending') return;
    const lasted = performance.now() - member.startedAt;
    if (lasted > SETTLED) place.failures = 0;
    this.log(`process ${member.child.pid} (${place.number}) ended ${howItEnded(member.child)}`);
    if (!place.changing) this.restart(place);
  }

  /** Fill a place that has become empty, after a while. */
  private restart(place: Place): void {
    const ms = Math.min(BACKOFF[1], BACKOFF[0] * 2 ** place.failures++);
    this.log(`process ${place.number} is started again in ${ms} ms`);
    place.timer = setTimeout(() => {
      place.timer = undefined;
      place.changing = true;
      void this.fill(place)
        .then(
          () => {
            place.restarts++;
            this.log(`process ${place.member?.child.pid} (${place.number}) listens again`);
          },
          (error: unknown) => {
            if (!this.stopping)
              this.log(`process ${place.number} does not start: ${(error as Error).message}`);
          },
        )
        .finally(() => {
          place.changing = false;
          if (place.member === undefined && !this.stopping) this.restart(place);
        });
    }, ms);
  }

  // -------------------------------------------------------------------------------------------------------- changing

  /** Replace one after the other. Resolves when all have been, or when a new one does not start: then the old ones go on. */
  roll(): Promise<void> {
    if (this.rolling !== undefined) {
      // The one under way may have read the code before it was changed.
      this.rollAgain = true;
      return this.rolling;
    }
    this.rolling = (async () => {
      do {
        this.rollAgain = false;
        await this.rollOnce();
      } while (this.rollAgain && !this.stopping);
    })().finally(() => {
      this.rolling = undefined;
    });
    return this.rolling;
  }

  private async rollOnce(): Promise<void> {
    const begin = performance.now();
    for (const place of this.places) {
      // One that is being started has the new code anyway.
      if (this.stopping || place.changing || place.member === undefined) continue;
      place.changing = true;
      try {
        const next = await this.spawn(place);
        const old = place.member as Member | undefined;
        place.member = next;
        place.failures = 0;
        if (old !== undefined) await this.end(old, true);
      } catch (error) {
        if (!this.stopping)
          this.log(`a new process does not start, the old ones go on: ${(error as Error).message}`);
        return;
      } finally {
        place.changing = false;
        if ((place.member as Member | undefined) === undefined && !this.stopping) this.restart(place);
      }
    }
    if (!this.stopping)
      this.log(
        `replaced all processes in ${Math.round(performance.now() - begin)} ms: ${this.pids.join(', ')}`,
      );
  }

  /** Let one finish what it has; one that is `replaced` has clients who do not know that. Killed when it takes longer than it may. */
  private async end(member: Member, replaced = false): Promise<void> {
    const { drainDelay, stopTimeout } = this.plan.own;
    member.state = 'ending';
    if (replaced) member.post.send({ kind: 'leave' });
    else member.child.kill('SIGTERM');
    const late = setTimeout(
      () => {
        this.log(`process ${member.child.pid} does not end and is killed`);
        member.child.kill('SIGKILL');
      },
      (replaced ? LEAVE_GRACE : drainDelay) + stopTimeout + GRACE,
    );
    await member.ended;
    clearTimeout(late);
  }

  // ---------------------------------------------------------------------------------------------------------- ending

  /** Let all of them finish. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.dropTimers();
    await Promise.all(
      [...this.members].map((member) => {
        if (member.state === 'starting') member.child.kill('SIGKILL');
        if (member.state === 'ending') member.child.kill('SIGTERM');
        return member.state === 'ready' ? this.end(member) : member.ended;
      }),
    );
  }

  /** End all of them, now. */
  async kill(): Promise<void> {
    this.stopping = true;
    this.dropTimers();
    for (const { child } of this.members) child.kill('SIGKILL');
    await Promise.all([...this.members].map(({ ended }) => ended));
  }

  private dropTimers(): void {
    for (const place of this.places) clearTimeout(place.timer);
  }

  // --------------------------------------------------------------------------------------------------------- speaking

  private hear(member: Member, report: Exclude<Report, { kind: 'failed' | 'listening' }>): void {
    switch (report.kind) {
      case 'publish':
        this.pass(member, report);
        return;
      case 'stats':
        member.answer?.(report.stats);
        return;
      case 'collect':
        void this.collect().then((stats) => member.post.send({ kind: 'collected', stats }));
        return;
      default:
        throw new Error(`unknown report ${JSON.stringify(report satisfies never)}`);
    }
  }

  /** To the channels of all others; those of one that is ending, too. */
  private pass(from: Member, published: Published): void {
    for (const member of this.members) if (member !== from) member.post.publish(published);
  }

  /** The numbers of all, and their sums. Asked for by several at once it is asked once. */
  private collect(): Promise<unknown> {
    this.collecting ??= this.collectNow().finally(() => {
      this.collecting = undefined;
    });
    return this.collecting;
  }

  private async collectNow(): Promise<unknown> {
    const processes = await Promise.all(
      this.places.map(async ({ number, member, restarts }) => ({
        number,
        pid: member?.child.pid ?? null,
        restarts,
        dropped: member?.post.dropped ?? 0,
        stats: member?.state === 'ready' ? await ask(member) : null,
      })),
    );
    const total = { open: 0, channels: 0, answers: {} as Record<string, number> };
    for (const { stats } of processes) {
      if (stats === null) continue;
      total.open += stats.open;
      total.channels += stats.channels;
      for (const [status, n] of Object.entries(stats.answers))
        total.answers[status] = (total.answers[status] ?? 0) + n;
    }
    return { total, processes };
  }
}

/** null when it does not say in time. */
function ask(member: Member): Promise<ServerStats | null> {
  return new Promise((resolve) => {
    const late = setTimeout(() => resolve(null), STATS_WAIT);
    member.answer = (stats) => {
      clearTimeout(late);
      resolve(stats);
    };
    member.post.send({ kind: 'stats' });
  });
}

function howItEnded({ exitCode, signalCode }: ChildProcess): string {
  return signalCode === null ? `with exit code ${exitCode}` : `by ${signalCode}`;
}

/** A port that processes share can be joined by anybody of this user: make sure that nobody is there. For 0 find one. */
async function freePort(ip: string, port: number): Promise<number> {
  const address: Address = { kind: 'tcp', ip, port, shared: true };
  const found = await tryToListen(address);
  if (typeof found === 'number') return found;
  const code = String(found.code);
  throw cannotListen(address, code, adviceOn(code, address), found);
}
