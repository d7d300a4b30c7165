import burn from './burn.js';

function spinForEver() {
  for (;;) {}
}

/** One route of the module never comes back. */
export default (req) => (req.path === '/spin' ? spinForEver() : burn(req));
