import { setTimeout as sleep } from 'node:timers/promises';
import { median } from './stats.js';

const SAMPLES = 30;

/**
 * Does a server's memory still grow when it has long been under load? Garbage makes single looks jump, so a third of the
 * way and the end are medians of five.
 * @param {import('./server-process.js').ServerProcess} server one that answers `rssMb`
 * @param {number} seconds
 */
export async function watchMemory(server, seconds) {
  const samples = [];
  const start = performance.now();
  for (let i = 1; i <= SAMPLES; i++) {
    await sleep(start + (i * seconds * 1000) / SAMPLES - performance.now());
    samples.push(await server.ask('rssMb'));
  }
  const third = SAMPLES / 3;
  const atThird = median(samples.slice(third - 3, third + 2));
  const atEnd = median(samples.slice(-5));
  return { atThirdMb: atThird, atEndMb: atEnd, growth: atEnd / atThird, samplesMb: samples };
}

/**
 * What a server that answers `memory` (lib/garbage.js) needs. What is left of opening and closing takes a moment to be let go of.
 * @param {import('./server-process.js').ServerProcess} server
 */
export async function settledMemory(server) {
  let memory = await server.ask('memory');
  for (let looks = 0; looks < 10; looks++) {
    await sleep(200);
    const next = await server.ask('memory');
    if (Math.abs(next.rss - memory.rss) < 100_000) return next;
    memory = next;
  }
  return memory;
}
