#!/usr/bin/env node
// npm run profile:flame -- hello --duration 5 --out .clinic
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { drawWithClinic } from './lib/clinic.js';
import { NeedsError, needBuild, needTools } from './lib/needs.js';
import { drawThreads } from './lib/threads.js';
import { SCENARIOS } from './scenarios.js';

/** What `npm run profile:...` is called, and what Clinic.js calls it. */
const TOOLS = {
  doctor: 'doctor',
  flame: 'flame',
  bubbleprof: 'bubbleprof',
  heap: 'heapprofiler',
  workers: undefined,
};

const USAGE = `npm run profile:TOOL -- [SCENARIO] [--duration SECONDS] [--out FOLDER]

Runs a server with load under a tool, and writes a page to be opened in a browser.

tools
  doctor      CPU, memory, delay of the event loop, handles; what that hints at
  flame       where the I/O thread spends its time, native code included
  bubbleprof  what the I/O thread waits for
  heap        what the I/O thread allocates
  workers     where each thread spends its time: the I/O thread and every worker

scenarios, hello without a word
${Object.entries(SCENARIOS)
  .map(([name, { about }]) => `  ${name.padEnd(12)}${about}`)
  .join('\n')}

  --duration  seconds of load, 5 without a word
  --out       where pages go, .clinic without a word`;

class UsageError extends Error {}

function settings() {
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        duration: { type: 'string', default: '5' },
        out: { type: 'string', default: '.clinic' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
  } catch (cause) {
    throw new UsageError(cause.message, { cause });
  }
  const { values, positionals } = parsed;
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const [tool = '', scenario = 'hello', ...rest] = positionals;
  if (!Object.hasOwn(TOOLS, tool)) throw new UsageError(`there is no tool ${JSON.stringify(tool)}`);
  if (!Object.hasOwn(SCENARIOS, scenario))
    throw new UsageError(`there is no scenario ${JSON.stringify(scenario)}`);
  if (rest.length > 0) throw new UsageError(`one scenario at a time, not ${rest.join(', ')} as well`);
  const seconds = Number(values.duration);
  if (!(Number.isInteger(seconds) && seconds >= 1 && seconds <= 60))
    throw new UsageError(`--duration is ${values.duration}; allowed: whole seconds from 1 to 60`);
  return { tool, scenario, seconds, out: resolve(values.out) };
}

async function main() {
  const { tool, scenario, seconds, out } = settings();
  needTools();
  needBuild();
  mkdirSync(out, { recursive: true });
  // The tools leave what they collect where they are started.
  const work = mkdtempSync(join(tmpdir(), 'offloop-profile-'));
  process.once('exit', () => rmSync(work, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
  if (tool === 'workers') {
    const folder = join(out, `${scenario}.workers`);
    const about = await drawThreads({ scenario, seconds, work, folder });
    console.log(`${relative('.', join(folder, 'index.html'))}\n${about}`);
  } else {
    const page = join(out, `${scenario}.${tool}.html`);
    rmSync(page, { force: true });
    const about = await drawWithClinic(TOOLS[tool], { scenario, seconds, work, page });
    console.log(`${relative('.', page)}\n${about}`);
  }
}

main().catch((error) => {
  if (error instanceof UsageError) console.error(`${error.message}\n\n${USAGE}`);
  else if (error instanceof NeedsError) console.error(error.message);
  else console.error(error.stack);
  process.exitCode = error instanceof UsageError || error instanceof NeedsError ? 2 : 1;
});
