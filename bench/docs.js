#!/usr/bin/env node
// Writes the figures and charts of docs/benchmarks.md anew, of the runs in bench/results. With --check nothing is written, and the
// exit code is 1 when something would have been.
import { log } from './lib/log.js';
import { asProgram, needPeers } from './lib/needs.js';

const check = process.argv.includes('--check');
await asProgram(async () => {
  needPeers();
  const { stalePages, writePages } = await import('./lib/page.js');
  const names = check ? await stalePages() : await writePages();
  for (const name of names) log(check ? `${name} is not what bench/results makes of it` : `wrote ${name}`);
  if (!check || names.length === 0) return 0;
  log('npm run bench:docs writes them');
  return 1;
});
