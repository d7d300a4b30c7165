import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inject } from 'offloop/testing';
import now from '../src/now.js';
import primes from '../src/primes.js';

// No socket and no thread: what the handler answers.
test('counts primes', async () => {
  const response = await inject(primes, '/?below=100');
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { below: 100, primes: 25 });
});

test('refuses what it cannot count', async () => {
  assert.equal((await inject(primes, '/?below=many')).status, 422);
  assert.equal((await inject(primes, '/elsewhere')).status, 404);
});

test('says what time it is', async () => {
  const { now: said } = (await (await inject(now)).json()) as { now: string };
  assert.ok(Math.abs(Date.parse(said) - Date.now()) < 60_000);
});
