// What the pieces are fed with: the head of a request as a browser sends it, as the engine shows it and as it is packed.

export const lines = [
  ['host', 'www.example.com'],
  ['connection', 'keep-alive'],
  ['user-agent', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'],
  ['accept', 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'],
  ['accept-language', 'en-US,en;q=0.5'],
  ['accept-encoding', 'gzip, deflate, br, zstd'],
  ['cookie', 'session=0123456789abcdef0123456789abcdef'],
];

/** As the engine shows it. @param {readonly (readonly string[])[]} shown */
export const engineRequest = (shown) => ({
  getUrl: () => '/articles/4711',
  getQuery: () => 'page=2',
  forEach: (visit) => {
    for (const [name, value] of shown) visit(name, value);
  },
});

/** See `PackedHead` in src/protocol.ts. */
export const packedHead = `GET\n/articles/4711\n?page=2\n*\nhttp\n${lines.map(([name, value]) => `\n${name}\n${value}`).join('')}`;

export const answer = {
  status: 200,
  headers: { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-cache' },
  body: '<!doctype html><title>Hello</title><p>Hello, World!',
};

/** About what travels together under load. */
export const BATCH = 20;
