import { coming, pieces } from '../lib/pieces.js';

const headers = { 'content-type': 'text/plain' };

/** A body in small pieces: all there, or one after the other. */
export default ({ path }) => ({ headers, body: path === '/coming' ? coming() : pieces() });
