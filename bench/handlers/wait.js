import { setTimeout as sleep } from 'node:timers/promises';

/** Waits for as many milliseconds as the query says, as a handler does that asks a database. */
export default async ({ query, url }) => {
  const ms = query ?? url.slice(url.indexOf('?') + 1);
  await sleep(Number(ms));
  return { status: 200, headers: { 'content-type': 'text/plain' }, body: `waited ${ms}` };
};
