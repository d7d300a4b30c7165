// docs/benchmarks.md: whatever stands between `<!-- bench:SCENARIO -->` and `<!-- /bench -->` is made of the run that is kept.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { micro } from '../micro/report.js';
import { scenarios } from '../scenarios/index.js';
import { chartOf } from './charts.js';
import { draw } from './draw.js';
import { busyText, machineText, reportOf } from './report.js';
import { allKept, kept } from './results.js';

const docs = new URL('../../docs/', import.meta.url);
const images = new URL('images/', docs);
const page = new URL('benchmarks.md', docs);
const SECTION = /<!-- bench:([\w-]+) -->\n[\s\S]*?<!-- \/bench -->/g;

/** Whatever can be recorded. */
const recorded = [...scenarios, micro];

const imageOf = (name) => `images/bench-${name}.svg`;

/** What has to be in which file, by its URL. */
async function wanted() {
  const files = new Map();
  const shown = new Set();
  const text = readFileSync(page, 'utf8').replace(SECTION, (_, name) => {
    const scenario = recorded.find((each) => each.name === name);
    if (scenario === undefined)
      throw new Error(`docs/benchmarks.md has a section for ${name}, which is no scenario`);
    shown.add(scenario);
    return `<!-- bench:${name} -->\n${section(scenario)}\n<!-- /bench -->`;
  });
  const names = [...shown].map(({ name }) => name);
  const hidden = allKept().filter((name) => !names.includes(name));
  if (hidden.length > 0) throw new Error(`docs/benchmarks.md has no section for ${hidden.join(', ')}`);
  files.set(page.href, text);
  for (const scenario of shown) {
    const run = kept(scenario.name);
    const chart = run && chartOf(scenario, run.result);
    if (chart) files.set(new URL(imageOf(scenario.name), docs).href, await draw(chart));
  }
  return files;
}

function section(scenario) {
  const { name, title } = scenario;
  const run = kept(name);
  if (run === undefined)
    return `No run is recorded: \`npm run ${name === micro.name ? 'bench:micro --' : `bench -- ${name}`} --record\``;
  const { command, machine, result } = run;
  const chart = chartOf(scenario, result);
  const { rounds } = result.load;
  const minutes = Math.max(1, Math.round(result.seconds / 60));
  return [
    `**${title}**`,
    `\`${command}\``,
    reported(scenario, result),
    ...(chart ? [`![${title.replace(/[[\]]/g, '')}](${imageOf(name)})`] : []),
    ...[busyText(machine)].filter((text) => text !== null),
    `${counted(rounds, 'round')} in ${counted(minutes, 'minute')} on ${machine.date.slice(0, 10)}. ${machineText(machine)}. ` +
      `[All numbers of the run](../bench/results/${name}.json)`,
  ].join('\n\n');
}

const counted = (count, what) => `${count} ${what}${count === 1 ? '' : 's'}`;

function reported(scenario, result) {
  try {
    return reportOf(scenario, result);
  } catch (cause) {
    throw new Error(
      `bench/results/${scenario.name}.json is not what the scenario makes today: record it again`,
      { cause },
    );
  }
}

/** The files that are not what the kept runs make of them; without a text, those that should not be there. */
async function stale() {
  const files = await wanted();
  const drawn = existsSync(images) ? readdirSync(images).filter((name) => /^bench-.*\.svg$/.test(name)) : [];
  const unwanted = drawn.map((name) => new URL(name, images).href).filter((href) => !files.has(href));
  const changed = [...files].filter(([href, text]) => {
    const file = new URL(href);
    return !existsSync(file) || readFileSync(file, 'utf8') !== text;
  });
  return [...changed, ...unwanted.map((href) => [href, undefined])];
}

const nameOf = (href) => href.slice(new URL('..', docs).href.length);

/** Their names. */
export async function stalePages() {
  return (await stale()).map(([href]) => nameOf(href));
}

/** Write what has changed. Returns the names of those files. */
export async function writePages() {
  const files = await stale();
  for (const [href, text] of files) {
    mkdirSync(new URL('.', href), { recursive: true });
    if (text === undefined) rmSync(new URL(href));
    else writeFileSync(new URL(href), text);
  }
  return files.map(([href]) => nameOf(href));
}
