// What can be profiled: a handler, how it is mounted, and what it is asked.

const HELLO = new URL('../bench/handlers/hello.js', import.meta.url);
const CPU = new URL('../bench/handlers/cpu.js', import.meta.url);
const JSON_ECHO = new URL('../bench/handlers/json-echo.js', import.meta.url);
const ECHO = new URL('../bench/handlers/echo.js', import.meta.url);
const STREAM = new URL('./handlers/stream.js', import.meta.url);

const document = JSON.stringify(
  Array.from({ length: 100 }, (_, id) => ({ id, name: `name ${id}`, tags: ['a', 'b'], price: id / 7 })),
);

/**
 * @typedef {object} Scenario
 * @property {string} about
 * @property {URL} handler
 * @property {Record<string, unknown>} [options] of the server
 * @property {Record<string, string>} [env] of the server
 * @property {number} [connections]
 * @property {{ type: string, body: string }} [post] what is sent with each request; a GET without
 * @property {string} [message] what is sent over WebSockets instead, and comes back
 */

/** @type {Record<string, Scenario>} */
export const SCENARIOS = {
  hello: { about: 'the smallest answer, from a worker', handler: HELLO },
  'hello-inline': {
    about: 'the same on the I/O thread',
    handler: HELLO,
    options: { dispatch: false },
  },
  cpu: {
    about: 'a handler that computes for some milliseconds',
    handler: CPU,
    env: { BENCH_ITERATIONS: '3000000' },
    connections: 8,
  },
  json: {
    about: 'JSON parsed and written again, 5 KB',
    handler: JSON_ECHO,
    post: { type: 'application/json', body: document },
  },
  stream: { about: 'a body of 1 MiB that is made while it is sent', handler: STREAM, connections: 8 },
  echo: { about: 'WebSocket messages that come back', handler: ECHO, message: 'Hello, World!' },
};
