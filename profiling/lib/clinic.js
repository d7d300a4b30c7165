// The four tools of Clinic.js, run without a terminal, a browser and a network.
import { spawnSync } from 'node:child_process';
import { renameSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { checkDrawing, DrawingError } from './drawn.js';
import { load, runServerFor } from './server-run.js';

/**
 * Requests a second for bubbleprof, which remembers the stack of each asynchronous operation and takes minutes to group those of some
 * seconds under full load.
 */
const BUBBLEPROF_RATE = 100;
const TRIES = 4;

/** V8 writes a log for each thread, and flame draws the one with the lowest address: without randomness that is the main thread's. */
function fixedAddresses() {
  const words = ['setarch', '-R'];
  const works = process.platform === 'linux' && spawnSync(words[0], [...words.slice(1), 'true']).status === 0;
  return works ? words : [];
}

/**
 * @param {'doctor' | 'flame' | 'bubbleprof' | 'heapprofiler'} tool
 * @param {{ scenario: string, seconds: number, work: string, page: string }} run `work`: an empty folder; `page`: what is written
 * @returns {Promise<string>} what the page shows
 */
export async function drawWithClinic(tool, { scenario, seconds, work, page }) {
  const clinic = createRequire(import.meta.url).resolve('clinic/bin.js');
  const fixed = tool === 'flame' ? fixedAddresses() : [];
  const words = [process.execPath, clinic, tool, '--open=false', '--dest', '.', '--name', 'run', '--'];
  for (let tries = fixed.length > 0 ? 1 : TRIES; ; tries--) {
    let answers = 0;
    const { output } = await runServerFor(scenario, {
      tool: [...fixed, ...words],
      cwd: work,
      during: async ({ url }) => {
        const perSecond = tool === 'bubbleprof' ? BUBBLEPROF_RATE : undefined;
        answers = await load({ url, scenario, seconds, perSecond });
      },
    });
    try {
      renameSync(join(work, `run.clinic-${tool}.html`), page);
    } catch (cause) {
      throw new Error(`clinic ${tool} drew nothing:\n${output}`, { cause });
    }
    try {
      return `${checkDrawing(tool, page)}; ${answers} answers`;
    } catch (error) {
      if (!(error instanceof DrawingError) || tool !== 'flame' || tries === 1) throw error;
    }
  }
}
