// A flame graph for each thread: Clinic.js sees the main thread only.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { checkCpuProfile, DrawingError } from './drawn.js';
import { load, runServerFor } from './server-run.js';

const ROOT = new URL('../../', import.meta.url).href;

/** Seconds of load beyond what is profiled. */
const MARGIN = 2;

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
      const loading = load({ url, scenario, seconds: seconds + MARGIN });
      loading.catch(() => {});
      names = await ask('threads', { folder: work, duration: seconds * 1000 });
      answers = await loading;
    },
  });
  const draw = createRequire(import.meta.url).resolve('0x/cmd.js');
  mkdirSync(folder, { recursive: true });
  const rows = names.map((name) => {
    const profile = join(work, name, `${name}.cpuprofile`);
    const text = readFileSync(profile, 'utf8');
    const { about, served } = checkCpuProfile(JSON.parse(text));
    copyFileSync(profile, join(folder, `${name}.cpuprofile`));
    // There is little room for names in the picture.
    writeFileSync(profile, text.replaceAll(ROOT, 'file:///offloop/'));
    // It writes its page beside the profile, always under the same name.
    const { status, stderr } = spawnSync(process.execPath, [draw, '--visualize-cpu-profile', profile], {
      cwd: work,
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`0x could not draw ${name}:\n${stderr}`);
    copyFileSync(join(work, name, 'flamegraph.html'), join(folder, `${name}.html`));
    return { name, about, served };
  });
  // One of the workers may have had nothing to do.
  const [io, ...workers] = rows;
  if (!io.served || (workers.length > 0 && !workers.some(({ served }) => served)))
    throw new DrawingError(`the threads have done nothing for the server: ${JSON.stringify(rows)}`);
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
