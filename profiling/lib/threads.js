// A flame graph for each thread: Clinic.js sees the main thread only.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { checkCpuProfile } from './drawn.js';
import { load, runServerFor } from './server-run.js';

/** Seconds of load before and after what is profiled. */
const MARGIN = 0.5;

/**
 * @param {{ scenario: string, seconds: number, work: string, folder: string }} run `folder`: gets a page and a profile of each thread, and
 *   index.html
 * @returns {Promise<string>}
 */
export async function drawThreads({ scenario, seconds, work, folder }) {
  let names = [];
  let answers = 0;
  await runServerFor(scenario, {
    cwd: work,
    during: async ({ url, ask }) => {
      const loading = load({ url, scenario, seconds: Math.ceil(seconds + 2 * MARGIN) });
      await new Promise((resolve) => setTimeout(resolve, MARGIN * 1000));
      names = await ask('threads', { folder: work, duration: Math.round(seconds * 1000) });
      answers = await loading;
    },
  });
  const draw = createRequire(import.meta.url).resolve('0x/cmd.js');
  mkdirSync(folder, { recursive: true });
  const rows = names.map((name) => {
    const profile = join(work, name, `${name}.cpuprofile`);
    const about = checkCpuProfile(JSON.parse(readFileSync(profile, 'utf8')));
    // It writes its page beside the profile, always under the same name.
    const { status, stderr } = spawnSync(process.execPath, [draw, '--visualize-cpu-profile', profile], {
      cwd: work,
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`0x could not draw ${name}:\n${stderr}`);
    const page = readFileSync(join(work, name, 'flamegraph.html'), 'utf8');
    if (!page.includes('profiling/server.js') && !page.includes('/dist/'))
      throw new Error(`the flame graph of ${name} shows nothing of the server`);
    writeFileSync(join(folder, `${name}.html`), page);
    copyFileSync(profile, join(folder, `${name}.cpuprofile`));
    return { name, about };
  });
  writeFileSync(join(folder, 'index.html'), index(scenario, seconds, rows));
  return [...rows.map(({ name, about }) => `${name}: ${about}`), `${answers} answers`].join('; ');
}

const index = (scenario, seconds, rows) => `<!doctype html>
<meta charset="utf-8">
<title>offloop: threads of ${scenario}</title>
<style>body { font: 16px/1.6 system-ui, sans-serif; margin: 2rem } td { padding-right: 2rem }</style>
<h1>${scenario}</h1>
<p>${seconds} s of each thread, at the same time.</p>
<table>
${rows
  .map(
    ({ name, about }) =>
      `<tr><td><a href="${encodeURI(name)}.html">${name}</a></td><td>${about}</td><td><a href="${encodeURI(name)}.cpuprofile">.cpuprofile</a></td></tr>`,
  )
  .join('\n')}
</table>
`;
