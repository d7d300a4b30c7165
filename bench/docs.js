#!/usr/bin/env node
// Writes the figures and charts of docs/benchmarks.md anew, of the runs in bench/results. With --check nothing is written, and the
// exit code is 1 when something would have been.
import { log } from './lib/log.js';
import { NeedsError, needPeers } from './lib/needs.js';

const check = process.argv.includes('--check');
try {
  needPeers();
  const { stalePages, writePages } = await import('./lib/page.js');
  const names = check ? await stalePages() : await writePages();
  for (const name of names) log(check ? `${name} is not what bench/results makes of it` : `wrote ${name}`);
  if (check && names.length > 0) {
    log('npm run bench:docs writes them');
    process.exitCode = 1;
  }
} catch (error) {
  if (!(error instanceof NeedsError)) throw error;
  log(error.message);
  process.exitCode = error.exitCode;
}
