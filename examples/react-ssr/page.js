// Without a build step there is no JSX: h('p', null, 'text') is <p>text</p>.
import { setTimeout as sleep } from 'node:timers/promises';
import { createElement as h, Suspense, use } from 'react';

export function Page({ seats }) {
  // One for each request: made here, so that it is the same when React tries again.
  const plan = loadPlan(seats);
  return h(
    'html',
    { lang: 'en' },
    h('head', null, h('title', null, 'Seats')),
    h(
      'body',
      null,
      h('h1', null, 'Seats'),
      h(Suspense, { fallback: h('p', null, 'Loading the plan ...') }, h(Plan, { plan })),
    ),
  );
}

function Plan({ plan }) {
  const rows = use(plan);
  return h(
    'table',
    null,
    h(
      'tbody',
      null,
      rows.map((row, y) =>
        h(
          'tr',
          { key: y },
          row.map((taken, x) => h('td', { key: x }, taken ? 'x' : 'o')),
        ),
      ),
    ),
  );
}

/** What a database would be asked for. */
async function loadPlan(seats) {
  await sleep(100);
  return Array.from({ length: seats }, (_, y) => Array.from({ length: seats }, (_, x) => (x * y) % 3 === 0));
}
