// What it costs to find the mount of a request, by the number of mounts: node --import tsx bench/micro/router.js
// The router is no part of the package, so its source is loaded.
import { strict as assert } from 'node:assert';
import { Router } from '../../src/io/router.ts';

const COUNTS = [1, 10, 100, 1000, 10_000, 100_000];
const ROUNDS = 15;
const LOOKS = 200_000;
/** Different requests, so that nothing is remembered; few enough to stay in the cache of the processor. */
const REQUESTS = 64;

const mount = (context) => ({ context, dispatcher: { close() {} } });
const kinds = {
  'paths, 3 segments': (router, n) => {
    for (let i = 0; i < n; i++) router.set(undefined, `/a/b/${i}`, mount(String(i)));
    return (i) => ['h.test', `/a/b/${i}/c`];
  },
  'virtual hosts': (router, n) => {
    for (let i = 0; i < n; i++) router.set(`t${i}.example.com`, '/', mount(String(i)));
    return (i) => [`t${i}.example.com:8090`, '/a/b/c'];
  },
  'wildcards, below': (router, n) => {
    for (let i = 0; i < n; i++) router.set(`*.t${i}.example.com`, '/', mount(String(i)));
    return (i) => [`www.t${i}.example.com`, '/a/b/c'];
  },
  'a path of 4000 segments': (router, n) => {
    for (let i = 0; i < n; i++) router.set(undefined, `/a/b/${i}`, mount(String(i)));
    return (i) => ['h.test', `/a/b/${i}${'/c'.repeat(4000)}`];
  },
};

/** Nanoseconds for each of the requests, the median of rounds. */
function measure(router, requests) {
  const rounds = [];
  let found = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const begin = performance.now();
    for (let i = 0; i < LOOKS; i++) {
      const [host, path] = requests[i % REQUESTS];
      if (router.match(host, path) !== undefined) found++;
    }
    rounds.push(((performance.now() - begin) * 1e6) / LOOKS);
  }
  assert.equal(found, ROUNDS * LOOKS);
  return rounds.sort((a, b) => a - b)[ROUNDS >> 1];
}

for (const [kind, fill] of Object.entries(kinds)) {
  const cells = COUNTS.map((n) => {
    const router = new Router();
    const request = fill(router, n);
    const requests = Array.from({ length: REQUESTS }, (_, i) => request(Math.floor((i * n) / REQUESTS)));
    for (const [i, [host, path]] of requests.entries())
      assert.equal(router.match(host, path)?.context, String(Math.floor((i * n) / REQUESTS)));
    return `${n}: ${measure(router, requests).toFixed(0)} ns`;
  });
  console.log(`${kind.padEnd(24)} ${cells.join('  ')}`);
}
