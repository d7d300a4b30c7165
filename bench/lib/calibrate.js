// Run as a program, in a fresh process: how many rounds of `burn` take one millisecond of CPU time?
import { median } from './stats.js';
import { burn } from './work.js';

const probe = 2_000_000;
for (let i = 0; i < 10; i++) burn(probe);

const perMs = Array.from({ length: 15 }, () => {
  const before = process.cpuUsage();
  burn(probe);
  return probe / (process.cpuUsage(before).user / 1000);
});
console.log(JSON.stringify({ iterationsPerMs: Math.round(median(perMs)) }));
