/** One of several processes of a server. It is started, told to end, and replaced by its supervisor. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { channels } from '../channel-registry.js';
import { type App, startApp } from './app.js';
import { type Explained, explain } from './errors.js';
import { flagOf } from './flags.js';
import type { Plan } from './plan.js';
import { LEAVE_GRACE, type Order, Post, type Report } from './post.js';

export async function runMember(plan: Plan): Promise<void> {
  const post = new Post<Report>(process as Required<Pick<NodeJS.Process, 'send' | 'connected'>>, () =>
    console.error(`[offloop] process ${process.pid}: topics are published faster than they can be passed on`),
  );
  const waiting: ((stats: unknown) => void)[] = [];
  let app: App;
  // Ctrl+C and the end of a terminal go to the whole group: what to make of them is for the supervisor to decide.
  for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);
  const endNow = (): void => process.exit(0);
  process.once('SIGTERM', endNow);
  try {
    app = await startApp(plan, () => {
      post.send({ kind: 'collect' });
      return new Promise((resolve) => waiting.push(resolve));
    });
  } catch (error) {
    await tell(explain(error, flagOf));
    return;
  }
  const { server } = app;

  let ending = false;
  const end = (grace: number): void => {
    if (ending) return;
    ending = true;
    void quietMoment()
      .then(() => app.drain(grace))
      .finally(() => process.exit(0));
  };
  process.off('SIGTERM', endNow);
  // Again and again: a process manager may tell all of the group, and the supervisor tells each.
  process.on('SIGTERM', () => end(0));
  // The supervisor is gone, and nobody else would ever end this one.
  process.on('disconnect', () => end(0));

  // What is published here goes to the others, and what is published there comes here.
  channels.hosts.add({
    publish: (topic, data, close) => post.publish({ kind: 'publish', topic, data, close }),
  });
  process.on('message', (order: Order) => {
    switch (order.kind) {
      case 'publish':
        server.publish(order.topic, order.data, { close: order.close });
        return;
      case 'stats':
        post.send({ kind: 'stats', stats: server.stats() });
        return;
      case 'leave':
        end(LEAVE_GRACE);
        return;
      case 'collected':
        for (const resolve of waiting.splice(0)) resolve(order.stats);
        return;
      default:
        throw new Error(`unknown order ${JSON.stringify(order satisfies never)}`);
    }
  });
  post.send({ kind: 'listening', url: server.url });
}

/** Say why it cannot start, and end when that has been said. */
function tell({ code, text }: Explained): Promise<never> {
  return new Promise(() => {
    process.send?.({ kind: 'failed', code, text } satisfies Report, undefined, undefined, () =>
      process.exit(code),
    );
  });
}

/** Ms to wait for a turn of the loop that is short. */
const PATIENCE = 250;
/** Ms of a short turn. */
const SHORT = 0.2;

/**
 * The kernel resets connections that have been made and not accepted when their listener closes, unless net.ipv4.tcp_migrate_req is
 * set. They are accepted once in each turn of the loop, so the end of a short one is the moment when there are fewest.
 */
async function quietMoment(): Promise<void> {
  const until = performance.now() + PATIENCE;
  let before = performance.now();
  for (;;) {
    await nextTurn();
    const now = performance.now();
    if (now - before < SHORT || now > until) return;
    before = now;
  }
}
