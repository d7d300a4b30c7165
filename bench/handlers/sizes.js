import { bodyOf } from '../lib/sizes.js';

const headers = { 'content-type': 'text/plain' };

async function count(req) {
  return { headers, body: String((await req.bytes()).length) };
}

/** A body of as many bytes as the query says, or how many there were in the one that came. */
export default (req) => (req.method === 'POST' ? count(req) : { headers, body: bodyOf(Number(req.query)) });
