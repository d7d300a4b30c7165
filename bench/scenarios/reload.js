import { get } from 'node:http';
import { checkAnswer } from '../lib/answer.js';
import { judged } from '../lib/figures.js';
import { finished, measureRounds } from '../lib/rounds.js';
import { startSlowLoad } from '../lib/slow-load.js';
import { spread } from '../lib/stats.js';
import { failures, figuresTable, number, table } from '../lib/table.js';

const RELOADS = 20;
const SMOKE_RELOADS = 3;
const IN_FLIGHT = 16;
/** Requests after each reload: enough that every worker has to answer one. */
const FRESH = 8;

const entries = [2, 4].map((workers) => ({
  name: `offloop-${workers}-workers`,
  file: 'offloop-reload',
  options: { nMin: workers, nMax: workers },
}));

/** @type {import('../run.js').Scenario} */
export default {
  name: 'reload',
  title: `${RELOADS} reloads of a handler under load: does a request fail, or get the old version?`,
  needsWrk: false,
  defaults: { rounds: 3 },
  entries,

  async run({ entries, settings }) {
    const { rounds, smoke } = settings;
    const reloads = smoke ? SMOKE_RELOADS : RELOADS;
    const measure = (server) => measureReloads(server, reloads);
    const servers = await measureRounds(entries, { rounds, measure, describe });
    return {
      load: { rounds, reloads, inFlight: IN_FLIGHT },
      servers,
      figures: servers.flatMap((server) => figures(server, !smoke)),
      ok: servers.every(({ ok }) => ok),
    };
  },

  report: ({ servers, figures }) => [
    table(
      ['server', 'reloads', 'requests meanwhile', 'failed', 'stale', 'reload p50 ms', 'min', 'max'],
      servers.flatMap((server) =>
        finished(server).map(({ completed, failed, stale, reloadMs }) => [
          server.name,
          number(reloadMs.length),
          number(completed),
          number(failed),
          number(stale),
          number(spread(reloadMs).median, 1),
          number(spread(reloadMs).min, 1),
          number(spread(reloadMs).max, 1),
        ]),
      ),
    ),
    ...failures(servers),
    figuresTable(figures),
  ],
};

async function measureReloads(server, reloads) {
  await checkAnswer(server.url, { body: 'version 0' });
  const load = startSlowLoad(server.url, IN_FLIGHT);
  const reloadMs = [];
  const staleAnswers = [];
  for (let version = 1; version <= reloads; version++) {
    reloadMs.push(await server.ask('reload', version));
    const answers = await Promise.all(Array.from({ length: FRESH }, () => answer(server.url)));
    staleAnswers.push(...answers.filter((text) => text !== `version ${version}`));
  }
  const { completed, errors } = await load.stop();
  return {
    ok: errors + staleAnswers.length === 0,
    completed,
    failed: errors,
    stale: staleAnswers.length,
    staleAnswers,
    reloadMs,
    log: await server.ask('log'),
    stats: await server.ask('stats'),
  };
}

/** What is answered on a connection of its own; an error is an answer as well, and never the right one. */
function answer(url) {
  return new Promise((resolve) => {
    get(url, { agent: false }, (res) => {
      let text = '';
      res
        .setEncoding('utf8')
        .on('data', (chunk) => {
          text += chunk;
        })
        .on('close', () => resolve(text));
    }).on('error', (error) => resolve(String(error)));
  });
}

function figures(server, judge) {
  const done = finished(server);
  const none = { atMost: 0, worst: true };
  const figure = (what, number) =>
    judged({ figure: `${server.name}: ${what}`, ...none }, done.map(number), judge);
  return [
    figure('requests that failed', ({ failed }) => failed),
    figure('stale answers after a reload', ({ stale }) => stale),
  ].filter(Boolean);
}

function describe({ completed, failed, stale, reloadMs }) {
  return `${number(completed)} requests, ${failed} failed, ${stale} stale, a reload takes ${number(spread(reloadMs).median, 1)} ms`;
}
