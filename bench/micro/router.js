// What it costs to find the mount of a request, by the number of mounts.
import { strict as assert } from 'node:assert';
import { Router } from '../../src/io/router.ts';

const COUNTS = [1, 10, 100, 1000, 10_000, 100_000];
/** Different requests, so that nothing is remembered; few enough to stay in the cache of the processor. */
const REQUESTS = 64;

const mount = (context) => ({ context, dispatcher: { close() {} } });
const kinds = {
  'path of three segments': (router, n) => {
    for (let i = 0; i < n; i++) router.set(undefined, `/a/b/${i}`, mount(String(i)));
    return (i) => ['h.test', `/a/b/${i}/c`];
  },
  'virtual host': (router, n) => {
    for (let i = 0; i < n; i++) router.set(`t${i}.example.com`, '/', mount(String(i)));
    return (i) => [`t${i}.example.com:8090`, '/a/b/c'];
  },
  wildcard: (router, n) => {
    for (let i = 0; i < n; i++) router.set(`*.t${i}.example.com`, '/', mount(String(i)));
    return (i) => [`www.t${i}.example.com`, '/a/b/c'];
  },
  'path before 4000 more segments': (router, n) => {
    for (let i = 0; i < n; i++) router.set(undefined, `/a/b/${i}`, mount(String(i)));
    return (i) => ['h.test', `/a/b/${i}${'/c'.repeat(4000)}`];
  },
};

/**
 * @param {number} most the most mounts
 * @returns {readonly import('./pieces.js').Piece[]}
 */
export function routes(most) {
  return Object.entries(kinds).flatMap(([kind, fill]) =>
    COUNTS.filter((n) => n <= most).map((n) => {
      const router = new Router();
      const request = fill(router, n);
      const number = (i) => Math.floor((i * n) / REQUESTS);
      const requests = Array.from({ length: REQUESTS }, (_, i) => request(number(i)));
      for (const [i, [host, path]] of requests.entries())
        assert.equal(router.match(host, path)?.context, String(number(i)));
      return {
        group: 'router',
        name: `find a mount by ${kind}`,
        of: n,
        each: REQUESTS,
        run: () => {
          let found = 0;
          for (const [host, path] of requests) if (router.match(host, path) !== undefined) found++;
          return found;
        },
      };
    }),
  );
}
